package org.sensorium.example

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.LongBuffer
import java.security.MessageDigest
import org.json.JSONObject

/**
 * A bundle that `sensorium export MODEL OUT --target android` wrote, run by ONNX Runtime.
 *
 * Every file is compared with the manifest first. One conversation at a time; not for several threads.
 */
class SensoriumBundle(private val folder: File) : TokenReader, AutoCloseable {
    private val manifest = json("manifest.json")
    private val sizes = manifest.getJSONObject("decoder")
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession
    private val tokenizer: Tokenizer
    private val chat: Chat
    private val stops: Set<Int>
    private var past: OrtSession.Result? = null // keys and values of what was read
    private var length = 0

    init {
        require(manifest.getInt("format") in 1..FORMAT) { "This bundle's format is not read here." }
        checkFiles()
        tokenizer = Tokenizer(json("tokenizer.json"))
        chat = Chat(json("chat.json"))
        val ends = json("genai_config.json").getJSONObject("model").getJSONArray("eos_token_id")
        stops = (0 until ends.length()).map { ends.getInt(it) }.toSet()
        val graph = manifest.getJSONObject("graphs").getString("decoder")
        session = environment.createSession(File(folder, graph).path, OrtSession.SessionOptions())
    }

    override val contextLength: Int = sizes.getInt("context_length")

    /** The answer to a conversation (see [Chat.prompt]), in pieces that never split a character. */
    fun ask(messages: List<String>, most: Int = 128): Sequence<String> {
        val control = messages.flatMap { tokenizer.controls(it) }.firstOrNull()
        require(control == null) { "A message contains the control token $control." }
        val stream = TextStream()
        return generate(this, tokenizer.encode(chat.prompt(messages)), stops, most)
            .map { stream.push(tokenizer.bytes(it)) }
    }

    override fun read(tokens: List<Int>): FloatArray {
        val total = length + tokens.size
        val inputs = HashMap<String, OnnxTensor>()
        val mine = ArrayList<OnnxTensor>() // made here, closed here
        fun give(name: String, tensor: OnnxTensor) = tensor.also { mine += it; inputs[name] = it }
        try {
            give("input_ids", whole(LongArray(tokens.size) { tokens[it].toLong() }))
            give("attention_mask", whole(LongArray(total) { 1 }))
            for (layer in 0 until sizes.getInt("layers")) for (part in listOf("key", "value")) {
                val name = "past_key_values.$layer.$part"
                val kept = past?.get("present.$layer.$part")?.get() as OnnxTensor?
                if (kept != null) inputs[name] = kept else give(name, empty())
            }
            val found = session.run(inputs)
            past?.close()
            past = found
            length = total
            return (found.get("logits").get() as OnnxTensor).floatBuffer.let { FloatArray(it.remaining()).also(it::get) }
        } finally {
            mine.forEach { it.close() }
        }
    }

    override fun forget() {
        past?.close()
        past = null
        length = 0
    }

    override fun close() {
        forget()
        session.close()
    }

    private fun whole(numbers: LongArray): OnnxTensor =
        OnnxTensor.createTensor(environment, LongBuffer.wrap(numbers), longArrayOf(1, numbers.size.toLong()))

    private fun empty(): OnnxTensor {
        val shape = longArrayOf(1, sizes.getLong("kv_heads"), 0, sizes.getLong("head_size"))
        if (sizes.optInt("cache_bits", 32) == 8) {
            return OnnxTensor.createTensor(environment, ByteBuffer.allocateDirect(0), shape, OnnxJavaType.INT8)
        }
        return OnnxTensor.createTensor(environment, FloatBuffer.allocate(0), shape)
    }

    private fun json(name: String) = JSONObject(File(folder, name).readText())

    private fun checkFiles() {
        val files = manifest.getJSONObject("files")
        for (name in files.keys()) {
            val entry = files.getJSONObject(name)
            val file = File(folder, name)
            val right = file.length() == entry.getLong("size") && sha256(file) == entry.getString("sha256")
            require(right) { "$name is not the file that was exported." }
        }
    }

    private fun sha256(file: File): String {
        val digest = MessageDigest.getInstance("SHA-256")
        file.inputStream().use { stream ->
            val buffer = ByteArray(1 shl 16)
            while (true) {
                val count = stream.read(buffer)
                if (count < 0) break
                digest.update(buffer, 0, count)
            }
        }
        return digest.digest().joinToString("") { "%02x".format(it) }
    }

    private companion object {
        const val FORMAT = 4 // the newest format of bundles that this code reads
    }
}
