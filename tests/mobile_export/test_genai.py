"""onnxruntime-genai opens our bundles as they are, and generates the same tokens."""

from __future__ import annotations

from pathlib import Path

import onnxruntime_genai as genai
import pytest
from sensorium import sdk
from sensorium.mobile_export.proof import greedy, reader
from sensorium.mobile_export.runtime import Bundle
from sensorium.sdk.ready import ready_bundle

QUESTIONS = (
    "What is the capital of France?",
    "Count from 1 to 10.",
    "Write a short poem about the sea.",
    "Name three animals.",
    "Why is the sky blue?",
    "Translate 'good morning' into French.",
    "What is 2 + 2?",
    "List the days of the week.",
    "Who was Marie Curie?",
    "Tell me a joke about cats, please, and explain it.",
)
COUNT = 24


def generated(model: genai.Model, prompt: list[int]) -> list[int]:
    """The tokens that onnxruntime-genai takes after a prompt, each the likeliest."""
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=len(prompt) + COUNT, do_sample=False)
    generator = genai.Generator(model, options)
    generator.append_tokens(prompt)
    found: list[int] = []
    while not generator.is_done() and len(found) < COUNT:
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    return found


def assert_same(folder: Path) -> None:
    bundle, model = Bundle(folder), genai.Model(str(folder))
    tokenizer = bundle.tokenizer()
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        prompt = list(tokenizer.encode_chat(messages) if tokenizer.has_chat_template else tokenizer.encode(question))
        ours = greedy(reader(bundle.decoder()), prompt, COUNT, tokenizer.stop_ids)
        theirs = generated(model, prompt)
        assert theirs[: len(ours)] == ours  # they give out the end's token, too
        assert len(theirs) <= len(ours) + 1 and set(theirs[len(ours) :]) <= tokenizer.stop_ids


@pytest.mark.parametrize("quant", ["fp32", "int8", "int4", "int4-fast", "int4-fp32"])
def test_a_small_model_generates_the_same(quant: str, checkpoint: Path, tmp_path: Path) -> None:
    sdk.export(checkpoint, tmp_path / "out", quant=quant)
    assert_same(tmp_path / "out")


def test_a_bundle_with_mixed_blocks_generates_the_same(bundle: Path) -> None:
    assert_same(bundle)


@pytest.mark.slow
def test_the_default_model_generates_the_same() -> None:
    """In the bundle that it runs as: ours and theirs are the checkpoint's tokens (tests/sdk/test_ready.py)."""
    folder = ready_bundle("nano")
    assert_same(folder)
    theirs = genai.Tokenizer(genai.Model(str(folder))).encode(QUESTIONS[0])
    assert list(theirs) == list(sdk.load("nano").tokenizer.encode(QUESTIONS[0]))
