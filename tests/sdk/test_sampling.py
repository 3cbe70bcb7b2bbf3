"""Sampling against `transformers`' processors, against hand-made numbers, and the distribution of what is drawn."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensorium import sdk
from sensorium.sdk.sampling import Penalties, Sampler, largest, log_softmax, warped

Options = sdk.GenerationOptions
V = 41


def sampler(options: Options, prompt: list[int] | None = None, stops: set[int] | None = None) -> Sampler:
    return Sampler(options, Penalties(options, prompt or [], stops or set()))


def logits_of(kind: str, random: np.random.Generator) -> NDArray[np.float32]:
    """Logits [V] of one kind."""
    logits = random.normal(scale=3, size=V).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits / 2)
    if kind == "forbidden":
        logits[random.permutation(V)[:30]] = -np.inf
    if kind == "flat":
        logits[:] = 1.5
    if kind == "peaked":
        logits[13] = 60
    return logits


KINDS = ("random", "ties", "forbidden", "flat", "peaked")
SETTINGS: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 400},
    {"top_p": 0.05},
    {"top_p": 0.6},
    {"top_p": 0.999},
    {"min_p": 0.02},
    {"min_p": 0.4},
    {"min_p": 1.0},
    {"typical_p": 0.1},
    {"typical_p": 0.75},
    {"typical_p": 0.99},
    {"temperature": 0.3},
    {"temperature": 1.7, "top_k": 11, "top_p": 0.8, "min_p": 0.03, "typical_p": 0.7},
    {"temperature": 0.8, "top_k": 3, "min_p": 0.5},
]


def theirs(logits: NDArray[np.float32], setting: dict[str, Any]) -> torch.Tensor:
    """The scores [V] that `transformers` would draw from."""
    from transformers.generation import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )

    makers = {
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
        "typical_p": TypicalLogitsWarper,
    }
    scores = torch.from_numpy(logits.astype(np.float64))[None]
    for name, maker in makers.items():
        if name in setting:
            scores = maker(setting[name])(torch.tensor([[0]]), scores)
    return scores[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(f"{k}{v}" for k, v in setting.items()))
def test_what_may_be_drawn_is_what_transformers_draws_from(kind: str, setting: dict[str, Any]) -> None:
    random = np.random.default_rng(len(kind))
    for _ in range(5):
        logits = logits_of(kind, random)
        before = logits.copy()
        ours = warped(logits, Options(**({"temperature": 1.0} | setting)))
        found, expected = np.exp(log_softmax(ours)), theirs(logits, setting).softmax(-1).numpy()
        if "top_p" in setting and kind in ("ties", "flat"):
            # Which of several equally likely tokens falls off the edge is left to chance there.
            found, expected = np.sort(found), np.sort(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(found > 0, expected > 0)
        np.testing.assert_array_equal(logits, before)  # the caller's own are left alone


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])  # the nucleus has nearly all tokens, or a few
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_the_nucleus_of_a_large_vocabulary(share: float, scale: float, random_numbers: np.random.Generator) -> None:
    logits = random_numbers.normal(scale=scale, size=5003).astype(np.float32)
    ours = np.exp(log_softmax(warped(logits, Options(temperature=1.0, top_p=share))))
    np.testing.assert_allclose(ours, theirs(logits, {"top_p": share}).softmax(-1).numpy(), rtol=0, atol=1e-12)


def test_a_tiny_and_a_huge_temperature_are_no_trouble(random_numbers: np.random.Generator) -> None:
    logits = logits_of("random", random_numbers)
    cold = warped(logits, Options(temperature=5e-324))
    assert np.flatnonzero(cold > -np.inf).tolist() == [logits.argmax()]
    hot = np.exp(log_softmax(warped(logits, Options(temperature=1e300))))
    np.testing.assert_allclose(hot, 1 / V, rtol=1e-9)
    assert sampler(Options(temperature=1e-310)).choose(logits, []) == logits.argmax()


@pytest.mark.parametrize("penalty", [0.5, 1.3, 5.0])
def test_repetition_penalty_is_that_of_transformers(penalty: float, random_numbers: np.random.Generator) -> None:
    from transformers.generation import RepetitionPenaltyLogitsProcessor

    logits = logits_of("forbidden", random_numbers)
    prompt, generated = [3, 7, 7, 40, 12], [7, 5, 5]
    ids = torch.tensor([prompt + generated])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, torch.from_numpy(logits.astype(np.float64))[None])[0]
    found = Penalties(Options(repetition_penalty=penalty), prompt, ()).apply(logits, generated)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)


def test_penalties_by_hand() -> None:
    logits = np.array([2.0, -1.0, 0.5, 4.0, 0.0], dtype=np.float32)
    options = Options(presence_penalty=0.25, frequency_penalty=0.5, logit_bias={4: 1.5, 1: -2})
    found = Penalties(options, [0, 0, 3], ()).apply(logits, [2, 3, 2, 2])
    # Token 0 is in the prompt alone, which these two penalties do not count; 2 was used three times, 3 once.
    assert found.tolist() == [2.0, -3.0, 0.5 - 0.25 - 1.5, 4.0 - 0.25 - 0.5, 1.5]
    both = Options(repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=-0.5, logit_bias={0: 2})
    found = Penalties(both, [1, 0], ()).apply(logits, [3, 3])
    # Bias first, then the repetition penalty, then the other two.
    assert found.tolist() == [(2.0 + 2) / 2, -1.0 * 2, 0.5, 4.0 / 2 - 0.25 + 0.5 * 2, 0.0]


def test_without_penalties_the_logits_are_passed_on() -> None:
    logits = np.zeros(5, dtype=np.float32)
    assert Penalties(Options(), [1], {2}).apply(logits, [1]) is logits


def test_stop_tokens_are_impossible_until_there_are_enough() -> None:
    logits = np.array([1.0, 2.0, 9.0, 3.0], dtype=np.float32)
    early = sampler(Options(min_new_tokens=2), stops={2, 77})  # 77: a stop token that the model does not have
    assert [early.choose(logits, made) for made in ([], [3], [3, 3], [3, 3, 3])] == [3, 3, 2, 2]


def test_bias_forbids_and_forces() -> None:
    logits = np.array([1.0, 2.0, 9.0, 3.0], dtype=np.float32)
    assert sampler(Options(logit_bias={2: -math.inf})).choose(logits, []) == 3
    assert sampler(Options(logit_bias={0: 50})).choose(logits, []) == 0
    drawn = sampler(Options(logit_bias={2: -math.inf, 3: -math.inf}, temperature=5.0, seed=1))
    assert {drawn.choose(logits, []) for _ in range(200)} == {0, 1}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(bad: float, temperature: float) -> None:
    logits = np.array([1.0, bad, 9.0, -np.inf], dtype=np.float32)
    for options in (Options(temperature=temperature), Options(temperature=temperature, logit_bias={1: -math.inf})):
        with pytest.raises(sdk.EngineError, match="not numbers"):
            sampler(options).choose(logits, [])


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_all_forbidden_is_an_error_of_its_own(temperature: float) -> None:
    logits = np.zeros(3, dtype=np.float32)
    forbidden = Options(temperature=temperature, logit_bias=dict.fromkeys(range(3), -math.inf))
    with pytest.raises(sdk.EngineError, match="forbidden"):
        sampler(forbidden).choose(logits, [])
    with pytest.raises(sdk.EngineError, match="min_new_tokens"):
        sampler(Options(min_new_tokens=1), stops={0, 1, 2}).choose(logits, [])


@pytest.mark.parametrize("setting", [{}, {"top_k": 6}, {"temperature": 0.9}, {"top_p": 0.7}, {"typical_p": 0.6}])
def test_draws_follow_the_probabilities(setting: dict[str, Any]) -> None:
    """Pearson's chi-square against the probabilities, over a fixed seed."""
    options = Options(**({"temperature": 1.3, "seed": 29} | setting))
    logits = np.random.default_rng(5).normal(size=11).astype(np.float32)
    probabilities = theirs(logits, {"temperature": options.temperature} | setting).softmax(-1).numpy()
    chooser, draws = sampler(options), 6000
    counts = Counter(chooser.choose(logits, []) for _ in range(draws))
    possible = np.flatnonzero(probabilities)
    assert set(counts) == set(possible.tolist())
    expected = probabilities[possible] * draws
    assert expected.min() > 10  # or the test would mean nothing
    statistic = float(((np.array([counts[token] for token in possible]) - expected) ** 2 / expected).sum())
    freedom = len(possible) - 1
    assert statistic < freedom + 3 * math.sqrt(2 * freedom), (statistic, freedom)


def test_the_statistic_would_see_a_wrong_distribution() -> None:
    logits = np.random.default_rng(5).normal(size=11).astype(np.float32)
    chooser, draws = sampler(Options(temperature=1.15, seed=29)), 6000
    counts = Counter(chooser.choose(logits, []) for _ in range(draws))
    expected = theirs(logits, {"temperature": 1.3}).softmax(-1).numpy() * draws
    statistic = sum((counts[token] - expected[token]) ** 2 / expected[token] for token in range(11))
    assert statistic > 10 + 3 * math.sqrt(20)


def test_seeds_give_the_same_draws_and_others_give_others() -> None:
    logits = np.zeros(V, dtype=np.float32)

    def draws(seed: int | None, stream: int = 0) -> list[int]:
        options = Options(temperature=1.0, seed=seed)
        one = Sampler(options, Penalties(options, [], ()), stream)
        return [one.choose(logits, []) for _ in range(30)]

    assert draws(4) == draws(4)
    assert draws(4, stream=1) == draws(4, stream=1)
    different = [draws(4), draws(4, stream=1), draws(5), draws(None), draws(None), draws(2**90)]
    assert len({tuple(found) for found in different}) == len(different)


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = np.array([0.0, -1e9, 0.0, -np.inf, -800.0], dtype=np.float32)
    one = sampler(Options(temperature=1.0, seed=3))
    assert {one.choose(logits, []) for _ in range(500)} == {0, 2}


def test_log_softmax_is_torchs(random_numbers: np.random.Generator) -> None:
    logits = random_numbers.normal(scale=30, size=(3, 5, V))
    logits[0, 2, :9] = -np.inf
    expected = torch.from_numpy(logits).log_softmax(-1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 4, 7, 50])
def test_the_largest_come_in_order(count: int) -> None:
    values = np.array([1.0, 3.0, -np.inf, 3.0, 2.0, 3.0, 0.0])
    assert largest(values, count).tolist() == [1, 3, 5, 4, 0, 6, 2][:count]
