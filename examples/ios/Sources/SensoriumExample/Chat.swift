/// What the model's chat template writes around messages, from a bundle's chat.json.
struct Chat {
    private let before, after, between: String

    init(_ json: [String: Any]) throws {
        guard let before = json["before"] as? String, let after = json["after"] as? String,
            let between = json["between"] as? String
        else { throw BundleError("chat.json does not say how a conversation is written.") }
        (self.before, self.after, self.between) = (before, after, between)
    }

    /// A conversation as text: the user's and the assistant's messages in turn, the user's first and last.
    func prompt(_ messages: [String]) throws -> String {
        guard messages.count % 2 == 1 else { throw BundleError("A conversation begins and ends with the user.") }
        return before + messages.enumerated().map { $1 + ($0 % 2 == 0 ? after : between) }.joined()
    }
}
