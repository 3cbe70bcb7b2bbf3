"""Chat templates, rendered in jinja2's immutable sandbox with bounds on memory and time.

The environment is the one that `transformers` gives to templates, so that a template means the same here. What it may
do is bounded in `template_bounds.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import jinja2.utils
import jinja2.visitor

from ..errors import ChatTemplateError, InvalidInputError
from .messages import plain_data
from .template_bounds import (
    WIDEST,
    Fault,
    check_call,
    check_indent,
    check_operands,
    check_percent,
    check_replace,
    current_meter,
    joined,
    metered,
    size_of,
)

__all__ = ["ChatTemplate"]

# Compiling takes far more memory and time than reading; templates of models have some ten thousand characters.
_LONGEST_SOURCE = 1 << 17  # characters
_MOST_NODES = 1 << 15
_SHOWN = 300
_REFUSED_FILTERS = ("pprint", "urlize", "wordwrap", "xmlattr")
_NARROW_FILTERS = ("batch", "center", "round", "slice")
_MADE = "__made__"


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, which marks the assistant's text for training and changes nothing in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        """The block's body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class _Watched(jinja2.visitor.NodeTransformer):
    """Lets every turn of a loop, every literal, every slice and every piece of output be seen by the meter."""

    def _wrapped(self, node: jinja2.nodes.Node, parts: list[Any]) -> jinja2.nodes.Node:
        name = jinja2.nodes.Name(_MADE, "load").set_lineno(node.lineno)
        return jinja2.nodes.Call(name, parts, [], None, None).set_lineno(node.lineno)

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        tick = self._wrapped(node, [jinja2.nodes.Const(None)])
        node.body.insert(0, jinja2.nodes.ExprStmt(tick).set_lineno(node.lineno))
        return node

    def _literal(self, node: Any) -> Any:
        self.generic_visit(node)
        # A tuple is also what `for a, b in` assigns to.
        return node if getattr(node, "ctx", "load") != "load" else self._wrapped(node, [node])

    visit_For = visit_Macro = visit_CallBlock = _body
    visit_List = visit_Tuple = visit_Dict = _literal

    def visit_Concat(self, node: Any) -> Any:
        """``a ~ b``, which is no operator to the sandbox."""
        self.generic_visit(node)
        return self._wrapped(node, node.nodes)

    def visit_Getitem(self, node: Any) -> Any:
        """A slice is a copy."""
        self.generic_visit(node)
        return self._wrapped(node, [node]) if isinstance(node.arg, jinja2.nodes.Slice) else node

    def visit_Compare(self, node: Any) -> Any:
        """Comparing takes time."""
        self.generic_visit(node)
        node.expr = self._wrapped(node, [node.expr])
        return node

    def visit_TemplateData(self, node: Any) -> Any:
        """Text of the template itself, which a loop may write often."""
        return jinja2.nodes.Const(node.data).set_lineno(node.lineno)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox with bounded operators, calls, filters and loops."""

    intercepted_binops = frozenset(["*", "**", "%", "+"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        parsed = super()._parse(source, name, filename)
        count = sum(1 for _ in parsed.find_all(jinja2.nodes.Node))
        if count > _MOST_NODES:
            raise jinja2.TemplateSyntaxError(f"more than {_MOST_NODES} parts", 1)
        return _Watched().visit(parsed)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, refused where its result would be huge."""
        meter = current_meter()
        meter.tick()
        check_operands(meter, operator, left, right)
        result = super().call_binop(context, operator, left, right)
        return result if isinstance(result, str) else meter.made(result)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """A call, refused where its result would be huge."""
        meter = current_meter()
        args = check_call(meter, obj, args, kwargs)
        return meter.made(super().call(context, obj, *args, **kwargs))


class _Namespace(jinja2.utils.Namespace):
    """``namespace()``, which does not print what it holds: it may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


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
        known = plain_data({**known, "messages": messages, "add_generation_prompt": add_generation_prompt})
        try:
            with metered(known):
                return self._rendered(known)
        except _Refused as refusal:
            raise ChatTemplateError("The chat template refuses these messages.", given=str(refusal)) from refusal
        except Fault as fault:
            raise ChatTemplateError(
                "The chat template asks for more than it may.",
                given=str(fault),
                hint="the template comes with the model; do you trust it?",
            ) from fault
        except Exception as error:  # a template can raise whatever Python's operators do
            given = f"{type(error).__name__}: {error}"[:_SHOWN]
            raise ChatTemplateError("The chat template failed.", given=given) from error

    def _rendered(self, known: Mapping[str, Any]) -> str:
        meter, parts, size = current_meter(), [], 0
        for part in self._template.generate(known):
            parts.append(part)
            size += size_of(part)
            meter.check(size)
        return "".join(parts)


class _Refused(jinja2.TemplateError):
    """``raise_exception`` in a template."""


def _refuse(message: object) -> NoReturn:
    raise _Refused(str(message)[:_SHOWN])


@jinja2.pass_context
def _finalized(_context: object, value: Any) -> Any:
    """Every piece of output, also in macros and blocks that collect it."""
    meter = current_meter()
    meter.tick()
    meter.measure(value)
    text = str(value)
    meter.charge(size_of(text))
    return text


def _made(*parts: Any) -> Any:
    """One value as it is, measured by the call; several as one text."""
    if len(parts) == 1:
        return parts[0]
    meter = current_meter()
    meter.charge(sum(map(meter.measure, parts)))
    return "".join(map(str, parts))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`transformers`' form: nothing is escaped for HTML."""
    if indent is not None and (len(indent) if isinstance(indent, str) else indent) > WIDEST:
        raise Fault(f"JSON indented by more than {WIDEST} columns")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    meter, parts = current_meter(), []
    for part in encoder.iterencode(value):
        meter.tick()
        meter.charge(size_of(part))
        parts.append(part)
    return "".join(parts)


def _strftime_now(form: str) -> str:
    if len(form) > _SHOWN or re.search(r"%[^a-zA-Z%]*\d", form):
        raise Fault("a date of unbounded width")
    return datetime.now().strftime(form)


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > _LONGEST_SOURCE:
        given = f"{len(source)} characters"
        raise ChatTemplateError("The chat template is too long.", given=given, expected=f"at most {_LONGEST_SOURCE}")
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        too_deep = isinstance(error, RecursionError | MemoryError)  # the latter is what Python's own compiler raises
        given = "nested too deep" if too_deep else str(error)[:_SHOWN]
        raise ChatTemplateError("The chat template cannot be compiled.", given=given) from error


def _environment() -> _Environment:
    # Not optimized: nothing of the template is run before it is rendered, under the meter.
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        finalize=_finalized,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    filters = {**environment.filters, "tojson": _tojson, "indent": _indent, "join": _join}
    filters |= {"replace": _replace, "sum": _sum}
    environment.filters = {name: _bounded(name, plain) for name, plain in filters.items()}
    environment.tests = {name: _ticking(plain) for name, plain in environment.tests.items()}
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now, "namespace": _Namespace}
    environment.globals[_MADE] = _made
    environment.globals.pop("lipsum", None)
    return environment


def _ticking(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def ticking(*args: Any, **kwargs: Any) -> Any:
        current_meter().tick()
        return plain(*args, **kwargs)

    return ticking


def _bounded(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and result are measured."""

    @wraps(plain)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        meter, values = current_meter(), (*args, *kwargs.values())
        if name in _REFUSED_FILTERS:
            raise Fault(f"the filter {name}")
        if name in _NARROW_FILTERS and any(isinstance(value, int) and abs(value) > WIDEST for value in values):
            raise Fault(f"the filter {name} by more than {WIDEST}")
        if name == "format":
            check_percent(meter, str(args[0]), [*args[1:], *kwargs.values()])
        for value in values:
            meter.measure(value)
        meter.tick()
        return meter.made(plain(*args, **kwargs))

    return bounded


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """jinja2's filter with the size of its result checked first."""
    check_indent(current_meter(), str(s), width)
    return _PLAIN["indent"](s, width, first, blank)


@jinja2.pass_eval_context
def _join(context: Any, value: Any, d: str = "", attribute: Any = None) -> str:
    """jinja2's filter with the size of its result checked first."""
    return _PLAIN["join"](context, joined(current_meter(), d, value), d, attribute)


@jinja2.pass_eval_context
def _replace(context: Any, s: Any, old: str, new: str, count: int | None = None) -> str:
    """jinja2's filter with the size of its result checked first."""
    check_replace(current_meter(), str(s), old, new)
    return _PLAIN["replace"](context, s, old, new, count)


@jinja2.pass_environment
def _sum(environment: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    """jinja2's filter, of numbers alone: lists would be copied over and over."""
    if not isinstance(start, int | float):
        raise Fault("a sum that does not begin with a number")
    return _PLAIN["sum"](environment, iterable, attribute, start)


_PLAIN: Mapping[str, Callable[..., Any]] = jinja2.Environment().filters
