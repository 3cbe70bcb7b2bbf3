import SwiftUI

/// Asks a bundle, and shows the answer as it comes.
public struct AskView: View {
    private let folder: URL
    @State private var conversation = ""
    @State private var question = ""
    @State private var messages: [String] = []
    @State private var bundle: SensoriumBundle?
    @State private var busy = true

    public init(folder: URL) { self.folder = folder }

    public var body: some View {
        VStack {
            ScrollView { Text(conversation).frame(maxWidth: .infinity, alignment: .leading).textSelection(.enabled) }
            HStack {
                TextField("Ask something", text: $question)
                Button("Send", action: ask).disabled(busy || bundle == nil)
            }
        }
        .padding()
        .task {
            work {
                let opened = try SensoriumBundle(folder)
                DispatchQueue.main.async { bundle = opened }
            }
        }
    }

    private func ask() {
        guard let bundle else { return }
        let asked = messages + [question]
        show("\n> \(question)\n")
        work {
            var answer = ""
            try bundle.ask(asked) { piece in
                answer += piece
                show(piece)
            }
            let whole = asked + [answer]
            DispatchQueue.main.async { messages = whole }
        }
    }

    /// Runs away from the screen's thread, one piece of work at a time; what fails is told.
    private func work(_ piece: @escaping () throws -> Void) {
        busy = true
        DispatchQueue.global(qos: .userInitiated).async {
            do { try piece() } catch { show("\n\(error.localizedDescription)\n") }
            DispatchQueue.main.async { busy = false }
        }
    }

    private func show(_ text: String) {
        DispatchQueue.main.async { conversation += text }
    }
}
