package org.sensorium.example

import java.io.ByteArrayOutputStream
import org.json.JSONArray
import org.json.JSONObject

/**
 * Byte-level BPE, read from a bundle's tokenizer.json: text to token ids and back.
 *
 * It knows what GPT-2's kind of tokenizers needs (SmolLM's among them); any other is refused.
 */
class Tokenizer(json: JSONObject) {
    private val ids = HashMap<String, Int>()
    private val texts = HashMap<Int, String>()
    private val ranks = HashMap<Pair<String, String>, Int>()
    private val added = HashMap<String, Int>() // tokens that stand in a text as they are
    private val special = HashSet<Int>()
    private val digitsApart: Boolean
    private val addedPattern: Regex?
    private val known = HashMap<String, List<Int>>() // words that were cut before

    init {
        val model = json.getJSONObject("model")
        require(model.optString("type", "BPE") == "BPE" && json.isNull("normalizer")) { "Only byte-level BPE is read." }
        digitsApart = readSteps(json.getJSONObject("pre_tokenizer"))
        val vocabulary = model.getJSONObject("vocab")
        for (text in vocabulary.keys()) ids[text] = vocabulary.getInt(text)
        val merges = model.getJSONArray("merges")
        for (rank in 0 until merges.length()) ranks[pair(merges.get(rank))] = rank
        val tokens = json.getJSONArray("added_tokens")
        for (number in 0 until tokens.length()) add(tokens.getJSONObject(number))
        ids.forEach { (text, id) -> texts[id] = text }
        val longestFirst = added.keys.sortedByDescending { it.length }
        addedPattern = if (added.isEmpty()) null else Regex(longestFirst.joinToString("|") { Regex.escape(it) })
    }

    /** Control tokens that a text spells; a message must have none. */
    fun controls(text: String): List<String> = added.keys.filter { added.getValue(it) in special && it in text }

    /** Token ids of a text in which control tokens are what they spell. */
    fun encode(text: String): List<Int> {
        val found = ArrayList<Int>()
        var from = 0
        for (match in addedPattern?.findAll(text) ?: emptySequence()) {
            encodeWords(text.substring(from, match.range.first), found)
            found += added.getValue(match.value)
            from = match.range.last + 1
        }
        encodeWords(text.substring(from), found)
        return found
    }

    /** The bytes that a token stands for; control tokens stand for none. */
    fun bytes(id: Int): ByteArray {
        if (id in special) return ByteArray(0)
        val text = texts[id] ?: return ByteArray(0)
        if (added[text] == id) return text.toByteArray()
        val out = ByteArrayOutputStream()
        for (letter in text) out.write(BYTES.getValue(letter))
        return out.toByteArray()
    }

    private fun encodeWords(text: String, found: MutableList<Int>) {
        val parts = if (digitsApart) DIGITS.findAll(text).map { it.value } else sequenceOf(text)
        for (part in parts) for (word in WORDS.findAll(part)) found += known.getOrPut(word.value) { cut(word.value) }
    }

    /** The tokens of a word: neighbours are joined, those first that training joined first. */
    private fun cut(word: String): List<Int> {
        val pieces = word.toByteArray().map { LETTERS[it.toInt() and 0xff].toString() }.toMutableList()
        while (pieces.size > 1) {
            val best = (0 until pieces.size - 1).minByOrNull { ranks[pieces[it] to pieces[it + 1]] ?: Int.MAX_VALUE }!!
            if (ranks[pieces[best] to pieces[best + 1]] == null) break
            pieces[best] += pieces.removeAt(best + 1)
        }
        return pieces.map { ids[it] ?: error("The vocabulary has no $it.") }
    }

    private fun add(token: JSONObject) {
        val bare = listOf("lstrip", "rstrip", "single_word").none { token.optBoolean(it) }
        require(bare) { "Added tokens that take spaces with them are not read." }
        val (text, id) = token.getString("content") to token.getInt("id")
        added[text] = id
        texts[id] = text
        if (token.optBoolean("special")) special += id
    }

    private companion object {
        // Unicode's white space, spelled out: engines of regular expressions differ in what \s means.
        const val SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
        val WORDS = Regex(
            "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^$SPACE\\p{L}\\p{N}]+|[$SPACE]+(?![^$SPACE])|[$SPACE]+"
        )
        val DIGITS = Regex("\\p{N}|[^\\p{N}]+")

        /** GPT-2's letter for each byte: those that print stand for themselves, the others follow from 256 on. */
        val LETTERS: List<Char> = run {
            val printed = ('!'..'~') + ('\u00a1'..'\u00ac') + ('\u00ae'..'\u00ff')
            var next = 256
            (0..255).map { if (it.toChar() in printed) it.toChar() else (next++).toChar() }
        }
        val BYTES: Map<Char, Int> = LETTERS.withIndex().associate { (byte, letter) -> letter to byte }

        /** Whether digits stand apart; raises for steps that are not known here. */
        fun readSteps(step: JSONObject): Boolean = when (step.getString("type")) {
            "Sequence" -> step.getJSONArray("pretokenizers").let { all ->
                (0 until all.length()).map { readSteps(all.getJSONObject(it)) }.any { it }
            }
            "Digits" -> true.also { require(step.optBoolean("individual_digits")) { "Only single digits are read." } }
            "ByteLevel" -> false.also { require(!step.optBoolean("add_prefix_space")) { "No prefix space is read." } }
            else -> error("The tokenizer has a step that is not read: ${step.getString("type")}")
        }

        fun pair(merge: Any): Pair<String, String> = when (merge) {
            is JSONArray -> merge.getString(0) to merge.getString(1)
            else -> merge.toString().split(" ").let { (left, right) -> left to right }
        }
    }
}

/** Turns the bytes of tokens into text that never splits a character. */
class TextStream {
    private var held = ByteArray(0)

    /** The text that is whole with these bytes. */
    fun push(bytes: ByteArray): String {
        val all = held + bytes
        val whole = all.size - unfinished(all)
        held = all.copyOfRange(whole, all.size)
        return String(all, 0, whole, Charsets.UTF_8)
    }

    /** Bytes at the end that begin a character of which more is to come. */
    private fun unfinished(bytes: ByteArray): Int {
        for (back in 1..minOf(3, bytes.size)) {
            val byte = bytes[bytes.size - back].toInt() and 0xff
            if (byte and 0xc0 == 0x80) continue // in the middle of a character
            val length = if (byte >= 0xf0) 4 else if (byte >= 0xe0) 3 else if (byte >= 0xc0) 2 else 1
            return if (length > back) back else 0
        }
        return 0
    }
}
