"""Choosing the next token from logits, in numpy, for any engine.

The order of steps and their formulas are those of `transformers`: logit bias, repetition, presence and frequency
penalties, minimum length; then temperature, top-k, top-p, min-p and typical. Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import EngineError
from .options import GenerationOptions

__all__ = ["Penalties", "Sampler", "check_best", "largest", "log_softmax", "warped"]

Floats = NDArray[np.floating]

_TOP_P_FIRST = 1000  # tokens


class Penalties:
    """What is done to the logits of one answer before a token is chosen: bias, penalties and the minimum length.

    Args:
        options: of the request.
        prompt: token ids of the prompt, for the repetition penalty.
        stop_ids: tokens that end the answer, impossible before `min_new_tokens`.
    """

    def __init__(self, options: GenerationOptions, prompt: Sequence[int], stop_ids: Collection[int]) -> None:
        self._options = options
        self._prompt = np.unique(np.asarray(prompt, dtype=np.int64))
        self._stop_ids = np.array(sorted(stop_ids), dtype=np.int64)
        self._biased = np.array(list(options.logit_bias), dtype=np.int64)
        self._biases = np.array(list(options.logit_bias.values()), dtype=np.float64)
        self._counts = bool(options.presence_penalty or options.frequency_penalty)

    def apply(self, logits: Floats, generated: Sequence[int]) -> Floats:
        """Logits [V] after `generated`, as they are chosen from; the given array is left as it is."""
        options = self._options
        early, factor = len(generated) < options.min_new_tokens, options.repetition_penalty
        if not (len(self._biased) or self._counts or factor != 1 or early):
            return logits
        scores = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf is not a number, which is refused where a token is chosen
            scores[self._biased] += self._biases
        if factor != 1 or self._counts:
            used, counts = np.unique(np.asarray(generated, dtype=np.int64), return_counts=True)
            seen = np.union1d(self._prompt, used)
            scores[seen] = np.where(scores[seen] < 0, scores[seen] * factor, scores[seen] / factor)
            scores[used] -= options.presence_penalty + options.frequency_penalty * counts
        if early:
            scores[self._stop_ids[self._stop_ids < len(scores)]] = -np.inf
        return scores


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        options: of the request.
        penalties: of the answer.
        stream: number of this answer among those with the same seed (best-of-n).
    """

    def __init__(self, options: GenerationOptions, penalties: Penalties, stream: int = 0) -> None:
        self._options, self._penalties = options, penalties
        self._random = np.random.default_rng(None if options.seed is None else [options.seed, stream])

    def choose(self, logits: NDArray[np.float32], generated: Sequence[int]) -> int:
        """The next token for logits [V] after `generated`.

        Raises:
            EngineError: the logits are not numbers, or every token is forbidden.
        """
        scores = self._penalties.apply(logits, generated)
        best = int(scores.argmax())
        check_best(scores[best])
        if self._options.greedy:
            return best
        scores = warped(scores, self._options)
        kept = np.flatnonzero(scores > -np.inf)
        bounds = np.exp(scores[kept] - scores[kept].max()).cumsum()
        place = int(np.searchsorted(bounds, self._random.random() * bounds[-1], side="right"))
        return int(kept[min(place, len(kept) - 1)])


def check_best(score: float) -> None:
    """Refuses scores of which the best is no finite number.

    Raises:
        EngineError: the logits are not numbers, or every token is forbidden.
    """
    if np.isneginf(score):
        raise EngineError(
            "Every token is forbidden.",
            given="no token with a finite score",
            hint="loosen logit_bias, or lower min_new_tokens",
        )
    if not np.isfinite(score):
        raise EngineError(
            "The model's logits are not numbers.",
            given=f"largest logit {score}",
            hint="load the model with dtype='float32'; if that does not help, its weights are damaged",
        )


def warped(logits: Floats, options: GenerationOptions) -> NDArray[np.float64]:
    """Scores [V] less their maximum, after temperature, with -inf for every token that may not be drawn."""
    scores = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):  # at a tiny temperature all but the best become -inf
        scores /= options.temperature
    if options.top_k is not None and options.top_k < len(scores):
        scores[scores < np.partition(scores, -options.top_k)[-options.top_k]] = -np.inf
    if options.top_p is not None and options.top_p < 1:
        scores = _top_p(scores, options.top_p)
    if options.min_p:
        scores[scores < scores.max() + np.log(options.min_p)] = -np.inf
    if options.typical_p is not None and options.typical_p < 1:
        scores = _typical(scores, options.typical_p)
    return scores


def _top_p(scores: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Keeps the likeliest tokens until they have `share`; of equally likely ones the first."""
    probabilities = np.exp(log_softmax(scores))
    for count in (_TOP_P_FIRST, len(scores)):  # a few are nearly always enough, and cheaper to sort
        order = largest(probabilities, count)
        before = probabilities[order].cumsum() - probabilities[order]
        kept = order[before < share]
        if len(kept) < len(order):
            break
    cut = np.full_like(scores, -np.inf)
    cut[kept] = scores[kept]
    return cut


def _typical(scores: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Keeps the tokens whose surprise is closest to the entropy until they have `share`, and those as close."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    likely = probabilities > 0
    entropy = -np.sum(probabilities[likely] * logs[likely])
    distances = np.abs(-logs - entropy)
    order = distances.argsort()
    last = int((probabilities[order].cumsum() < share).sum())
    scores[distances > distances[order[min(last, len(order) - 1)]]] = -np.inf
    return scores


def largest(values: Floats, count: int) -> NDArray[np.int64]:
    """Places of the `count` largest of values [N], or of all, the largest first; equal ones in the order of places."""
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    found = np.arange(len(values))
    if count < len(values):
        found = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return found[np.argsort(-values[found], kind="stable")][:count]


def log_softmax(scores: Floats) -> NDArray[np.float64]:
    """Log-probabilities [..., V] in float64; NaN where the best score is infinite."""
    with np.errstate(invalid="ignore"):
        shifted = scores.astype(np.float64) - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
