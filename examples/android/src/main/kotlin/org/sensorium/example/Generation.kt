package org.sensorium.example

/** Reads tokens and keeps what it read. */
interface TokenReader {
    /** Positions that it can hold. */
    val contextLength: Int

    /** Appends tokens: the logits of the one that follows. */
    fun read(tokens: List<Int>): FloatArray

    /** Begins anew. */
    fun forget()
}

/** The likeliest token each time, until the model ends its answer or `most` are made. */
fun generate(reader: TokenReader, prompt: List<Int>, stops: Set<Int>, most: Int): Sequence<Int> = sequence {
    require(prompt.isNotEmpty() && prompt.size + most <= reader.contextLength) {
        "${prompt.size} tokens and $most new ones do not fit ${reader.contextLength}."
    }
    reader.forget()
    var next = prompt
    repeat(most) {
        val token = likeliest(reader.read(next))
        if (token in stops) return@sequence
        yield(token)
        next = listOf(token)
    }
}

private fun likeliest(logits: FloatArray): Int {
    var best = 0
    for (token in logits.indices) if (logits[token] > logits[best]) best = token
    return best
}
