import CryptoKit
import Foundation
import OnnxRuntimeBindings

/// A bundle that `sensorium export MODEL OUT --target ios` wrote, run by ONNX Runtime.
///
/// Every file is compared with the manifest first. One conversation at a time; not for several threads.
public final class SensoriumBundle: TokenReader {
    private static let format = 4  // the newest format of bundles that this code reads

    let contextLength: Int
    private let layers, heads, size: Int
    private let environment: ORTEnv
    private let session: ORTSession
    private let tokenizer: Tokenizer
    private let chat: Chat
    private let stops: Set<Int>
    private let kept: ORTTensorElementDataType  // of keys and values
    private var past: [String: ORTValue] = [:]  // keys and values of what was read
    private var length = 0

    public init(_ folder: URL) throws {
        let manifest = try Self.json(folder, "manifest.json")
        guard let format = manifest["format"] as? Int, (1...Self.format).contains(format) else {
            throw BundleError("This bundle's format is not read here.")
        }
        try Self.checkFiles(folder, manifest)
        guard let sizes = manifest["decoder"] as? [String: Int], let longest = sizes["context_length"],
            let layers = sizes["layers"], let heads = sizes["kv_heads"], let size = sizes["head_size"],
            let graph = (manifest["graphs"] as? [String: String])?["decoder"],
            let model = try Self.json(folder, "genai_config.json")["model"] as? [String: Any],
            let ends = model["eos_token_id"] as? [Int]
        else { throw BundleError("The manifest does not describe a decoder.") }
        (contextLength, self.layers, self.heads, self.size, stops) = (longest, layers, heads, size, Set(ends))
        kept = sizes["cache_bits"] == 8 ? .int8 : .float
        tokenizer = try Tokenizer(Self.json(folder, "tokenizer.json"))
        chat = try Chat(Self.json(folder, "chat.json"))
        environment = try ORTEnv(loggingLevel: .warning)
        let path = folder.appendingPathComponent(graph).path
        session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)
    }

    /// Answers a conversation (see `Chat.prompt`), in pieces that never split a character.
    public func ask(_ messages: [String], most: Int = 128, onText: (String) -> Void) throws {
        if let control = messages.flatMap(tokenizer.controls).first {
            throw BundleError("A message contains the control token \(control).")
        }
        var stream = TextStream()
        try generate(self, prompt: tokenizer.encode(chat.prompt(messages)), stops: stops, most: most) {
            onText(stream.push(tokenizer.bytes($0)))
        }
    }

    func read(_ tokens: [Int]) throws -> [Float] {
        let total = length + tokens.count
        var inputs = [
            "input_ids": try whole(tokens.map(Int64.init)),
            "attention_mask": try whole(Array(repeating: 1, count: total)),
        ]
        var outputs: Set = ["logits"]
        for layer in 0..<layers {
            for part in ["key", "value"] {
                inputs["past_key_values.\(layer).\(part)"] = try past["present.\(layer).\(part)"] ?? empty()
                outputs.insert("present.\(layer).\(part)")
            }
        }
        var found = try session.run(withInputs: inputs, outputNames: outputs, runOptions: nil)
        guard let logits = found.removeValue(forKey: "logits") else {
            throw BundleError("The graph gave no logits.")
        }
        (past, length) = (found, total)
        let data = try logits.tensorData() as Data
        return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }

    func forget() {
        past = [:]
        length = 0
    }

    private func whole(_ numbers: [Int64]) throws -> ORTValue {
        let data = numbers.withUnsafeBytes { NSMutableData(bytes: $0.baseAddress!, length: $0.count) }
        return try ORTValue(tensorData: data, elementType: .int64, shape: [1, NSNumber(value: numbers.count)])
    }

    private func empty() throws -> ORTValue {
        let shape = [1, heads, 0, size].map { NSNumber(value: $0) }
        // It holds nothing; the four bytes only give it an address.
        return try ORTValue(tensorData: NSMutableData(length: 4)!, elementType: kept, shape: shape)
    }

    private static func json(_ folder: URL, _ name: String) throws -> [String: Any] {
        let data = try Data(contentsOf: folder.appendingPathComponent(name))
        guard let object = try JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw BundleError("\(name) is not what a bundle holds.")
        }
        return object
    }

    private static func checkFiles(_ folder: URL, _ manifest: [String: Any]) throws {
        for (name, entry) in manifest["files"] as? [String: [String: Any]] ?? [:] {
            // Mapped, so that the weights are not held in memory.
            let data = try Data(contentsOf: folder.appendingPathComponent(name), options: .alwaysMapped)
            let digest = SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
            guard data.count == entry["size"] as? Int, digest == entry["sha256"] as? String else {
                throw BundleError("\(name) is not the file that was exported.")
            }
        }
    }
}
