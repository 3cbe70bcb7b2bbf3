"""How much a chat template may do: steps, processor time, and sizes of the values that it makes.

A template comes with a model, from a stranger. jinja2's sandbox keeps it from reaching the system, but lets
``'a' * 10**9``, ``x ~ x`` in a loop and lists that hold themselves twice, forty levels deep, pass. Here every value
that an operator, a literal, a call or a filter makes is measured, references to one value counted each time, so that
whatever is then done with it (comparing, sorting, printing) is bounded too.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from string import Formatter
from typing import Any

__all__ = [
    "LARGEST_VALUE",
    "LONGEST_NUMBER",
    "LONGEST_TIME",
    "MOST_STEPS",
    "MOST_WORK",
    "WIDEST",
    "Fault",
    "Meter",
    "check_call",
    "check_indent",
    "check_operands",
    "check_percent",
    "check_replace",
    "current_meter",
    "joined",
    "metered",
    "size_of",
]

MOST_STEPS = 1 << 22  # turns of loops, calls, filters and pieces of output
LONGEST_TIME = 5.0  # seconds of this thread's processor time
LARGEST_VALUE = 1 << 22  # bytes of text, and 8 for each element of a list
MOST_WORK = 1 << 28  # bytes of text in all values made
LONGEST_NUMBER = 1 << 14  # bits
WIDEST = 1024  # columns of padding
# What was given to a template may be long, and comes from somebody else: bounds grow by so many times its size.
_MORE_VALUE, _MORE_WORK = 4, 64
_ELEMENT = 8
_CONTAINERS = (list, tuple, dict, set, frozenset, ValuesView, type({}.keys()), type({}.items()))
_PERCENT_WIDTHS = re.compile(r"%[-#0 +]*(?:\*|\d{5,}|\d*\.(?:\*|\d{5,}))")
_NAMED_WIDTHS = re.compile(r"\*|\d{5,}")
_SPEC_WIDTHS = re.compile(r"\{|\d{5,}")
_WIDEST_FIELD = 10_000
_NAME = 64
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
_SCOPES = ("_loop_vars", "_block_vars")  # jinja2's own arguments of every call in a loop or a block
_PADDING = ("center", "expandtabs", "ljust", "rjust", "zfill")


class Fault(Exception):
    """A template asks for more than it may."""


def size_of(text: str) -> int:
    """Bytes that a text takes in memory, at most."""
    return len(text) if text.isascii() else 4 * len(text)


class Meter:
    """Counts what one rendering does.

    Args:
        given: what the template was given; a long chat makes long values.

    Raises:
        Fault: from every method, when a bound is passed.
    """

    def __init__(self, *given: Any) -> None:
        self._steps = self._work = 0
        self._deadline = time.thread_time() + LONGEST_TIME
        # Containers never change in the immutable sandbox; holding them keeps their ids their own.
        self._sizes: dict[int, tuple[Any, int]] = {}
        self._largest = sys.maxsize
        size = sum(map(self.measure, given))
        self._largest = LARGEST_VALUE + _MORE_VALUE * size
        self._most_work = MOST_WORK + _MORE_WORK * size

    def tick(self) -> None:
        """One step."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise Fault(f"more than {MOST_STEPS} steps")
        if time.thread_time() > self._deadline:
            raise Fault(f"more than {LONGEST_TIME:g} seconds")

    def check(self, size: int) -> None:
        """A value of `size` bytes."""
        if size > self._largest:
            raise Fault(f"a value of more than {self._largest} bytes")

    def charge(self, size: int) -> None:
        """A new value of `size` bytes."""
        self.check(size)
        self._work += size
        if self._work > self._most_work:
            raise Fault(f"values of more than {self._most_work} bytes in all")

    def made(self, value: Any) -> Any:
        """`value`, new, measured and charged."""
        if isinstance(value, str):
            self.charge(size_of(value))
        elif isinstance(value, _CONTAINERS):
            self.measure(value)
            self.charge(_ELEMENT * len(value))
        elif isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
            raise Fault(f"a number of more than {LONGEST_NUMBER} bits")
        return value

    def measure(self, value: Any) -> int:
        """How large `value` is, written out, about: what it holds twice counts twice."""
        if isinstance(value, str):
            return size_of(value)
        if not isinstance(value, _CONTAINERS):
            return _written(value)
        known = self._sizes.get(id(value))
        if known is not None:
            return known[1]
        size = _ELEMENT
        items = (part for pair in value.items() for part in pair) if isinstance(value, Mapping) else value
        for item in items:
            size += _ELEMENT + self.measure(item)
            self.check(size)
        self._sizes[id(value)] = value, size
        return size


def _written(value: Any) -> int:
    """Bytes of a number, or of the name that a macro, a method or the like is printed with."""
    if value is None or isinstance(value, float):
        return 3 * _ELEMENT
    if isinstance(value, int):
        return _ELEMENT + value.bit_length() // 3
    # A loop looks ahead to print itself; a method of marked text prints that text.
    return _NAME if type(value).__name__ == "LoopContext" else len(repr(value))


_CURRENT: ContextVar[Meter] = ContextVar("sensorium_template_meter")


def current_meter() -> Meter:
    """The meter of the rendering that this thread is in."""
    return _CURRENT.get()


@contextmanager
def metered(*given: Any) -> Iterator[Meter]:
    """A rendering with a meter of its own, of what was given."""
    token = _CURRENT.set(Meter(*given))
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
    if operator == "%" and isinstance(left, str):
        check_percent(meter, left, [right])
    if operator == "*" and len(numbers) == 2 and max(map(int.bit_length, numbers)) > 64:
        raise Fault("a product of huge numbers")
    if operator == "*" and len(numbers) == 1:
        other = right if left is numbers[0] else left
        if isinstance(other, str | list | tuple):
            meter.charge(max(int(numbers[0]), 0) * meter.measure(other))
    if operator == "+" and isinstance(left, str | list | tuple):
        meter.charge(meter.measure(left) + meter.measure(right) if isinstance(left, str) else _ELEMENT)


def check_call(meter: Meter, called: Any, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Refuses calls of methods whose result would be huge, and returns the arguments to call with.

    Raises:
        Fault: it would, or it is a method that chat templates have no use for.
    """
    meter.tick()
    for value in (*args, *(value for name, value in named.items() if name not in _SCOPES)):
        meter.measure(value)
    # jinja2 wraps `format` in a function that does not say whose method it is.
    owner, name = getattr(getattr(called, "__wrapped__", called), "__self__", None), getattr(called, "__name__", "")
    if not isinstance(owner, str | int | float | list | tuple | dict):
        return tuple(args)
    if name not in _METHODS:
        raise Fault(f"the method {name}")
    if name in _PADDING and any(isinstance(value, int) and value > WIDEST for value in (*args, *named.values())):
        raise Fault(f"{name} to more than {WIDEST} columns")
    if not isinstance(owner, str):
        return tuple(args)
    if name == "expandtabs":
        meter.charge(size_of(owner) + WIDEST * owner.count("\t"))
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
    if isinstance(text, str) and isinstance(new, str) and isinstance(old, str):
        meter.charge(size_of(text) + text.count(old) * size_of(new))


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


def check_indent(meter: Meter, text: str, width: Any) -> None:
    """Refuses to indent lines of a text so that the result would be huge.

    Raises:
        Fault: it would.
    """
    columns = size_of(width) if isinstance(width, str) else max(int(width), 0)
    meter.charge(size_of(text) + (1 + len(text.splitlines())) * columns)


def check_percent(meter: Meter, form: str, values: Sequence[Any]) -> None:
    """Refuses ``%`` with widths of five digits, or widths that are arguments themselves.

    Raises:
        Fault: there is one.
    """
    if (_NAMED_WIDTHS if "%(" in form else _PERCENT_WIDTHS).search(form):
        raise Fault("a format with unbounded widths")
    meter.charge(size_of(form) + form.count("%") * (_WIDEST_FIELD + sum(map(meter.measure, values))))


def _check_format(meter: Meter, form: str, values: Sequence[Any]) -> None:
    """The same for ``format``."""
    specs = [spec or "" for _, field, spec, _ in Formatter().parse(form) if field is not None]
    if any(map(_SPEC_WIDTHS.search, specs)):
        raise Fault("a format with unbounded widths")
    meter.charge(size_of(form) + len(specs) * (_WIDEST_FIELD + sum(map(meter.measure, values))))
