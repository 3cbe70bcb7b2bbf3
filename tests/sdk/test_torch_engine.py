"""The torch engine: rows, states, precision, changing rotary frequencies, and running out of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.fusion.cache_options import CacheOptions
from sensorium.fusion.config import DecoderConfig, Rope, RopeScaling
from sensorium.fusion.decoder import Decoder
from sensorium.sdk.generation import Generation
from sensorium.sdk.torch_engine import TorchEngine, memory_guard

V = 37
PLAIN = DecoderConfig(
    family="sensorium",
    vocabulary_size=V,
    hidden_size=18,
    layers=3,
    heads=6,
    kv_heads=2,
    head_size=10,
    mlp_size=22,
    context_length=1024,
    rope=Rope(dimensions=8),
    tied_head=True,
)
CONFIGS = {
    "full": PLAIN,
    "windows": replace(PLAIN, layer_attention=("sliding", "full", "chunked"), window=7),
    # Past 16 positions the frequencies change, and what was cached before is stale.
    "longrope": replace(
        PLAIN,
        rope=Rope(
            dimensions=8,
            scaling=RopeScaling(
                kind="longrope",
                factor=8.0,
                original_length=16,
                short_factors=(1.0, 1.2, 1.5, 2.0),
                long_factors=(1.0, 2.5, 5.0, 11.0),
            ),
        ),
    ),
}
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8, 9], [7], list(range(30, 5, -1)), [2, 7, 1, 8, 2, 8]]


def engine(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> TorchEngine:
    torch.manual_seed(5)
    decoder = Decoder(CONFIGS[name]).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return TorchEngine(decoder.to(dtype), **options)


def answers(runner: TorchEngine, tokenizer: Any, prompts: list[list[int]], **options: Any) -> list[tuple[int, ...]]:
    chosen = sdk.GenerationOptions(**({"max_new_tokens": 17} | options))
    return [result.tokens for result in Generation(runner, tokenizer, prompts, chosen).results()]


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_follows_the_logits_of_the_whole_text(name: str, letters: Any) -> None:
    runner = engine(name, torch.float64)
    for prompt, tokens in zip(PROMPTS, answers(runner, letters(), PROMPTS), strict=True):
        text = list(prompt)
        for token in tokens:
            logits = runner.logits(text)
            assert logits.dtype == np.float32 and logits.shape == (len(text), V)
            assert token == logits[-1].argmax(), (name, len(text))
            text.append(token)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "seed": 3}, {"stop_tokens": (5, 11, 20)}], ids=str)
def test_a_batch_equals_its_prompts_one_by_one(
    name: str, dtype: torch.dtype, options: dict[str, Any], letters: Any
) -> None:
    runner = engine(name, dtype)
    together = answers(runner, letters(), PROMPTS, **options)
    assert together == [answers(runner, letters(), [prompt], **options)[0] for prompt in PROMPTS]
    assert len(set(together)) == len(PROMPTS)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("together", [True, False])
def test_rows_can_be_chosen_and_doubled(name: str, together: bool) -> None:
    runner = engine(name, torch.float64, rows_together=together)
    state, first = runner.prefill(PROMPTS)
    assert state.lengths == tuple(map(len, PROMPTS))
    np.testing.assert_allclose(first, [runner.logits(prompt)[-1] for prompt in PROMPTS], atol=1e-5)
    rows = [3, 0, 0, 4]
    state.select(rows)
    assert state.lengths == tuple(len(PROMPTS[row]) for row in rows)
    for tokens in ([1, 2, 3, 4], [5, 6, 7, 8]):  # the doubled row goes two ways
        logits = runner.step(state, tokens)
    texts = [[*PROMPTS[row], one, other] for row, one, other in zip(rows, [1, 2, 3, 4], [5, 6, 7, 8], strict=True)]
    np.testing.assert_allclose(logits, [runner.logits(text)[-1] for text in texts], atol=1e-5)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", ["full", "longrope"])
def test_rows_can_be_cut_back(name: str, together: bool) -> None:
    runner = engine(name, torch.float64, rows_together=together)
    state, _ = runner.prefill(PROMPTS[:2] + PROMPTS[3:4])
    runner.step(state, [1, 2, 3])
    state.truncate([5, 3, 14])
    assert state.lengths == (5, 3, 14)
    texts = [[*PROMPTS[0][:5], 4], [*PROMPTS[1], 2, 4], [*PROMPTS[3][:14], 4]]
    np.testing.assert_allclose(runner.step(state, [4, 4, 4]), [runner.logits(text)[-1] for text in texts], atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_long_prompts_are_read_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = engine(name, torch.float64)
    whole, _ = runner.prefill([PROMPTS[3]])
    expected = runner.step(whole, [4])
    monkeypatch.setattr("sensorium.sdk.torch_engine._PREFILL_CHUNK", 4)
    state, logits = runner.prefill([PROMPTS[3]])
    np.testing.assert_allclose(logits[0], runner.logits(PROMPTS[3])[-1], atol=1e-5)
    np.testing.assert_allclose(runner.step(state, [4]), expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["exact", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("together", [True, False])
def test_a_prompt_is_read_from_where_it_differs(name: str, together: bool, precision: Any) -> None:
    runner = engine(name, torch.float64, rows_together=together, cache=CacheOptions(precision=precision))
    text = [*PROMPTS[3], *PROMPTS[0]]
    for kept, prompt in ((10, [*text[:10], 3]), (25, [*PROMPTS[3], 4, 5, 6]), (11, text[:11]), (26, [*PROMPTS[3], 7])):
        state, _ = runner.prefill([text[:25]])
        runner.step(state, [7])
        state, logits, reused = runner.resume(state, prompt, kept)
        assert reused in (0, min(kept, len(prompt) - 1)) and state.lengths == (len(prompt),)
        assert reused or name != "full" or precision != "exact"
        expected, first = runner.prefill([prompt])
        np.testing.assert_allclose(logits, first, atol=1e-5)
        np.testing.assert_allclose(runner.step(state, [4]), runner.step(expected, [4]), atol=1e-5)


def test_frequencies_that_changed_and_windows_that_wrapped_are_read_anew() -> None:
    for name, prompt, kept, reused in (
        ("longrope", PROMPTS[3], 11, 0),  # 11 of 11 positions, but the longer text turns all keys otherwise
        ("longrope", [*PROMPTS[0], 3], 11, 11),
        ("windows", [*PROMPTS[0], 3], 11, 11),
        ("windows", [*PROMPTS[0][:10], 3], 10, 0),
    ):
        runner = engine(name, torch.float64)
        state, _ = runner.prefill([prompt[:kept] if reused or name == "longrope" else PROMPTS[0]])
        assert runner.resume(state, prompt, kept)[2] == reused, name


def test_an_engine_says_what_it_is() -> None:
    info = engine("full", torch.bfloat16).info
    assert (info.vocabulary_size, info.context_length, info.name) == (V, 1024, "torch (cpu, bfloat16)")
    assert isinstance(engine("full"), sdk.Engine)


FAILURES: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    lambda: RuntimeError("MPS backend out of memory"),
    MemoryError,
]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("at_step", [False, True])
def test_out_of_memory_ends_one_request_only(
    failure: Callable[[], Exception], at_step: bool, letters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = engine("full")
    expected = answers(runner, letters(), PROMPTS)
    real = runner.decoder.forward

    def failing(tokens: torch.Tensor, **options: Any) -> torch.Tensor:
        if (tokens.shape[0] > 1) == at_step:
            raise failure()
        return real(tokens, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runner.decoder, "forward", failing)
        with pytest.raises(sdk.EngineError, match="Out of memory") as caught:
            answers(runner, letters(), PROMPTS)
        assert ("5 rows of up to 26 tokens" if at_step else "5 prompts of up to 25 tokens") in str(caught.value)
        assert caught.value.hint
        if not at_step:
            with pytest.raises(sdk.EngineError, match="all 2 tokens"):
                runner.logits([1, 2])
    assert answers(runner, letters(), PROMPTS) == expected


def test_real_exhaustion_is_recognised() -> None:
    with pytest.raises(sdk.EngineError, match="Out of memory"), memory_guard("a great deal"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_out_of_memory_lets_go_of_what_was_computed() -> None:
    def work() -> None:
        held = torch.zeros(3)
        raise torch.OutOfMemoryError(f"of {held.numel()}")

    with pytest.raises(sdk.EngineError) as caught, memory_guard("work"):
        work()
    assert caught.value.__cause__ is not None and caught.value.__cause__.__traceback__ is None


def test_other_failures_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_guard("work"):
        raise RuntimeError("shapes cannot be multiplied")


def test_a_cache_in_fewer_bits_serves_rows_beams_and_long_prompts(letters: Any) -> None:
    """Prompts of several groups of positions: near the exact cache's logits, whatever they decode together with."""
    prompts = [[(number * number + row) % V for number in range(length)] for row, length in enumerate((700, 40, 300))]
    exact, small = engine("full"), engine("full", cache=CacheOptions(precision="int8"))
    for options in ({}, {"beams": 3}):
        alone = [answers(small, letters(), [prompt], **options)[0] for prompt in prompts]
        assert answers(small, letters(), prompts, **options) == alone
    state, _ = small.prefill(prompts)
    reference, _ = exact.prefill(prompts)
    found, expected = small.step(state, [5, 6, 7]), exact.step(reference, [5, 6, 7])
    assert 0 < np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    assert sum(cache.nbytes() for cache in state.caches) < 0.6 * sum(cache.nbytes() for cache in reference.caches)
