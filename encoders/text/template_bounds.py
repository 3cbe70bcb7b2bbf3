"""How much a chat template may do: steps, processor time, and sizes of the values that it makes.

A template comes with a model, from a stranger. jinja2's sandbox keeps it from reaching the system, but lets
``'a' * 10**9``, ``x ~ x`` in a loop and lists that hold themselves twice, forty levels deep, pass. Here every value
that an operator, a literal, a call or a filter makes is measured, references to one value counted each time, so that
whatever is then done with it (comparing, sorting, printing) is bounded too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = [
    "LARGEST_VALUE",
    "LONGEST_TIME",
    "MOST_STEPS",
    "MOST_WORK",
    "WIDEST",
    "Fault",
    "Meter",
    "check_call",
    "check_operands",
    "check_replace",
    "current_meter",
    "joined",
    "metered",
]

MOST_STEPS = 1 << 22  # turns of loops, calls, filters and pieces of output
LONGEST_TIME = 5.0  # seconds of this thread's processor time
LARGEST_VALUE = 1 << 26  # characters, and 8 for each element of a list
MOST_WORK = 1 << 29  # characters in all values made
WIDEST = 1024  # columns of padding
_ELEMENT = 8
_CONTAINERS = (list, tuple, dict, set, frozenset, ValuesView, type({}.keys()), type({}.items()))
_WIDTHS = re.compile(r"\*|\d{5,}|\{[^{}]*\{")
# The methods of Python's own types that templates use; none of them multiplies, but for those checked below.
_METHODS = frozenset(
    [
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "get",
        "items",
        "keys",
        "values",
        "copy",
        "bit_length",
        "is_integer",
        "center",
        "expandtabs",
        "format",
        "join",
        "ljust",
        "replace",
        "rjust",
        "zfill",
    ]
)
_PADDING = ("center", "expandtabs", "ljust", "rjust", "zfill")


class Fault(Exception):
    """A template asks for more than it may."""


class Meter:
    """Counts what one rendering does.

    Raises:
        Fault: from every method, when a bound is passed.
    """

    def __init__(self) -> None:
        self._steps = self._work = 0
        self._deadline = time.thread_time() + LONGEST_TIME
        # Containers never change in the immutable sandbox; holding them keeps their ids their own.
        self._sizes: dict[int, tuple[Any, int]] = {}

    def tick(self) -> None:
        """One step."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise Fault(f"more than {MOST_STEPS} steps")
        if time.thread_time() > self._deadline:
            raise Fault(f"more than {LONGEST_TIME:g} seconds")

    def charge(self, size: int) -> None:
        """A new value of `size` characters."""
        self._work += size
        if size > LARGEST_VALUE or self._work > MOST_WORK:
            raise Fault(f"a value of more than {LARGEST_VALUE} characters, or {MOST_WORK} in all")

    def made(self, value: Any) -> Any:
        """`value`, new, measured and charged."""
        if isinstance(value, str | bytes):
            self.charge(len(value))
        elif isinstance(value, _CONTAINERS):
            self.measure(value)
            self.charge(_ELEMENT * len(value))
        return value

    def measure(self, value: Any) -> int:
        """How large `value` is, written out, about: what it holds twice counts twice."""
        if isinstance(value, str | bytes):
            return len(value)
        if not isinstance(value, _CONTAINERS):
            return _ELEMENT
        known = self._sizes.get(id(value))
        if known is not None:
            return known[1]
        size = _ELEMENT
        items = (part for pair in value.items() for part in pair) if isinstance(value, Mapping) else value
        for item in items:
            size += _ELEMENT + self.measure(item)
            if size > LARGEST_VALUE:
                raise Fault(f"a value of more than {LARGEST_VALUE} characters")
        self._sizes[id(value)] = value, size
        return size


_CURRENT: ContextVar[Meter] = ContextVar("sensorium_template_meter")


def current_meter() -> Meter:
    """The meter of the rendering that this thread is in."""
    return _CURRENT.get()


@contextmanager
def metered() -> Iterator[Meter]:
    """A rendering with a meter of its own."""
    token = _CURRENT.set(Meter())
    try:
        yield _CURRENT.get()
    finally:
        _CURRENT.reset(token)


def check_operands(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """Refuses ``*``, ``+``, ``**`` and ``%`` whose result would be huge.

    Raises:
        Fault: it would.
    """
    numbers = [side for side in (left, right) if isinstance(side, int)]
    if operator == "**" and not all(isinstance(side, int | float) and abs(side) <= WIDEST for side in (left, right)):
        raise Fault("a power of large numbers")
    if operator == "%" and isinstance(left, str | bytes):
        _check_format(meter, left, [right])
    if operator == "*" and len(numbers) == 2 and max(map(int.bit_length, numbers)) > 64:
        raise Fault("a product of huge numbers")
    if operator == "*" and len(numbers) == 1:
        other = right if left is numbers[0] else left
        if isinstance(other, str | bytes | list | tuple):
            meter.charge(max(int(numbers[0]), 0) * meter.measure(other))
    if operator == "+" and isinstance(left, str | bytes | list | tuple):
        meter.charge(meter.measure(left) + meter.measure(right) if isinstance(left, str | bytes) else _ELEMENT)


def check_call(meter: Meter, called: Any, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Refuses calls of methods whose result would be huge, and returns the arguments to call with.

    Raises:
        Fault: it would, or it is a method that chat templates have no use for.
    """
    meter.tick()
    for value in (*args, *named.values()):
        meter.measure(value)
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if not isinstance(owner, str | bytes | int | float | list | tuple | dict):
        return tuple(args)
    if name not in _METHODS:
        raise Fault(f"the method {name}")
    if name in _PADDING and any(isinstance(value, int) and value > WIDEST for value in (*args, *named.values())):
        raise Fault(f"{name} to more than {WIDEST} columns")
    if not isinstance(owner, str | bytes):
        return tuple(args)
    if name == "expandtabs":
        meter.charge(len(owner) + WIDEST * owner.count("\t" if isinstance(owner, str) else b"\t"))  # type: ignore[arg-type]
    if name == "format":
        _check_format(meter, owner, [*args, *named.values()])
    if name == "replace" and len(args) > 1:
        check_replace(meter, owner, args[0], args[1])
    if name == "join" and args:
        return (joined(meter, owner, args[0]), *args[1:])
    return tuple(args)


def check_replace(meter: Meter, text: Any, old: Any, new: Any) -> None:
    """Refuses a replacement whose result would be huge.

    Raises:
        Fault: it would.
    """
    if isinstance(text, str | bytes) and isinstance(new, str | bytes) and isinstance(old, type(text)):
        meter.charge(len(text) + (text.count(old) * len(new)))  # type: ignore[arg-type]


def joined(meter: Meter, between: Any, items: Any) -> list[Any]:
    """The items to join, as a list.

    Raises:
        Fault: the result would be huge.
    """
    found = []
    for item in items:
        meter.tick()
        found.append(item)
    space = meter.measure(between) * len(found)
    meter.charge(meter.measure(found) + space)
    return found


def _check_format(meter: Meter, form: Any, values: Sequence[Any]) -> None:
    """Widths of five digits, and widths that are arguments themselves, are refused."""
    text = form if isinstance(form, str) else form.decode("latin-1")
    if _WIDTHS.search(text):
        raise Fault("a format with unbounded widths")
    places = text.count("%") + text.count("{")
    meter.charge(len(text) + places * (10_000 + sum(map(meter.measure, values))))
