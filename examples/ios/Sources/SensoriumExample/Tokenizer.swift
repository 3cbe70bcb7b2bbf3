import Foundation

/// Why a bundle is not read.
struct BundleError: LocalizedError {
    let errorDescription: String?

    init(_ problem: String) { errorDescription = problem }
}

/// Byte-level BPE, read from a bundle's tokenizer.json: text to token ids and back.
///
/// It knows what GPT-2's kind of tokenizers needs (SmolLM's among them); any other is refused.
final class Tokenizer {
    private struct Pair: Hashable {
        let left: String
        let right: String
    }

    private var ids: [String: Int] = [:]
    private var texts: [Int: String] = [:]
    private var ranks: [Pair: Int] = [:]
    private var added: [String: Int] = [:]  // tokens that stand in a text as they are
    private var special: Set<Int> = []
    private var digitsApart = false
    private var addedPattern: NSRegularExpression?
    private var known: [[UInt8]: [Int]] = [:]  // words that were cut before; strings would be one key if canonically equal

    init(_ json: [String: Any]) throws {
        guard let model = json["model"] as? [String: Any], model["type"] as? String ?? "BPE" == "BPE",
            json["normalizer"] == nil || json["normalizer"] is NSNull, let steps = json["pre_tokenizer"] as? [String: Any],
            let vocabulary = model["vocab"] as? [String: Int], let merges = model["merges"] as? [Any]
        else { throw BundleError("Only byte-level BPE is read.") }
        digitsApart = try Self.readSteps(steps)
        ids = vocabulary
        for (rank, merge) in merges.enumerated() {
            let parts = merge as? [String] ?? (merge as? String)?.components(separatedBy: " ") ?? []
            guard parts.count == 2 else { throw BundleError("A merge is no pair.") }
            ranks[Pair(left: parts[0], right: parts[1])] = rank
        }
        for token in json["added_tokens"] as? [[String: Any]] ?? [] { try add(token) }
        for (text, id) in ids { texts[id] = text }
        let longestFirst = added.keys.sorted { $0.count > $1.count }.map(NSRegularExpression.escapedPattern)
        if !added.isEmpty { addedPattern = try NSRegularExpression(pattern: longestFirst.joined(separator: "|")) }
    }

    /// Control tokens that a text spells; a message must have none.
    func controls(_ text: String) -> [String] {
        // Found as `encode` finds them: Swift's own search would pass over one that a combining mark follows.
        matches(text).map { (text as NSString).substring(with: $0.range) }.filter { special.contains(added[$0]!) }
    }

    /// Token ids of a text in which control tokens are what they spell.
    func encode(_ text: String) throws -> [Int] {
        let whole = text as NSString
        var found: [Int] = []
        var from = 0
        for match in matches(text) {
            let range = NSRange(location: from, length: match.range.location - from)
            try encodeWords(whole.substring(with: range), &found)
            found.append(added[whole.substring(with: match.range)]!)
            from = NSMaxRange(match.range)
        }
        try encodeWords(whole.substring(from: from), &found)
        return found
    }

    /// The bytes that a token stands for; control tokens stand for none.
    func bytes(_ id: Int) -> [UInt8] {
        guard !special.contains(id), let text = texts[id] else { return [] }
        if added[text] == id { return Array(text.utf8) }
        return text.unicodeScalars.map { Self.bytes[$0]! }
    }

    private func matches(_ text: String) -> [NSTextCheckingResult] {
        addedPattern?.matches(in: text, range: NSRange(location: 0, length: (text as NSString).length)) ?? []
    }

    private func encodeWords(_ text: String, _ found: inout [Int]) throws {
        for part in digitsApart ? Self.all(Self.digits, text) : [text] {
            for word in Self.all(Self.words, part) {
                let bytes = Array(word.utf8)
                if known[bytes] == nil { known[bytes] = try cut(bytes) }
                found += known[bytes]!
            }
        }
    }

    /// The tokens of a word: neighbours are joined, those first that training joined first.
    private func cut(_ word: [UInt8]) throws -> [Int] {
        var pieces = word.map { String(Self.letters[Int($0)]) }
        while pieces.count > 1 {
            func rank(_ at: Int) -> Int { ranks[Pair(left: pieces[at], right: pieces[at + 1])] ?? Int.max }
            let best = (0..<pieces.count - 1).min { rank($0) < rank($1) }!
            if rank(best) == Int.max { break }
            let next = pieces.remove(at: best + 1)
            pieces[best] += next
        }
        return try pieces.map {
            guard let id = ids[$0] else { throw BundleError("The vocabulary has no \($0).") }
            return id
        }
    }

    private func add(_ token: [String: Any]) throws {
        guard let text = token["content"] as? String, let id = token["id"] as? Int,
            !["lstrip", "rstrip", "single_word"].contains(where: { token[$0] as? Bool ?? false })
        else { throw BundleError("Added tokens that take spaces with them are not read.") }
        added[text] = id
        texts[id] = text
        if token["special"] as? Bool ?? false { special.insert(id) }
    }

    // Unicode's white space, spelled out: engines of regular expressions differ in what \s means.
    private static let space = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
    private static let words = try! NSRegularExpression(
        pattern: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\(space)\\p{L}\\p{N}]+"
            + "|[\(space)]+(?![^\(space)])|[\(space)]+"
    )
    private static let digits = try! NSRegularExpression(pattern: "\\p{N}|[^\\p{N}]+")

    /// GPT-2's letter for each byte: those that print stand for themselves, the others follow from 256 on.
    private static let letters: [Unicode.Scalar] = {
        let printed = Set(UInt32(0x21)...0x7e).union(0xa1...0xac).union(0xae...0xff)
        var next: UInt32 = 255
        return (UInt32(0)..<256).map { byte in
            if printed.contains(byte) { return Unicode.Scalar(byte)! }
            next += 1
            return Unicode.Scalar(next)!
        }
    }()
    private static let bytes = Dictionary(
        uniqueKeysWithValues: letters.enumerated().map { ($0.element, UInt8($0.offset)) })

    private static func all(_ pattern: NSRegularExpression, _ text: String) -> [String] {
        let whole = text as NSString
        return pattern.matches(in: text, range: NSRange(location: 0, length: whole.length))
            .map { whole.substring(with: $0.range) }
    }

    /// Whether digits stand apart; throws for steps that are not known here.
    private static func readSteps(_ step: [String: Any]) throws -> Bool {
        switch step["type"] as? String {
        case "Sequence":
            return try (step["pretokenizers"] as? [[String: Any]] ?? []).map(readSteps).contains(true)
        case "Digits" where step["individual_digits"] as? Bool ?? false:
            return true
        case "ByteLevel" where !(step["add_prefix_space"] as? Bool ?? true):
            return false
        default:
            throw BundleError("The tokenizer has a step that is not read: \(step["type"] ?? "none")")
        }
    }
}

/// Turns the bytes of tokens into text that never splits a character.
struct TextStream {
    private var held: [UInt8] = []

    /// The text that is whole with these bytes.
    mutating func push(_ bytes: [UInt8]) -> String {
        let all = held + bytes
        let whole = all.count - Self.unfinished(all)
        held = Array(all[whole...])
        return String(decoding: all[..<whole], as: UTF8.self)
    }

    /// Bytes at the end that begin a character of which more is to come.
    private static func unfinished(_ bytes: [UInt8]) -> Int {
        for back in stride(from: 1, through: min(3, bytes.count), by: 1) {
            let byte = bytes[bytes.count - back]
            if byte & 0xc0 == 0x80 { continue }  // in the middle of a character
            let length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
            return length > back ? back : 0
        }
        return 0
    }
}
