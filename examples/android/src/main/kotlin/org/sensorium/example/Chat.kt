package org.sensorium.example

import org.json.JSONObject

/** What the model's chat template writes around messages, from a bundle's chat.json. */
class Chat(json: JSONObject) {
    private val before = json.getString("before")
    private val after = json.getString("after")
    private val between = json.getString("between")

    /** A conversation as text: the user's and the assistant's messages in turn, the user's first and last. */
    fun prompt(messages: List<String>): String {
        require(messages.size % 2 == 1) { "A conversation begins and ends with the user." }
        val whole = StringBuilder(before)
        for ((number, message) in messages.withIndex()) {
            whole.append(message).append(if (number % 2 == 0) after else between)
        }
        return whole.toString()
    }
}
