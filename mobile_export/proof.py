"""How a bundle proves itself: golden answers that travel with it, and figures against its source on a text.

Legend: T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError
from ..encoders.storage import read_json, shortened
from .decoder_runner import DecoderRunner

__all__ = [
    "ANSWER",
    "GOLDENS",
    "Golden",
    "GoldenResult",
    "adapter_goldens",
    "check_goldens",
    "figures",
    "greedy",
    "make_golden",
    "read_golden",
    "reader",
    "run_golden",
    "write_goldens",
]

#: Where goldens lie in a bundle.
GOLDENS = "golden/text.json"
#: The most tokens of a golden's answer.
ANSWER = 16
_SHOWN = 8  # likeliest tokens whose logits are kept
_MOST = 4096  # tokens of a golden

#: The next token's logits [V] after new tokens.
Reader = Callable[[Sequence[int]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Golden:
    """An input and what comes of it.

    Attributes:
        name: for people.
        prompt: tokens.
        answer: the greedy tokens that follow.
        top: likeliest tokens after the prompt.
        logits: of those.
        tolerance: by which a logit may differ on another device.
    """

    name: str
    prompt: list[int]
    answer: list[int]
    top: list[int]
    logits: list[float]
    tolerance: float


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How a golden came out here.

    Attributes:
        name: of the golden.
        difference: the largest of its logits, or of a vector's numbers.
        tolerance: that it may have.
        same_tokens: how many of the answer's tokens are the same, up to the first that is not.
        tokens: in the answer; none where a vector is expected.
    """

    name: str
    difference: float
    tolerance: float
    same_tokens: int
    tokens: int

    @property
    def passed(self) -> bool:
        """The logits are within tolerance. Tokens that are nearly as likely as each other may change places."""
        return self.difference <= self.tolerance


def greedy(read: Reader, prompt: Sequence[int], count: int, stops: frozenset[int] = frozenset()) -> list[int]:
    """The likeliest tokens after a prompt, up to `count` or a stop."""
    found: list[int] = []
    logits = read(prompt)
    while len(found) < count and (token := int(logits.argmax())) not in stops:
        found.append(token)
        if len(found) < count:
            logits = read([token])
    return found


def reader(runner: DecoderRunner) -> Reader:
    """Reads with an exported decoder, from nothing."""
    state = runner.new_state()
    return lambda tokens: runner.read(state, np.array([list(tokens)], np.int64))[0, -1]


def make_golden(
    fresh: Callable[[], Reader], name: str, prompt: Sequence[int], stops: frozenset[int], *, share: float
) -> Golden:
    """What a bundle answers where it is made.

    Args:
        fresh: gives what reads from nothing.
        name, prompt: of the golden.
        stops: tokens that end an answer.
        share: of the logits' standard deviation by which one may differ on another device.
    """
    logits = fresh()(prompt)
    top = np.argsort(-logits)[:_SHOWN]
    answer = greedy(fresh(), prompt, ANSWER, stops)
    values = [round(float(logit), 6) for logit in logits[top]]
    tolerance = round(share * float(logits.std()), 6)
    return Golden(name, list(prompt), answer, [int(token) for token in top], values, tolerance)


def adapter_goldens(name: str) -> str:
    """Where the goldens of an adapter beside a bundle lie."""
    return f"golden/adapter-{name}.json"


def write_goldens(directory: Path, goldens: Sequence[Golden], file: str = GOLDENS) -> None:
    """Writes them where a bundle has them."""
    path = directory / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"goldens": [asdict(golden) for golden in goldens]}) + "\n", encoding="utf-8")


def check_goldens(directory: Path, runner: DecoderRunner, file: str = GOLDENS) -> list[GoldenResult]:
    """Runs a bundle's goldens of text on this device, or those of another file.

    Raises:
        CheckpointError: the bundle has none that can be read.
    """
    goldens = _read(directory / file, runner.shape.vocabulary_size)
    return [run_golden(golden, lambda: reader(runner), golden.prompt) for golden in goldens]


def run_golden(golden: Golden, fresh: Callable[[], Reader], prompt: Sequence[int]) -> GoldenResult:
    """How a golden comes out here.

    Args:
        golden: what is expected.
        fresh: gives what reads from nothing.
        prompt: as `fresh` reads it.
    """
    logits = fresh()(prompt)
    difference = float(np.abs(logits[golden.top] - np.array(golden.logits, np.float32)).max())
    answer = greedy(fresh(), prompt, len(golden.answer))
    same = [a == b for a, b in zip(answer, golden.answer, strict=True)]
    return GoldenResult(golden.name, difference, golden.tolerance, [*same, False].index(False), len(same))


def _read(path: Path, vocabulary: int) -> list[Golden]:
    found = read_json(path).get("goldens")
    if not isinstance(found, list) or not found:
        raise CheckpointError("The bundle has no goldens.", given=shortened(found))
    return [read_golden(entry, vocabulary) for entry in found]


def read_golden(entry: object, vocabulary: int, known: int | None = None) -> Golden:
    """A golden from its JSON, checked.

    Args:
        entry: of the JSON.
        vocabulary: of the decoder.
        known: tokens that a prompt can have; as many if not given.

    Raises:
        CheckpointError: it is none.
    """
    names = set(Golden.__dataclass_fields__)
    if isinstance(entry, dict) and entry.keys() == names:
        tokens = [token for name in ("answer", "top") for token in _list(entry[name])]
        prompt = _list(entry["prompt"])
        numbers = [*_list(entry["logits"]), entry["tolerance"]]
        if (
            entry["prompt"]
            and len(_list(entry["top"])) == len(_list(entry["logits"])) > 0
            and all(type(token) is int and 0 <= token < vocabulary for token in tokens)
            and all(type(token) is int and 0 <= token < (known or vocabulary) for token in prompt)
            and all(type(number) in (int, float) and np.isfinite(number) for number in numbers)
        ):
            return Golden(**entry)
    raise CheckpointError("A golden of this bundle cannot be read.", given=shortened(entry))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) and len(value) <= _MOST else [None]


def figures(exact: NDArray[np.float32], found: NDArray[np.float32], tokens: Sequence[int]) -> dict[str, float]:
    """How logits [T, V] of a text compare with those of its source.

    Args:
        exact: of the source, in float32.
        found: of the export.
        tokens: of the text, T.

    Returns:
        ``perplexity``, ``perplexity_source``, ``kl`` (mean, in nats) and ``agreement`` (share of positions whose
        likeliest token is the same).
    """
    exact_logs, found_logs = _log_softmax(exact), _log_softmax(found)
    after = np.asarray(tokens[1:])

    def perplexity(logs: NDArray) -> float:
        return float(np.exp(-np.take_along_axis(logs[:-1], after[:, None], 1).mean()))

    kl = (np.exp(exact_logs) * (exact_logs - found_logs)).sum(-1).mean()
    return {
        "perplexity": perplexity(found_logs),
        "perplexity_source": perplexity(exact_logs),
        "kl": float(kl),
        "agreement": float((exact.argmax(-1) == found.argmax(-1)).mean()),
    }


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))
