"""A conversation at a terminal or over a pipe: reads turns, prints answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ...sdk import Result, SensoriumError
from ..markdown import print_markdown
from ..terminal import read_line
from .commands import run_command
from .conversation import Conversation

__all__ = ["converse"]

_ENDINGS = ("/quit", "/exit")
_BLOCK = '"""'


def converse(conversation: Conversation) -> Iterator[Result | None]:
    """Reads turns from standard input and prints the answers, until /quit, /exit or the end of input.

    Blank lines are passed over; a line that ends with a backslash goes on in the next one, and three quotation marks
    begin and end a text of several lines. What is refused is told on standard error, and the conversation goes on; a
    person's Ctrl-C ends an answer.

    Args:
        conversation: with the model.

    Yields:
        The result of each turn after its answer was printed; None for a turn that was refused.
    """
    while (turn := _read()) is not None:
        try:
            if turn.startswith("/") and not turn.startswith("//"):
                print(run_command(conversation, turn), file=sys.stderr)
            elif _answered(conversation, turn.removeprefix("/") if turn.startswith("//") else turn):
                yield conversation.results[-1]
        except SensoriumError as error:
            print(f"Error: {error}", file=sys.stderr)
            yield None


def _answered(conversation: Conversation, text: str) -> bool:
    """Prints the answer; False where it was ended by the user."""
    pieces = conversation.say(text)
    try:
        print_markdown(pieces)
    except KeyboardInterrupt:
        pieces.close()
        if not sys.stdin.isatty():
            raise
        print("[ended; what was said so far is kept]", file=sys.stderr)
        return False
    return True


def _read() -> str | None:
    """The next turn, or None at the end."""
    line = read_line()
    if line is None or line in _ENDINGS:
        return None
    if line.startswith(_BLOCK):
        return _block(line.removeprefix(_BLOCK))
    lines = [line]
    while lines[-1].endswith("\\") and not line.startswith("/"):
        lines[-1] = lines[-1][:-1]
        lines.append(read_line(prompt="… ", blank=True) or "")
    return "\n".join(lines)


def _block(first: str) -> str | None:
    lines: list[str] = [first] if first else []
    while not (lines and lines[-1].endswith(_BLOCK)):
        if (line := read_line(prompt="… ", blank=True)) is None:
            break
        lines.append(line)
    return "\n".join(lines).removesuffix(_BLOCK).strip("\n")
