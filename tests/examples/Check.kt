// What tests run of the Android example: its tokenizer, chat and greedy loop, without a phone and without ONNX Runtime.

import java.io.File
import org.json.JSONArray
import org.json.JSONObject
import org.json.JSONTokener
import org.sensorium.example.Chat
import org.sensorium.example.TokenReader
import org.sensorium.example.TextStream
import org.sensorium.example.Tokenizer
import org.sensorium.example.generate

private fun json(folder: String, name: String) = JSONObject(File(folder, name).readText())

/** Whoever reads what this prints runs the model, and answers with a line of logits. */
private class FarReader(override val contextLength: Int) : TokenReader {
    override fun read(tokens: List<Int>): FloatArray {
        println(JSONObject().put("read", JSONArray(tokens)))
        val logits = JSONArray(readln())
        return FloatArray(logits.length()) { logits.getDouble(it).toFloat() }
    }

    override fun forget() = println(JSONObject().put("forget", true))
}

/** The text of tokens, put together from the pieces of it that can be shown after each. */
private fun told(tokenizer: Tokenizer, tokens: List<Int>): String {
    val stream = TextStream()
    return tokens.joinToString("") { stream.push(tokenizer.bytes(it)) }
}

/** encode FOLDER: the token ids of each line's JSON text, and their text. ask FOLDER: of a JSON list of messages, an answer. */
fun main(arguments: Array<String>) {
    val (task, folder) = arguments
    val tokenizer = Tokenizer(json(folder, "tokenizer.json"))
    if (task == "encode") {
        generateSequence(::readlnOrNull).forEach { line ->
            val tokens = tokenizer.encode(JSONTokener(line).nextValue() as String)
            println(JSONObject().put("tokens", JSONArray(tokens)).put("text", told(tokenizer, tokens)))
        }
        return
    }
    val given = JSONArray(readln())
    val messages = (0 until given.length()).map { given.getString(it) }
    val config = json(folder, "genai_config.json").getJSONObject("model")
    val ends = config.getJSONArray("eos_token_id")
    val stops = (0 until ends.length()).map { ends.getInt(it) }.toSet()
    val tokens = generate(
        FarReader(config.getInt("context_length")),
        tokenizer.encode(Chat(json(folder, "chat.json")).prompt(messages)),
        stops,
        12,
    ).toList()
    println(JSONObject().put("tokens", JSONArray(tokens)))
}
