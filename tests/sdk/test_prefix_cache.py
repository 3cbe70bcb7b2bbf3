"""Conversations that are read from where they differ: the same answers, less work."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from sensorium import sdk
from sensorium.sdk.testing import FakeEngine, byte_tokenizer, fake_model

from ..checkpoints import byte_llama

TURNS = ["Hello there.", "And what is that?", "Grün?", "Tell me more of it, please."]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sdk.Model]:
    """One model behind both engines."""
    folder = byte_llama(tmp_path_factory.mktemp("checkpoint"))
    sdk.export(folder, folder / "bundle", quant="fp32", figures=False)
    return {"torch": sdk.load(folder, dtype="float32", device="cpu"), "onnx": sdk.load(folder / "bundle")}


def conversation(model: sdk.Model, cache: sdk.PrefixCache | None, turns: Sequence[str] = TURNS) -> list[sdk.Result]:
    messages: list[dict[str, str]] = []
    results = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        results.append(model.ask(messages, prefix_cache=cache, max_new_tokens=21))
        messages.append({"role": "assistant", "content": results[-1].text})
    return results


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_conversation_is_the_same_with_less_work(models: dict[str, sdk.Model], engine: str) -> None:
    plain, cached = conversation(models[engine], None), conversation(models[engine], sdk.PrefixCache())
    assert [result.tokens for result in cached] == [result.tokens for result in plain]
    assert all(result.usage.cached_tokens == 0 for result in (*plain, cached[0]))
    for before, result in pairwise(cached):
        # Bytes that are no text come back as other bytes; what was asked before is known at least.
        assert before.usage.prompt_tokens <= result.usage.cached_tokens < result.usage.prompt_tokens


def test_what_was_broken_off_is_known_too(models: dict[str, sdk.Model]) -> None:
    model, cache = models["torch"], sdk.PrefixCache()
    answer = model.stream("Hello there.", prefix_cache=cache, max_new_tokens=40)
    for _ in range(3):
        next(answer)
    answer.close()
    assert len(cache) == 1 and list(answer) == []
    result = model.ask("Hello there.", prefix_cache=cache, max_new_tokens=20)
    assert result.tokens == model.ask("Hello there.", max_new_tokens=20).tokens
    assert result.usage.cached_tokens == result.usage.prompt_tokens - 1  # logits need the last token


def test_two_conversations_in_turn(models: dict[str, sdk.Model]) -> None:
    model, others = models["torch"], ["Quite another beginning, and longer.", "x", "y"]
    expected = [result.tokens for result in conversation(model, None) + conversation(model, None, others)]
    for entries, kept in ((1, 1), (2, 2)):
        cache = sdk.PrefixCache(entries)
        found = conversation(model, cache) + conversation(model, cache, others)
        assert [result.tokens for result in found] == expected
        again = model.ask(TURNS[0], prefix_cache=cache, max_new_tokens=5)
        assert (again.usage.cached_tokens > 0) is False and len(cache) == kept  # the rest of it is worth more
    cache.clear()
    assert len(cache) == 0


def test_threads_share_a_cache(models: dict[str, sdk.Model]) -> None:
    model, cache = models["torch"], sdk.PrefixCache(3)
    prompts = [f"{start} and so on" for start in ("a", "bb", "ccc", "dddd", "eeeee")] * 3
    expected = [model.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda p: model.ask(p, prefix_cache=cache, max_new_tokens=9), prompts))
    assert [result.tokens for result in results] == expected
    assert sum(result.usage.cached_tokens for result in results) > 0 and len(cache) <= 3


def test_models_do_not_share_states(models: dict[str, sdk.Model]) -> None:
    cache = sdk.PrefixCache(2)
    for name in ("torch", "onnx"):
        assert models[name].ask("Hello there.", prefix_cache=cache, max_new_tokens=5).usage.cached_tokens == 0
    assert models["torch"].ask("Hello there.", prefix_cache=cache, max_new_tokens=5).usage.cached_tokens > 0


def test_an_engine_that_failed_leaves_nothing_behind() -> None:
    calls = []

    def script(prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
        calls.append(len(answer))
        if len(calls) == 3:
            raise sdk.EngineError("Out of memory.")
        return np.eye(257)[65]

    model = sdk.Model(FakeEngine(script), byte_tokenizer(), name="fake")
    cache = sdk.PrefixCache()
    with pytest.raises(sdk.EngineError):
        model.ask("x", prefix_cache=cache)
    assert len(cache) == 0
    assert model.ask("x", prefix_cache=cache, max_new_tokens=4).text == "AAAA" and len(cache) == 1


def test_an_engine_without_the_means_reads_all() -> None:
    class Plain:
        """Nothing but an `Engine`."""

        def __init__(self) -> None:
            fake = fake_model("ok").engine
            self.info, self.prefill, self.step, self.logits = fake.info, fake.prefill, fake.step, fake.logits

    model, cache = sdk.Model(Plain(), byte_tokenizer(), name="plain"), sdk.PrefixCache()
    assert [model.ask("x", prefix_cache=cache).text for _ in range(2)] == ["ok", "ok"] and len(cache) == 0


@pytest.mark.parametrize("options", [{"beams": 2}, {"best_of": 2, "temperature": 1.0}])
def test_several_answers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(sdk.OptionError, match="prefix cache"):
        fake_model("x").ask("x", prefix_cache=sdk.PrefixCache(), **options)


@pytest.mark.parametrize("entries", [0, 65, True, "2"])
def test_wrong_sizes_are_refused(entries: Any) -> None:
    with pytest.raises(sdk.OptionError, match="1 to 64"):
        sdk.PrefixCache(entries)


@pytest.mark.slow
def test_a_picture_of_the_default_model_is_read_once(nano_file: Path) -> None:
    model, cache = sdk.load("nano", dtype="float32"), sdk.PrefixCache()
    photos = [sdk.Image(Path(skimage.__file__).parent / "data" / name) for name in ("coffee.png", "chelsea.png")]

    def ask(photo: sdk.Image, *more: str) -> sdk.Result:
        first = {"role": "user", "content": [photo, "What is in this picture?"]}
        rest = [{"role": role, "content": text} for role, text in zip(("assistant", "user"), more, strict=False)]
        found = model.ask([first, *rest], prefix_cache=cache, max_new_tokens=12)
        assert found.tokens == model.ask([first, *rest], max_new_tokens=12).tokens
        return found

    first = ask(photos[0])
    second = ask(photos[0], first.text, "Is it hot?")
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    other = ask(photos[1], first.text, "Is it hot?")
    spans = model.encode([{"role": "user", "content": [photos[0], "What is in this picture?"]}]).spans
    assert other.usage.cached_tokens <= len(spans[0])  # nothing behind the other picture
