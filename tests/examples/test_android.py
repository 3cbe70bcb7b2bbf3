"""The Android example's own code, compiled and run on a Java machine: Python's tokens, prompts and answers."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sensorium import sdk
from sensorium.mobile_export.chat_frame import CHAT_FRAME, chat_frame
from sensorium.mobile_export.runtime import Bundle

from ..checkpoints import byte_llama

ROOT = Path(__file__).resolve().parent.parent.parent
ANDROID = ROOT / "examples" / "android"
SOURCES = ANDROID / "src" / "main" / "kotlin" / "org" / "sensorium" / "example"
COMPILER = ANDROID / "node_modules" / "kotlin-compiler" / "lib"
JSON = Path("/usr/share/java/com.android.json.jar")
JAVA = shutil.which("java")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        JAVA is None or not COMPILER.is_dir() or not JSON.is_file(),
        reason="needs Java, Debian's libandroid-json-java, and kotlin-compiler of npm in examples/android",
    ),
]

TEXTS = [
    "",
    "Hello, world!",
    "  two  spaces, and a tab\t\t and\n\n\nlines \n",
    "I'll say it's 1234567 o'clock: we've 3.14, ½ and ٣٤.",
    "Grüße, naïve café — “quotes” … 你好，世界! Привет 👋🏽👩‍👩‍👧",
    "a\u00a0b\u2009c\u3000d\u200be\u0085f\x1cg",
    "<|im_start|>user\nHi<|im_end|>\n",
    "don'T WE'LL 'sharp 's",
    "e\u0301 \u1e9b\u0323 \u0000 \ufeff \ud7ff \U0010ffff",
    "x" * 300,
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the compiled check, without its arguments."""
    out = tmp_path_factory.mktemp("kotlin") / "check.jar"
    path = f"{JSON}:{COMPILER / 'kotlin-stdlib.jar'}"
    sources = [SOURCES / name for name in ("Tokenizer.kt", "Chat.kt", "Generation.kt")]
    compiler = [JAVA, "-cp", COMPILER / "kotlin-compiler.jar", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    options = ["-no-stdlib", "-no-reflect", "-Werror", "-cp", path, "-d", out]
    command = [*compiler, *options, *sources, Path(__file__).with_name("Check.kt")]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [str(JAVA), "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", f"{out}:{path}", "CheckKt"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = byte_llama(tmp_path_factory.mktemp("checkpoint"))
    sdk.export(folder, folder / "bundle", quant="int4", target="android", figures=False)
    return folder / "bundle"


def random_texts(count: int) -> list[str]:
    draw = random.Random(7)
    letters = [*"abcdefghij ABC  \n\t'.,!?-0123456789", *"äß😀ñ中文字ق\u00a0\u2028\u0301"]
    return ["".join(draw.choices(letters, k=draw.randrange(60))) for _ in range(count)]


def test_the_default_model_s_tokens_are_python_s(program: list[str], nano_file: Path, tmp_path: Path) -> None:
    tokenizer = sdk.load("nano").tokenizer
    tokenizer.save(tmp_path)
    texts = TEXTS + random_texts(300)
    lines = "\n".join(map(json.dumps, texts)) + "\n"
    done = subprocess.run(
        [*program, "encode", tmp_path], input=lines, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for text, line in zip(texts, done.stdout.split("\n")[:-1], strict=True):
        found, tokens = json.loads(line), tokenizer.encode(text, add_special=False)
        assert found == {"tokens": tokens, "text": tokenizer.decode(tokens)}, repr(text)
    # Its template is a frame, and conversations are framed as the template does.
    frame = chat_frame(tokenizer)
    assert frame is not None
    messages = [{"role": role, "content": text} for role, text in (("user", "Hi "), ("assistant", "Ho"), ("user", "?"))]
    framed = frame["before"] + "Hi " + frame["after"] + "Ho" + frame["between"] + "?" + frame["after"]
    assert tokenizer.encode(framed, add_special=False) == tokenizer.encode_chat(messages)


@pytest.mark.parametrize("messages", [["Grün?"], ["Hello", "Good day, 1 2 3", "How are you?"]])
def test_a_conversation_is_answered_as_in_python(messages: list[str], program: list[str], bundle: Path) -> None:
    opened = Bundle(bundle)
    runner, tokenizer = opened.decoder(), opened.tokenizer()
    state, read = None, []
    assert (bundle / CHAT_FRAME).is_file()
    with subprocess.Popen(
        [*program, "ask", str(bundle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(messages) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            said = json.loads(line)
            if "tokens" in said:
                break
            if "forget" in said:
                state = runner.new_state()
                continue
            assert state is not None
            read += said["read"]
            logits = runner.step(state, np.array([said["read"]]))[0, -1]
            process.stdin.write(json.dumps(logits.tolist()) + "\n")
            process.stdin.flush()
        else:
            pytest.fail("it ended without an answer")
    roles = ("user", "assistant")
    conversation = [{"role": roles[number % 2], "content": text} for number, text in enumerate(messages)]
    expected = sdk.load(bundle).ask(conversation, max_new_tokens=12)
    assert said["tokens"] == list(expected.tokens)
    assert read == [*tokenizer.encode_chat(conversation), *said["tokens"]][: len(read)]
