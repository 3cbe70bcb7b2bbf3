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

__all__ = ["Sampler", "log_softmax", "penalised", "warped"]

Floats = NDArray[np.floating]


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        options: of the request.
        prompt: token ids of the prompt, for the repetition penalty.
        stop_ids: tokens that end the answer, impossible before `min_new_tokens`.
        stream: number of this answer among those with the same seed (best-of-n).
    """

    def __init__(
        self, options: GenerationOptions, prompt: Sequence[int], stop_ids: Collection[int], stream: int = 0
    ) -> None:
        self.options = options
        self._prompt = np.unique(np.asarray(prompt, dtype=np.int64))
        self._stop_ids = sorted(stop_ids)
        self._random = np.random.default_rng(None if options.seed is None else [options.seed, stream])

    def choose(self, logits: NDArray[np.float32], generated: Sequence[int]) -> int:
        """The next token for logits [V] after `generated`.

        Raises:
            EngineError: the logits are not numbers, or every token is forbidden.
        """
        scores = penalised(logits, self.options, self._prompt, generated, self._stop_ids)
        best = int(scores.argmax())
        if not np.isfinite(scores[best]):
            raise EngineError(
                "No token can be chosen: the logits hold no finite number at their best.",
                given=f"largest logit {scores[best]}",
                hint="load the model in float32, or loosen logit_bias",
            )
        if self.options.greedy:
            return best
        scores = warped(scores, self.options)
        kept = np.flatnonzero(scores > -np.inf)
        weights = np.exp(scores[kept] - scores[kept].max())
        bounds = weights.cumsum()
        place = int(np.searchsorted(bounds, self._random.random() * bounds[-1], side="right"))
        return int(kept[min(place, len(kept) - 1)])


def penalised(
    logits: NDArray[np.float32],
    options: GenerationOptions,
    prompt: NDArray[np.int64],
    generated: Sequence[int],
    stop_ids: Sequence[int] = (),
) -> Floats:
    """Logits [V] with bias, penalties and the minimum length applied; `prompt` holds its distinct tokens."""
    early = len(generated) < options.min_new_tokens
    penalties = options.repetition_penalty != 1 or options.presence_penalty or options.frequency_penalty
    if not (options.logit_bias or penalties or early):
        return logits
    scores = logits.astype(np.float64)
    for token, bias in options.logit_bias.items():
        if token < len(scores):
            scores[token] += bias
    if penalties:
        used, counts = np.unique(np.asarray(generated, dtype=np.int64), return_counts=True)
        seen = np.union1d(prompt, used)
        factor = options.repetition_penalty
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * factor, scores[seen] / factor)
        scores[used] -= options.presence_penalty + options.frequency_penalty * counts
    if early:
        scores[list(stop_ids)] = -np.inf
    return scores


def warped(scores: Floats, options: GenerationOptions) -> NDArray[np.float64]:
    """Scores [V] after temperature, with -inf for every token that may not be drawn."""
    scores = scores.astype(np.float64) / options.temperature
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
    """Removes the least likely tokens that together have at most 1 - share."""
    order = scores.argsort(kind="stable")
    below = np.exp(log_softmax(scores)[order]).cumsum() <= 1 - share
    below[-1] = False
    scores[order[below]] = -np.inf
    return scores


def _typical(scores: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Keeps the tokens whose surprise is closest to the entropy until they have `share`."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    entropy = -np.sum(np.where(probabilities > 0, probabilities * logs, 0.0))
    with np.errstate(invalid="ignore"):
        order = np.abs(-logs - entropy).argsort(kind="stable")
    last = int((probabilities[order].cumsum() < share).sum())
    scores[order[min(last, len(order) - 1) + 1 :]] = -np.inf
    return scores


def log_softmax(scores: Floats) -> NDArray[np.float64]:
    """Log-probabilities [..., V] in float64."""
    shifted = scores.astype(np.float64) - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
