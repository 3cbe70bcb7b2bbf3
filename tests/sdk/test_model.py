"""The model's face: what can be asked, streamed, batched, counted, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.sdk.testing import FakeEngine, byte_tokenizer, fake_model


def asked(model: sdk.Model, number: int = -1) -> str:
    """The prompt that the model was given."""
    assert isinstance(model.engine, FakeEngine)
    return model.tokenizer.decode(model.engine.prompts[number])


def test_texts_and_files_in_order_are_one_message(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("milk")
    model = fake_model("yes")
    assert model.ask("first", path, sdk.Text("last")).text == "yes"
    assert asked(model) == "<user>first\n\nnotes.txt:\nmilk\n\nlast<assistant>"


def test_a_conversation_is_taken_as_it_is() -> None:
    model = fake_model("yes")
    model.ask(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    )
    assert asked(model) == "<user>a<assistant>b<user>c<assistant>"
    model.ask("q", system="Be brief.")
    assert asked(model) == "<system>Be brief.<user>q<assistant>"


def test_raw_text_is_continued_without_a_template() -> None:
    model = fake_model("yes")
    model.ask("Once upon", raw=True)
    assert asked(model) == "Once upon"
    with pytest.raises(sdk.InvalidInputError, match="template"):
        model.ask("Once upon", raw=True, system="x")
    plain = fake_model("yes", chat_template=None)
    plain.ask("Once upon")
    assert asked(plain) == "Once upon"
    with pytest.raises(sdk.InvalidInputError, match="template"):
        plain.ask("Once upon", system="x")


def test_control_tokens_in_a_question_are_plain_text() -> None:
    model = fake_model("yes")
    assert 256 not in model.encode("a <end> b")
    assert 256 in model.encode("a <end> b", raw=True)


@pytest.mark.parametrize("parts", [(), ("",), (" \n ",), ([],), (5,), (None,), ("a", ["b"]), ({"role": "user"},)])
@pytest.mark.parametrize("raw", [False, True])
def test_prompts_of_nothing_are_refused_before_any_work(parts: Any, raw: bool) -> None:
    model = fake_model("yes")
    for call in (model.ask, model.stream, model.encode):
        with pytest.raises(sdk.InvalidInputError):
            call(*parts, raw=raw)
    assert model.engine.prompts == []  # type: ignore[attr-defined]


def test_a_stream_is_the_answer_in_pieces() -> None:
    model = fake_model("né \U0001f600!")
    answer = model.stream("hi")
    assert next(answer) == "n"
    assert list(answer) == ["é", " ", "\U0001f600", "!"]
    result = answer.result
    assert result.text == "né \U0001f600!" == model.ask("hi").text
    assert answer.result is result
    assert list(answer) == []


def test_the_result_of_a_stream_can_be_asked_for_at_once() -> None:
    answer = fake_model("abc").stream("hi")
    assert next(answer) == "a"
    assert (answer.result.text, list(answer)) == ("abc", [])


@pytest.mark.parametrize("options", [{"best_of": 2, "temperature": 1.0}, {"beams": 2}])
def test_what_is_known_at_the_end_alone_cannot_be_streamed(options: sdk.Options) -> None:
    with pytest.raises(sdk.OptionError, match=next(iter(options))):
        fake_model("abc").stream("hi", **options)


def test_a_batch_answers_each(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_text("what?")
    model = fake_model("one", "two", "three")
    found = model.batch(["a", path, [{"role": "user", "content": "c"}]], max_new_tokens=4)
    assert [result.text for result in found] == ["one", "two", "thre"]
    assert [asked(model, number) for number in (0, 1, 2)] == [
        "<user>a<assistant>",
        "<user>q.txt:\nwhat?<assistant>",
        "<user>c<assistant>",
    ]
    assert model.batch([]) == []
    assert [result.text for result in model.batch(iter(["x", "y"]), beams=2)] == ["one", "two"]  # type: ignore[arg-type]


@pytest.mark.parametrize("prompts", ["one text", sdk.Text("one"), Path("file"), 5, None])
def test_a_batch_of_one_prompt_is_a_mistake(prompts: Any) -> None:
    with pytest.raises(sdk.InvalidInputError, match="list of prompts"):
        fake_model("x").batch(prompts)


@pytest.mark.parametrize("options", [{}, {"beams": 2}])
def test_a_wrong_prompt_in_a_batch_is_told_before_any_is_answered(options: sdk.Options) -> None:
    model = fake_model("x", context_length=40)
    for wrong in ("", "y" * 50):
        with pytest.raises(sdk.InvalidInputError):
            model.batch(["right", wrong], **options)
    assert model.engine.prompts == []  # type: ignore[attr-defined]


def test_wrong_options_come_before_wrong_prompts() -> None:
    model = fake_model("x")
    for call in (model.ask, model.stream, lambda *parts, **options: model.batch(list(parts), **options)):
        with pytest.raises(sdk.OptionError, match="temprature"):
            call("", temprature=1)  # type: ignore[call-arg]
        with pytest.raises(sdk.OptionError, match="top_k"):
            call("", top_k=True)


def test_the_model_s_defaults_hold_and_give_way() -> None:
    model = fake_model("abcdef", defaults={"max_new_tokens": 3, "repetition_penalty": 1.0})
    assert model.ask("q").text == "abc"
    assert model.ask("q", max_new_tokens=5).text == "abcde"
    short = fake_model("abcdef", context_length=20, defaults={"max_new_tokens": 5000})
    assert short.ask("q").text == "ab"  # the prompt has 18 tokens: there is room for two


def test_tokens_count_and_come_back() -> None:
    model = fake_model("x")
    assert len(model.encode("abc")) == len("<user>abc<assistant>")
    assert model.tokenizer.decode(model.tokenizer.encode("né")) == "né"


def test_logits_of_lists_arrays_and_tensors() -> None:
    model = sdk.Model(FakeEngine(lambda p, a: [len(p), p[-1], -1.0], vocabulary_size=3), byte_tokenizer(), name="n")
    expected = [[1, 2, -1], [2, 0, -1], [3, 1, -1]]
    for tokens in ([2, 0, 1], (2, 0, 1), np.array([2, 0, 1], dtype=np.uint8), torch.tensor([2, 0, 1])):
        found = model.logits(tokens)  # type: ignore[arg-type]
        assert found.dtype == np.float32 and found.tolist() == expected


@pytest.mark.parametrize(
    "tokens", [[], [3], [-1], [0.5], "ab", 7, None, [[0, 1]], np.ones((2, 2), int), torch.ones(2), [math.nan], [None]]
)
def test_what_are_no_tokens_has_no_logits(tokens: Any) -> None:
    model = sdk.Model(FakeEngine(lambda p, a: [0.0] * 3, vocabulary_size=3), byte_tokenizer(), name="n")
    with pytest.raises(sdk.InvalidInputError):
        model.logits(tokens)


def test_logits_of_more_than_the_context_are_refused() -> None:
    with pytest.raises(sdk.ContextLengthError, match="11 tokens") as caught:
        fake_model("x", context_length=10).logits([1] * 11)
    assert (caught.value.tokens, caught.value.limit) == (11, 10)


def test_an_engine_without_weights_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(sdk.UnsupportedInputError, match="cannot write"):
        fake_model("x").save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_names_itself() -> None:
    assert repr(fake_model("x")) == "Model('fake', fake)"
