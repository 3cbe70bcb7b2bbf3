/// Reads tokens and keeps what it read.
protocol TokenReader: AnyObject {
    /// Positions that it can hold.
    var contextLength: Int { get }

    /// Appends tokens: the logits of the one that follows.
    func read(_ tokens: [Int]) throws -> [Float]

    /// Begins anew.
    func forget()
}

/// The likeliest token each time, until the model ends its answer or `most` are made.
func generate(
    _ reader: TokenReader, prompt: [Int], stops: Set<Int>, most: Int, onToken: (Int) throws -> Void
) throws {
    guard !prompt.isEmpty, prompt.count + most <= reader.contextLength else {
        throw BundleError("\(prompt.count) tokens and \(most) new ones do not fit \(reader.contextLength).")
    }
    reader.forget()
    var next = prompt
    for _ in 0..<most {
        let token = likeliest(try reader.read(next))
        if stops.contains(token) { return }
        try onToken(token)
        next = [token]
    }
}

private func likeliest(_ logits: [Float]) -> Int {
    var best = 0
    for token in logits.indices where logits[token] > logits[best] { best = token }
    return best
}
