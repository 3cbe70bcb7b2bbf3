"""Chat templates, rendered in jinja2's immutable sandbox with bounds on memory and time.

The environment is the one that `transformers` gives to templates, so that a template means the same here. A template
comes with a model, from a stranger: the sandbox keeps it from attributes and methods that reach the system, and the
bounds keep it from ``'a' * 10**9`` and endless loops, which the sandbox alone would let pass.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from ..errors import ChatTemplateError, InvalidInputError

__all__ = ["ChatTemplate"]

_LONGEST_SOURCE = 1 << 20  # characters
_LONGEST_OUTPUT = 1 << 26  # characters
_LARGEST_VALUE = 1 << 24  # elements of a text or list that an operator may make
_LONGEST_TIME = 5.0  # seconds
_WIDENING = ("ljust", "rjust", "center", "zfill", "expandtabs")
_SHOWN = 300


class _Fault(Exception):
    """Raised inside a template to end it."""


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, which marks the assistant's text for training and changes nothing in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        """The block's body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox with bounded operators, calls and loops."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        """Adds a look at the clock to every loop and macro, also to those that print nothing."""
        tree = super()._parse(source, name, filename)
        for node in tree.find_all((jinja2.nodes.For, jinja2.nodes.Macro)):
            tick = jinja2.nodes.Call(jinja2.nodes.Name("__tick__", "load"), [], [], None, None)
            node.body.insert(0, jinja2.nodes.ExprStmt(tick).set_lineno(node.lineno))
        return tree

    def call_binop(self, context: Any, operator_: str, left: Any, right: Any) -> Any:
        """An operator, refused where its result would be huge."""
        _check_operands(operator_, left, right)
        return super().call_binop(context, operator_, left, right)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """A call, refused where it would pad or repeat without bound."""
        _check_time(context)
        name = getattr(obj, "__name__", "")
        numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
        if name in _WIDENING and any(number > _LARGEST_VALUE for number in numbers):
            raise _Fault(f"{name} to more than {_LARGEST_VALUE} characters")
        if name in ("format", "format_map"):
            raise _Fault("str.format, whose widths are unbounded")
        if name == "replace" and len(args) > 1 and isinstance(getattr(obj, "__self__", None), str):
            _check_size((obj.__self__.count(args[0]) + 1) * len(str(args[1])) if args[0] else len(str(args[1])) ** 2)
        if name == "join" and isinstance(getattr(obj, "__self__", None), str) and args and hasattr(args[0], "__len__"):
            _check_size(len(args[0]) * len(obj.__self__))
        return super().call(context, obj, *args, **kwargs)


def _check_operands(operator_: str, left: Any, right: Any) -> None:
    if operator_ == "**":
        small = all(isinstance(side, int | float) and abs(side) <= 1024 for side in (left, right))
        if not small:
            raise _Fault("a power of large numbers")
    if operator_ == "%" and isinstance(left, str):
        raise _Fault("the % operator on text, whose widths are unbounded")
    if operator_ == "*":
        numbers = [side for side in (left, right) if isinstance(side, int)]
        lengths = [len(side) for side in (left, right) if hasattr(side, "__len__")]
        if numbers and lengths:
            _check_size(max(numbers[0], 0) * lengths[0])
        if len(numbers) == 2 and max(map(int.bit_length, numbers)) > 64:
            raise _Fault("a product of huge numbers")
    if operator_ == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        _check_size(len(left) + len(right))


def _check_size(size: int) -> None:
    if size > _LARGEST_VALUE:
        raise _Fault(f"a value of more than {_LARGEST_VALUE} elements")


def _tick() -> None:
    """Called in every turn of every loop; `_Environment.call` looks at the clock before it."""


def _check_time(context: Any) -> None:
    deadline = context.get("__deadline__")
    if deadline is not None and time.monotonic() > deadline:
        raise _Fault(f"more than {_LONGEST_TIME:g} seconds")


class ChatTemplate:
    """One chat template.

    Args:
        source: jinja2, as in tokenizer_config.json.

    Raises:
        ChatTemplateError: it is no valid template, or too long.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._template = _compiled(source)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **values: Any
    ) -> str:
        """The prompt's text.

        Args:
            messages: with ``role`` and ``content``, as the template expects them.
            add_generation_prompt: ends with the beginning of the assistant's answer.
            values: ``bos_token``, ``eos_token``, ``tools`` and whatever else the template knows.

        Raises:
            InvalidInputError: there are no messages.
            ChatTemplateError: the template refuses the messages, fails or breaks a bound.
        """
        if not messages:
            raise InvalidInputError("A chat has no messages.", given="an empty list", expected="at least one message")
        known = {"tools": None, "documents": None, **values}
        known |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        deadline = time.monotonic() + _LONGEST_TIME
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(**known, __deadline__=deadline):
                parts.append(part)
                size += len(part)
                if size > _LONGEST_OUTPUT:
                    raise _Fault(f"more than {_LONGEST_OUTPUT} characters of output")
                if time.monotonic() > deadline:
                    raise _Fault(f"more than {_LONGEST_TIME:g} seconds")
        except _Refused as refusal:
            raise ChatTemplateError("The chat template refuses these messages.", given=str(refusal)) from refusal
        except _Fault as fault:
            raise ChatTemplateError(
                "The chat template asks for more than it may.", given=str(fault), hint="the template comes with the model; do you trust it?"
            ) from fault
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, ArithmeticError, RecursionError, AttributeError) as error:
            given = f"{type(error).__name__}: {error}"[:_SHOWN]
            raise ChatTemplateError("The chat template failed.", given=given) from error
        return "".join(parts)


class _Refused(jinja2.TemplateError):
    """``raise_exception`` in a template."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(str(message)[:_SHOWN])


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """`transformers`' form: nothing is escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=min(indent, 64) if indent else indent, **options)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _bounded_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > jinja2.sandbox.MAX_RANGE:
        raise _Fault(f"a range of more than {jinja2.sandbox.MAX_RANGE} numbers")
    return numbers


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > _LONGEST_SOURCE:
        given = f"{len(source)} characters"
        raise ChatTemplateError("The chat template is too long.", given=given, expected=f"at most {_LONGEST_SOURCE}")
    extensions = [_Generation, jinja2.ext.loopcontrols]
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _tojson
    for name in ("format", "xmlattr", "wordwrap"):
        environment.filters[name] = _refusing(name)
    for name in ("center", "indent"):
        environment.filters[name] = _narrow(name, environment.filters[name])
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now, "range": _bounded_range}
    environment.globals["__tick__"] = _tick
    environment.globals.pop("lipsum", None)
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
        raise ChatTemplateError("The chat template cannot be compiled.", given=str(error)[:_SHOWN]) from error


def _narrow(name: str, plain: Any) -> Any:
    """A filter that pads, refused where it would pad by much."""

    def bounded(value: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(number, int) and abs(number) > 1024 for number in (*args, *kwargs.values())):
            raise _Fault(f"the filter {name} by more than 1024 characters")
        return plain(value, *args, **kwargs)

    return bounded


def _refusing(name: str) -> Any:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise _Fault(f"the filter {name}")

    return refused
