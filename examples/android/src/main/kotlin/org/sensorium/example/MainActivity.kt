package org.sensorium.example

import android.app.Activity
import android.os.Bundle
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.io.File
import kotlin.concurrent.thread

/** Asks the bundle in the app's folder, and shows the answer as it comes. */
class MainActivity : Activity() {
    private lateinit var conversation: TextView
    private lateinit var question: EditText
    private lateinit var send: Button
    private val messages = ArrayList<String>()
    private var bundle: SensoriumBundle? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        conversation = TextView(this).apply { setTextIsSelectable(true) }
        question = EditText(this).apply { hint = "Ask something" }
        send = Button(this).apply { text = "Send"; setOnClickListener { ask(question.text.toString()) } }
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            addView(ScrollView(context).apply { addView(conversation) }, LinearLayout.LayoutParams(-1, 0, 1f))
            addView(question)
            addView(send)
        })
        work { bundle = SensoriumBundle(File(getExternalFilesDir(null), "bundle")) }
    }

    private fun ask(text: String) = work {
        val opened = bundle ?: return@work
        messages += text
        show("\n> $text\n")
        val answer = StringBuilder()
        for (piece in opened.ask(messages)) {
            answer.append(piece)
            show(piece)
        }
        messages += answer.toString()
    }

    /** Runs away from the screen's thread, one piece of work at a time; what fails is told. */
    private fun work(piece: () -> Unit) {
        send.isEnabled = false
        thread {
            val sizeBefore = messages.size
            try {
                piece()
            } catch (error: Exception) {
                while (messages.size > sizeBefore) messages.removeAt(messages.size - 1)
                show("\n${error.message}\n")
            }
            runOnUiThread { send.isEnabled = bundle != null }
        }
    }

    private fun show(text: String) = runOnUiThread { conversation.append(text) }
}
