"""The fake engine and model that users' own tests can build on."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import numpy as np
import pytest
from sensorium import sdk
from sensorium.sdk.testing import FakeEngine, byte_tokenizer, fake_model


def test_the_examples_in_its_documentation_run() -> None:
    module = importlib.import_module("sensorium.sdk.testing")
    failed, tried = doctest.testmod(module)
    assert failed == 0 and tried >= 7


def test_it_needs_no_torch() -> None:
    code = "import sys; from sensorium.sdk.testing import fake_model as made; made('a').ask('b'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sensorium.sdk" in done.stdout.split() and not {"torch", "transformers"} & set(done.stdout.split())


@pytest.mark.parametrize("text", ["", "plain", "né 漢字 \U0001f468\u200d\U0001f469", "\x00\x7f\n\t ", "<end> is text"])
def test_bytes_are_tokens(text: str) -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(text, parse_special=False)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocabulary_size == 257
    assert tokenizer.stop_ids == {256}


def test_every_byte_is_its_own_token() -> None:
    tokenizer = byte_tokenizer()
    assert [tokenizer.token_bytes(token) for token in range(256)] == [bytes([byte]) for byte in range(256)]


def test_answers_come_in_turn_and_prompts_are_remembered() -> None:
    model = fake_model("one", "", "three")
    assert [model.ask(text).text for text in ("a", "b", "c", "d")] == ["one", "", "three", "one"]
    assert [result.text for result in model.batch(["e", "f"])] == ["", "three"]
    assert isinstance(model.engine, FakeEngine)
    asked = [model.tokenizer.decode(prompt) for prompt in model.engine.prompts]
    assert asked == [f"<user>{letter}<assistant>" for letter in "abcdef"]


def test_several_draws_and_beams_follow_the_script_too() -> None:
    assert fake_model("one", "two").ask("a", best_of=3, temperature=0.5, seed=1).text == "one"
    assert fake_model("one", "two").ask("a", beams=3).text == "one"


def test_a_model_without_a_template() -> None:
    model = fake_model("x", chat_template=None, context_length=5)
    assert list(model.encode("abc")) == [97, 98, 99]
    with pytest.raises(sdk.ContextLengthError):
        model.ask("abcdef")


def test_states_are_those_of_the_protocol() -> None:
    def script(prompt: object, answer: object) -> list[float]:
        return [float(str(prompt).count("1")), float(str(answer).count("1")), 0.5]

    engine = FakeEngine(script, vocabulary_size=3)
    assert isinstance(engine, sdk.Engine)
    state, logits = engine.prefill([[1, 2, 1], [0]])
    assert logits.tolist() == [[2, 0, 0.5], [0, 0, 0.5]] and logits.dtype == np.float32
    state.select([1, 0, 0])
    assert engine.step(state, [1, 1, 2]).tolist() == [[0, 1, 0.5], [2, 1, 0.5], [2, 0, 0.5]]
    assert state.lengths == (2, 4, 4)
    state.truncate([1, 2, 4])
    assert engine.step(state, [0, 0, 0]).tolist() == [[0, 0, 0.5], [1, 0, 0.5], [2, 0, 0.5]]
    assert engine.logits([1, 1, 0]).tolist() == [[1, 0, 0.5], [2, 0, 0.5], [2, 0, 0.5]]


def test_a_script_of_the_wrong_width_is_told() -> None:
    with pytest.raises(AssertionError, match="one row of logits"):
        FakeEngine(lambda prompt, answer: [1.0, 2.0], vocabulary_size=3).prefill([[0]])


def test_a_script_may_fail_as_an_engine_does() -> None:
    def script(prompt: object, answer: object) -> list[float]:
        raise sdk.EngineError("Out of memory.")

    model = sdk.Model(FakeEngine(script), byte_tokenizer(), name="broken")
    with pytest.raises(sdk.EngineError, match="Out of memory"):
        model.ask("a")
