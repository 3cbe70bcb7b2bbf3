"""What may be asked of generation, checked before any work is done."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ..encoders.errors import OptionError

__all__ = ["GenerationOptions", "Options", "options_from"]

_SAMPLING = ("top_k", "top_p", "min_p", "typical_p")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How to choose tokens and when to stop.

    Attributes:
        max_new_tokens: the most tokens to generate; the prompt and these must fit the context together. None is 256,
            or what room the context has left.
        min_new_tokens: the model's own stop tokens are impossible before this many.
        temperature: 0 takes the likeliest token each time (greedy); otherwise logits are divided by it and drawn from.
        top_k: draw among the k likeliest tokens (Fan et al., 2018).
        top_p: draw among the fewest tokens whose probabilities reach p (nucleus; Holtzman et al., 2020).
        min_p: draw among tokens at least min_p times as likely as the likeliest (Nguyen et al., 2024).
        typical_p: draw among tokens whose surprise is closest to the expected one (Meister et al., 2022).
        repetition_penalty: logits of tokens in prompt or answer are divided (or, if negative, multiplied) by it
            (Keskar et al., 2019); 1 is off.
        presence_penalty: taken from the logit of each token that the answer has used.
        frequency_penalty: taken from it once for each time that it was used.
        logit_bias: token id → number added to its logit; -inf forbids it.
        seed: of the random draws; None draws one. The same seed gives the same answer.
        stop: the answer ends before the first of these texts.
        stop_tokens: token ids that end the answer, besides the model's own.
        logprobs: for each token its log-probability and this many alternatives; None for none. They are the model's
            own, before penalties and temperature.
        best_of: draw this many answers and keep the one with the highest mean log-probability.
        beams: width of a beam search; 1 is none.
        length_penalty: beam scores are divided by length ** length_penalty.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    logprobs: int | None = None
    best_of: int = 1
    beams: int = 1
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, (right, expected) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not _holds(right, value):
                raise OptionError(f"{name} is out of range.", given=repr(value), expected=expected)
        _refuse_contradictions(self)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.temperature == 0


class Options(TypedDict, total=False):
    """The keyword arguments of `Model.ask`, `Model.stream` and `Model.batch`; see `GenerationOptions`."""

    max_new_tokens: int | None
    min_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_tokens: int | Sequence[int] | None
    logprobs: int | None
    best_of: int | None
    beams: int | None
    length_penalty: float | None


def options_from(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerationOptions:
    """The options of one request.

    Args:
        given: what the caller asked for, by name; None means not asked for.
        defaults: the model's own generation_config.json, as Hugging Face names its fields; what the caller gave
            goes before it, and what contradicts the caller is left out.

    Raises:
        OptionError: an unknown name, a value out of range, or options that contradict each other.
    """
    names = [field.name for field in dataclasses.fields(GenerationOptions)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            raise OptionError(f"There is no generation option {name}.", expected=", ".join(names), hint=hint)
    asked = {name: value for name, value in given.items() if value is not None}
    for name in ("stop", "stop_tokens"):
        if name in asked:
            asked[name] = _several(name, asked[name])
    return GenerationOptions(**(_model_defaults(defaults, asked) | asked))


def _several(name: str, value: Any) -> tuple[Any, ...]:
    one = str if name == "stop" else int
    values = (value,) if isinstance(value, one) else value
    try:
        found = tuple(values)
    except TypeError:
        raise OptionError(f"{name} is no list.", given=repr(value), expected=f"{one.__name__} or several") from None
    return found


def _model_defaults(config: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's generation_config.json wants where the caller said nothing."""
    neutral = {"top_k": 0, "top_p": 1.0, "typical_p": 1.0, "min_p": 0.0}
    names = ("repetition_penalty", "length_penalty", "max_new_tokens", "min_new_tokens")
    found = {name: config[name] for name in names if config.get(name) is not None}
    samples = config.get("do_sample", False) and "beams" not in asked
    temperature = asked.get("temperature", config.get("temperature", 1.0) if samples else 0.0)
    if any(name in asked for name in _SAMPLING) and "temperature" not in asked:
        temperature = temperature or 1.0  # to ask for top_p is to ask for sampling
    found["temperature"] = temperature
    if temperature:
        values = {name: config.get(name) for name in _SAMPLING}
        found |= {name: value for name, value in values.items() if value not in (None, neutral[name])}
    elif config.get("num_beams", 1) > 1 and "best_of" not in asked:
        found["beams"] = config["num_beams"]
    return found


def _whole(least: int) -> Any:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Any:
    def right(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return is_number and (low < value <= high if above else low <= value <= high)

    return right


def _holds(right: Any, value: Any) -> bool:
    try:
        return bool(right(value))
    except (TypeError, ValueError):
        return False


def _texts(value: Any) -> bool:
    return len(value) <= 64 and all(isinstance(text, str) and text for text in value)


def _biases(value: Mapping[Any, Any]) -> bool:
    return all(_whole(0)(token) and isinstance(bias, int | float) and bias < math.inf for token, bias in value.items())


_RANGES: dict[str, tuple[Any, str]] = {
    "max_new_tokens": (_whole(1), "a whole number of at least 1"),
    "min_new_tokens": (_whole(0), "a whole number of at least 0"),
    "temperature": (_number(0), "a number of at least 0"),
    "top_k": (_whole(1), "a whole number of at least 1"),
    "top_p": (_number(0, 1, above=True), "above 0, at most 1"),
    "min_p": (_number(0, 1), "0 to 1"),
    "typical_p": (_number(0, 1, above=True), "above 0, at most 1"),
    "repetition_penalty": (_number(0, above=True), "a number above 0"),
    "presence_penalty": (_number(-100, 100), "-100 to 100"),
    "frequency_penalty": (_number(-100, 100), "-100 to 100"),
    "logit_bias": (_biases, "token ids, each with a number or -inf"),
    "seed": (_whole(0), "a whole number of at least 0"),
    "stop": (_texts, "at most 64 texts, none empty"),
    "stop_tokens": (lambda value: all(_whole(0)(token) for token in value), "token ids"),
    "logprobs": (lambda value: _whole(0)(value) and value <= 100, "0 to 100 alternatives"),
    "best_of": (lambda value: _whole(1)(value) and value <= 256, "1 to 256"),
    "beams": (lambda value: _whole(1)(value) and value <= 256, "1 to 256"),
    "length_penalty": (_number(-100, 100), "-100 to 100"),
}


def _refuse_contradictions(options: GenerationOptions) -> None:
    def refuse(problem: str, hint: str) -> None:
        raise OptionError(problem, hint=hint)

    sampling = [name for name in _SAMPLING if getattr(options, name) is not None]
    if options.greedy and sampling:
        refuse(f"{sampling[0]} has no meaning at temperature 0.", "raise temperature, or leave it out")
    if options.greedy and options.best_of > 1:
        refuse("best_of draws several answers, and at temperature 0 all are the same.", "raise temperature")
    if options.beams > 1 and not options.greedy:
        refuse("A beam search does not draw at random.", "leave out temperature, or beams")
    if options.beams > 1 and options.best_of > 1:
        refuse("best_of and beams are two ways to choose one answer.", "leave one of them out")
    if options.beams > 1 and options.logprobs is not None:
        refuse("A beam search gives no logprobs for each token.", "leave out logprobs, or beams")
    if options.max_new_tokens is not None and options.min_new_tokens > options.max_new_tokens:
        refuse("min_new_tokens is more than max_new_tokens.", "make them fit each other")
