"""What may be asked of generation, checked before any work is done."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypedDict

from ..encoders.errors import OptionError

if TYPE_CHECKING:
    from .tools import Toolbox

__all__ = ["FORMS", "GenerationOptions", "Options", "options_from"]

#: Options of which each says what an answer may be; at most one is given.
FORMS = ("schema", "choices", "regex", "toolbox")
_SAMPLING = ("top_k", "top_p", "min_p", "typical_p")
_MOST_STOPS = 64
_LONGEST_STOP = 4096  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How to choose tokens and when to stop.

    Attributes:
        max_new_tokens: the most tokens to generate; the prompt and these must fit the context together. None is
            `default_new_tokens`, or what room the context has left.
        min_new_tokens: tokens that end the answer (the model's own and `stop_tokens`) are impossible before this many.
        temperature: 0 takes the likeliest token each time (greedy); otherwise logits are divided by it and drawn from.
        top_k: draw among the k likeliest tokens, and those as likely as the last of them (Fan et al., 2018).
        top_p: draw among the fewest tokens whose probabilities reach p (nucleus; Holtzman et al., 2020).
        min_p: draw among tokens at least min_p times as likely as the likeliest (Nguyen et al., 2024).
        typical_p: draw among tokens whose surprise is closest to the expected one (Meister et al., 2022).
        repetition_penalty: logits of tokens in prompt or answer are divided (or, if negative, multiplied) by it
            (Keskar et al., 2019); 1 is off.
        presence_penalty: taken from the logit of each token that the answer has used.
        frequency_penalty: taken from it once for each time that it was used.
        logit_bias: token id → number added to its logit; -inf forbids it.
        seed: of the random draws; None draws one. The same seed gives the same answer.
        stop: the answer ends before the first of these texts that is complete.
        stop_tokens: token ids that end the answer, besides the model's own.
        logprobs: for each token its log-probability and this many alternatives; None for none. They are the model's
            own, before penalties and temperature.
        best_of: draw this many answers and keep the one with the highest mean log-probability, the token that ended
            it included.
        beams: width of a beam search; 1 is none.
        length_penalty: beam scores are divided by length ** length_penalty.
        schema: the answer is JSON that fulfils this JSON schema, a mapping or a pydantic class. Objects that list their
            properties have no others, unless the schema says so.
        choices: the answer is one of these texts.
        regex: the answer matches this regular expression as a whole; no look-around, no back-references.
        toolbox: tools that the answer may call; `Model.ask` makes it of its arguments.
        default_new_tokens: the most tokens to generate where `max_new_tokens` does not say; a model's own
            generation_config.json sets it.
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
    schema: Any = None
    choices: tuple[str, ...] | None = None
    regex: str | None = None
    toolbox: Toolbox | None = None
    default_new_tokens: int = 256

    def __post_init__(self) -> None:
        for name, (right, expected) in _RANGES.items():
            value = getattr(self, name)
            if not (value is None and name in _OPTIONAL) and not _holds(right, value):
                raise OptionError(f"{name} is out of range.", given=_shown(value), expected=expected)
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
    schema: Any
    choices: Sequence[str] | None
    regex: str | None


def options_from(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerationOptions:
    """The options of one request.

    Args:
        given: what the caller asked for, by name; None means not asked for.
        defaults: the model's own generation_config.json, as Hugging Face names its fields; what the caller gave
            goes before it, and what contradicts the caller is left out.

    Raises:
        OptionError: an unknown name, a value out of range, or options that contradict each other.
    """
    names = list(Options.__annotations__)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            raise OptionError(f"There is no generation option {name}.", expected=", ".join(names), hint=hint)
    asked = {name: value for name, value in given.items() if value is not None}
    for name in ("stop", "stop_tokens", "choices"):
        if name in asked:
            asked[name] = _several(name, asked[name])
    return GenerationOptions(**(_model_defaults(defaults, asked) | asked))


def _several(name: str, value: Any) -> tuple[Any, ...]:
    one = int if name == "stop_tokens" else str
    try:
        return (value,) if isinstance(value, one) else tuple(value)
    except TypeError:
        expected = f"{one.__name__} or several"
        raise OptionError(f"{name} is no list.", given=_shown(value), expected=expected) from None


def _model_defaults(config: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's generation_config.json wants where the caller said nothing and nothing contradicts it."""
    own = {ours: config.get(theirs) for ours, theirs in _CONFIG_NAMES.items() if not {ours, theirs} & set(asked)}
    wanted = {name: value for name, value in own.items() if value is not None and value not in _OFF.get(name, ())}
    temperature = _temperature(config, asked, wanted.pop("temperature", 1.0))
    if _holds(_number(0, above=True), temperature):
        wanted.pop("beams", None)
    else:
        wanted = {name: value for name, value in wanted.items() if name not in _SAMPLING}
    if "logprobs" in asked or "best_of" in asked:
        wanted.pop("beams", None)
    if asked.get("beams", wanted.get("beams", 1)) == 1:
        wanted.pop("length_penalty", None)
    for name, value in wanted.items():
        _check_own(name, value)
    most = asked.get("max_new_tokens")
    if _is_whole(most) and wanted.get("min_new_tokens", 0) > most:
        wanted.pop("min_new_tokens", None)
    return wanted | {"temperature": temperature}


def _temperature(config: Mapping[str, Any], asked: Mapping[str, Any], own: Any) -> Any:
    """The caller's, or else the model's own if it samples."""
    if "temperature" in asked:
        return asked["temperature"]
    asked_to_draw = any(name in asked for name in _SAMPLING)  # to ask for top_p is to ask for sampling
    if not asked_to_draw and (config.get("do_sample") is not True or asked.get("beams", 1) != 1):
        return 0.0
    _check_own("temperature", own)
    return own or float(asked_to_draw)


def _check_own(name: str, value: Any) -> None:
    right, expected = _RANGES[name]
    if not _holds(right, value):
        problem = f"The model's generation_config.json has a wrong {_CONFIG_NAMES[name]}."
        hint = f"mend the file, or give {name.replace('default_', 'max_')}"
        raise OptionError(problem, given=_shown(value), expected=expected, hint=hint)


# Our names for fields of generation_config.json, and values there that stand for "off".
_CONFIG_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_new_tokens",
    "default_new_tokens": "max_new_tokens",
    "beams": "num_beams",
    "length_penalty": "length_penalty",
}
_OFF: dict[str, tuple[Any, ...]] = {"top_k": (0, -1), "top_p": (1,), "typical_p": (1,), "min_p": (0,), "beams": (1,)}


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: _is_whole(value) and least <= value <= most


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], bool]:
    def right(value: Any) -> bool:
        return _is_number(value) and math.isfinite(value) and (low < value if above else low <= value) and value <= high

    return right


def _holds(right: Callable[[Any], bool], value: Any) -> bool:
    """Whether a value of any type is right; what it cannot be asked it is not."""
    try:
        return bool(right(value))
    except (TypeError, ValueError, AttributeError, ArithmeticError):
        return False


def _shown(value: Any) -> str:
    """A value for an error message, never long."""
    try:
        return reprlib.repr(value)
    except Exception:  # an int too long to be written, or an object whose repr fails
        return type(value).__name__


def _texts(value: Any) -> bool:
    if isinstance(value, str) or len(value) > _MOST_STOPS:
        return False
    return all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in value)


def _choices(value: Any) -> bool:
    texts = all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in value)
    return not isinstance(value, str) and len(value) > 0 and texts


def _biases(value: Mapping[Any, Any]) -> bool:
    return all(
        _is_whole(token) and token >= 0 and _is_number(bias) and bias < math.inf for token, bias in value.items()
    )


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
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
    "stop": (_texts, f"at most {_MOST_STOPS} texts, none empty or over {_LONGEST_STOP} characters"),
    "stop_tokens": (lambda value: all(map(_whole(0), value)), "token ids"),
    "logprobs": (_whole(0, 100), "0 to 100 alternatives"),
    "best_of": (_whole(1, 256), "1 to 256"),
    "beams": (_whole(1, 256), "1 to 256"),
    "length_penalty": (_number(-10, 10), "-10 to 10"),
    "default_new_tokens": (_whole(1), "a whole number of at least 1"),
    "choices": (_choices, f"one text or more, none empty or over {_LONGEST_STOP} characters"),
    "regex": (lambda value: isinstance(value, str) and value != "", "a regular expression"),
}
_OPTIONAL = {field.name for field in dataclasses.fields(GenerationOptions) if field.default is None}


def _refuse_contradictions(options: GenerationOptions) -> None:
    for problem, hint in _contradictions(options):
        raise OptionError(problem, hint=hint)


def _contradictions(options: GenerationOptions) -> Iterator[tuple[str, str]]:
    """What does not fit together, and the way out."""
    sampling = [name for name in _SAMPLING if getattr(options, name) is not None]
    most, beams = options.max_new_tokens, options.beams > 1
    if beams and (sampling or not options.greedy):
        drawing = ", ".join([*([] if options.greedy else ["temperature"]), *sampling])
        yield f"beams: a beam search does not draw at random, which {drawing} would.", f"leave out {drawing}, or beams"
    if options.greedy and sampling:
        yield f"{', '.join(sampling)}: no meaning at temperature 0.", "raise temperature, or leave it out"
    if beams and options.best_of > 1:
        yield "best_of and beams are two ways to choose one answer.", "leave one of them out"
    if options.greedy and options.best_of > 1:
        yield "best_of draws several answers, and at temperature 0 all are the same.", "raise temperature"
    if beams and options.logprobs is not None:
        yield "beams: a beam search gives no logprobs for each token.", "leave out logprobs, or beams"
    if not beams and options.length_penalty != 1:
        yield "length_penalty is for a beam search.", "set beams, or leave it out"
    forms = ["tools" if name == "toolbox" else name for name in FORMS if getattr(options, name) is not None]
    if len(forms) > 1:
        yield f"{' and '.join(forms)} each say what an answer may be.", "leave one of them"
    if forms and beams:
        yield f"{forms[0]}: a beam search does not follow it.", "leave out beams"
    if most is not None and options.min_new_tokens > most:
        shown = _shown(options.min_new_tokens), _shown(most)
        yield f"min_new_tokens {shown[0]} is more than max_new_tokens {shown[1]}.", "make them fit each other"
