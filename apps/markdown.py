"""Answers in Markdown, formatted while they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .terminal import print_answer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_markdown", "split_blocks"]

_FENCES = ("```", "~~~")
_A_SECOND = 8  # times that the block which is being written is drawn


def print_markdown(pieces: Iterable[str]) -> None:
    """An answer on standard output: formatted at a terminal that can, as it is elsewhere.

    Whole blocks are printed for good, and only the one that is being written is drawn again and again.
    """
    if not sys.stdout.isatty():
        print_answer(pieces)
        return
    from rich.console import Console

    console = Console()
    if console.is_dumb_terminal:
        print_answer(pieces)
    else:
        _draw(pieces, console)


def _draw(pieces: Iterable[str], console: Console) -> None:
    from rich.live import Live
    from rich.markdown import Markdown

    left = ""
    with Live(console=console, transient=True, refresh_per_second=_A_SECOND, vertical_overflow="visible") as live:
        try:
            for piece in pieces:
                blocks, left = split_blocks(left + piece)
                for block in blocks:
                    live.console.print(Markdown(block), "")
                live.update(Markdown(left))
        finally:
            live.update("")
            if left.strip():
                live.console.print(Markdown(left))


def split_blocks(text: str) -> tuple[list[str], str]:
    """The blocks of a text that are complete, and the rest; an empty line ends a block, but not inside of a fence."""
    blocks: list[str] = []
    lines: list[str] = []
    fence: str | None = None
    whole, newline, last = text.rpartition("\n")
    for line in whole.split("\n") if newline else []:
        mark = line.lstrip()[:3]
        if mark in _FENCES and fence in (None, mark):
            fence = None if fence else mark
        lines.append(line)
        if not line.strip() and fence is None:
            block = "\n".join(lines[:-1])
            blocks += [block] if block.strip() else []
            lines = []
    return blocks, "\n".join([*lines, last])
