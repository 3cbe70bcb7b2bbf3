"""Reading from and writing to a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from ..sdk import InvalidInputError, Result, Text
from ..sdk.content import text_of

__all__ = ["human_bytes", "human_count", "print_json", "print_table", "read_stdin", "timing_line"]

_LARGEST_INPUT = 16 << 20  # bytes


def read_stdin() -> Text:
    """Standard input as text.

    Raises:
        InvalidInputError: it is empty or too large.
        UnsupportedInputError: it is no UTF-8 text.
    """
    data = sys.stdin.buffer.read(_LARGEST_INPUT + 1)
    if len(data) > _LARGEST_INPUT:
        raise InvalidInputError("Standard input is too large.", expected=f"at most {_LARGEST_INPUT} bytes")
    return Text(text_of(data, "standard input"))


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output, in ASCII where the terminal is not UTF-8."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not unicode))


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
        f"[prompt {usage.prompt_tokens} tokens, first token {timings.first_token:.2f} s; "
        f"answer {usage.new_tokens} tokens, {timings.tokens_per_second:.1f} a second; total {timings.total:.2f} s]"
    )
