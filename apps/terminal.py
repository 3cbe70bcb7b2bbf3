"""Reading from and writing to a terminal."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..sdk import InvalidInputError, Part, Result, Text, read_part
from ..sdk.content import text_of

__all__ = [
    "human_bytes",
    "human_count",
    "print_answer",
    "print_json",
    "print_table",
    "read_line",
    "read_stdin",
    "timing_line",
    "waiting",
]

_LARGEST_INPUT = 16 << 20  # bytes of a line
_LARGEST_MEDIA = 512 << 20  # bytes


def read_stdin() -> Part:
    """Standard input: text, an image, a sound or a clip, as its content says.

    Raises:
        InvalidInputError: it is empty or too large.
        UnsupportedInputError: it is nothing that can be read.
    """
    data = sys.stdin.buffer.read(_LARGEST_MEDIA + 1)
    if len(data) > _LARGEST_MEDIA:
        raise InvalidInputError("Standard input is too large.", expected=f"at most {_LARGEST_MEDIA} bytes")
    if not data.strip():
        raise InvalidInputError("standard input is empty.", given=f"{len(data)} bytes", expected="some text")
    part = read_part(data, name="standard input")
    return part.text if isinstance(part, Text) else part


def read_line(*, prompt: str = "> ", blank: bool = False) -> str | None:
    """The next line of standard input, or None at its end; a person is shown a prompt.

    Args:
        prompt: that a person is shown.
        blank: whether a blank line counts; else it is passed over, and lines have no space around them.

    Raises:
        InvalidInputError: the line is too long.
        UnsupportedInputError: it is no UTF-8 text.
    """
    while True:
        if sys.stdin.isatty():
            line = _typed_line(prompt)
        else:
            line = sys.stdin.buffer.readline(_LARGEST_INPUT + 1)
        if not line:
            return None
        if len(line) > _LARGEST_INPUT:
            raise InvalidInputError("A line is too long.", expected=f"at most {_LARGEST_INPUT} bytes")
        if blank:
            return text_of(line, "standard input").rstrip("\r\n") if line.strip() else ""
        if line.strip():
            return text_of(line, "standard input").strip()


def _typed_line(prompt: str) -> bytes:
    """A line from the terminal, its end included, with the keys for editing where Python has them."""
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    if not sys.stdout.isatty():  # Python would write the prompt among the answers
        print(prompt, end="", file=sys.stderr, flush=True)
        return sys.stdin.buffer.readline(_LARGEST_INPUT + 1)
    try:
        return input(prompt).encode("utf-8", "surrogateescape") + b"\n"
    except EOFError:
        return b""


@contextlib.contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """Tells a person at a terminal what is waited for, and takes it away again; silent elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def print_answer(pieces: Iterable[str]) -> None:
    """An answer on standard output, piece by piece; its line is ended also where it breaks off."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except BrokenPipeError:
        raise
    except BaseException:
        print(flush=True)
        raise
    print(flush=True)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output, in ASCII where the terminal is not UTF-8."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not unicode, allow_nan=False))


def print_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell, plain, so that other programs can read them."""
    table = [*([header] if header else []), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def human_bytes(count: int) -> str:
    """1234567 → ``1.2 MB``."""
    value, unit = float(count), 0
    while value >= 1000 and unit < 4:
        value, unit = value / 1000, unit + 1
    name = ("bytes", "kB", "MB", "GB", "TB")[unit]
    return f"{value:.0f} {name}" if unit == 0 else f"{value:.1f} {name}"


def human_count(count: int) -> str:
    """134515008 → ``134.5 million``."""
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return str(count)


def timing_line(result: Result) -> str:
    """Tokens, seconds and speed of one answer."""
    usage, timings = result.usage, result.timings
    return (
        f"[prompt {usage.prompt_tokens} tokens, first token after {timings.first_token:.2f} s; answer "
        f"{usage.new_tokens} tokens, {timings.tokens_per_second:.1f} a second; {timings.total:.2f} s in all]"
    )
