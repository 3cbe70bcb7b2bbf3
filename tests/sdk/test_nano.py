"""The default model: the same greedy tokens as `transformers` on the same file, batches, streams and logprobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.sdk.sampling import log_softmax

pytestmark = pytest.mark.timeout(900)  # a busy machine

QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "Write a haiku about the sea.",
    "What is 17 + 25?",
    "Translate 'good morning' into Spanish.",
    "Name three animals that can fly.",
    "Who wrote Romeo and Juliet?",
    "Explain gravity to a child of five.",
    "def fibonacci(n):",
    "List the primary colours.",
    "What's the difference between weather and climate?",
    "Summarise in one sentence: The cat sat on the mat because the floor was cold.",
    "Fix the spelling: I has a appel.",
    "What do bees make?",
    "Give me a recipe for pancakes.",
    "¿Cuál es la capital de España?",
    "漢字は何ですか？",
    "Describe the smell of rain \U0001f327\ufe0f",
    "How many legs does a spider have?",
    "Tell me a joke about\n\n\tcomputers.",
)
RAGGED = (QUESTIONS[0], " ".join(QUESTIONS[1:5]), "Hi")


@pytest.fixture(scope="module")
def nano() -> sdk.Model:
    """In float32."""
    return sdk.load("nano", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def original(nano_file: Path) -> Any:
    """`transformers`' model of the same file, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(nano_file.parent, gguf_file=nano_file.name, dtype=torch.float32).eval()


def test_the_first_question(nano: sdk.Model) -> None:
    result = nano.ask("What is the capital of France?")
    assert (result.text, result.finish_reason, result.stop) == ("The capital of France is Paris.", "stop", 2)
    assert (result.usage.prompt_tokens, result.usage.new_tokens) == (37, 7)
    assert 0 < result.timings.first_token < result.timings.total


@pytest.mark.slow
def test_twenty_answers_are_those_of_transformers(nano: sdk.Model, original: Any) -> None:
    """Greedy answers are those whose every token is the likeliest one after the ones before: one pass shows it."""
    assert len(set(QUESTIONS)) == 20
    answers = nano.batch(QUESTIONS, max_new_tokens=24)
    for question, found in zip(QUESTIONS, answers, strict=True):
        prompt = list(nano.encode(question))
        with torch.inference_mode():
            logits = original(torch.tensor([[*prompt, *found.tokens]])).logits[0, len(prompt) - 1 :]
        expected = [*found.tokens, found.stop] if found.finish_reason == "stop" else list(found.tokens)
        assert logits.argmax(-1).tolist()[: len(expected)] == expected, question
        assert found.finish_reason == "stop" or len(found.tokens) == 24
    assert sum(found.finish_reason == "length" for found in answers) >= 10
    assert sum(found.finish_reason == "stop" for found in answers) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("question", [QUESTIONS[0], QUESTIONS[16]])
def test_generate_gives_the_same_tokens(nano: sdk.Model, original: Any, question: str) -> None:
    ids = torch.tensor([list(nano.encode(question))])
    ends = {"eos_token_id": [0, 2], "pad_token_id": 2}
    out = original.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, **ends)
    expected = [token for token in out[0, ids.shape[1] :].tolist() if token not in (0, 2)]
    assert list(nano.ask(question, max_new_tokens=24).tokens) == expected


@pytest.mark.slow
def test_logits_are_those_of_transformers(nano: sdk.Model, original: Any) -> None:
    tokens = nano.encode(QUESTIONS[11])
    with torch.inference_mode():
        expected = original(torch.tensor([tokens])).logits[0].numpy()
    found = nano.logits(tokens)
    assert found.shape == (len(tokens), 49152) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_logprobs_are_those_of_the_logits(nano: sdk.Model) -> None:
    result = nano.ask("Name three animals that can fly.", max_new_tokens=9, logprobs=3)
    prompt = nano.encode("Name three animals that can fly.")
    logs = log_softmax(nano.logits([*prompt, *result.tokens]))[len(prompt) - 1 : -1]
    assert result.logprobs is not None and len(result.logprobs) == 9
    for entry, row in zip(result.logprobs, logs, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token], abs=1e-4)
        assert [token for token, _ in entry.top] == np.argsort(-row)[:3].tolist()
        assert entry.top[0][0] == entry.token


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_ragged_batch_is_its_prompts_one_by_one(nano: sdk.Model, dtype: str) -> None:
    model = nano if dtype == "float32" else sdk.load("nano", device="cpu", dtype=dtype)
    ways: list[sdk.Options] = [
        {"max_new_tokens": 12},
        {"max_new_tokens": 5, "temperature": 0.8, "seed": 4, "top_p": 0.9},
    ]
    for options in ways:
        together = model.batch(RAGGED, **options)
        for prompt, found in zip(RAGGED, together, strict=True):
            alone = model.ask(prompt, **options)
            assert (found.tokens, found.text, found.usage) == (alone.tokens, alone.text, alone.usage), prompt


def test_logits_of_a_prompt_with_a_picture_are_those_that_generation_reads(nano: sdk.Model) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    plan = nano.encode("What is this?", sdk.Image(picture))
    found = nano.logits(plan)
    _, expected = nano.engine.prefill([plan])
    np.testing.assert_allclose(found[-1], expected[0], rtol=0, atol=2e-4)
    assert found.shape == (len(plan), 49152)
    assert np.abs(found - nano.logits(list(plan))).max() > 1  # the placeholders alone are another prompt


def test_streams_of_characters_of_several_tokens_are_whole(nano: sdk.Model) -> None:
    tokens = nano.tokenizer.encode("漢字 \U0001f327\ufe0f né", parse_special=False)
    bias = dict.fromkeys(tokens, 60.0)  # a text of rare characters, forced
    answer = nano.stream("x", logit_bias=bias, max_new_tokens=14, temperature=1.0, seed=5)
    pieces = list(answer)
    assert "".join(pieces) == answer.result.text == nano.tokenizer.decode(answer.result.tokens)
    assert len(pieces) < len(answer.result.tokens)  # some tokens had to wait for the rest of their character


def test_what_does_not_fit_is_told_with_both_numbers(nano: sdk.Model) -> None:
    with pytest.raises(sdk.ContextLengthError) as caught:
        nano.ask("What is the capital of France?", max_new_tokens=9000)
    assert (caught.value.tokens, caught.value.limit) == (9037, 8192)
    assert "9037" in str(caught.value) and "8192" in str(caught.value) and "max_new_tokens=8155" in str(caught.value)
    assert nano.ask("What is the capital of France?", max_new_tokens=2).text == "The capital"
