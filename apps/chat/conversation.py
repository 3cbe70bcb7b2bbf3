"""A conversation, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator

from ...sdk import Message, Model, Options, Result
from ..terminal import print_answer, read_line

__all__ = ["converse"]

_ENDINGS = ("/quit", "/exit")


def converse(model: Model, *, system: str | None, options: Options) -> Iterator[Result]:
    """Reads turns from standard input and prints the answers, until /quit, /exit or the end of input.

    Blank lines are passed over.

    Nothing of the history is ever dropped: a conversation that outgrows the context ends with an error that says so.

    Args:
        model: answers.
        system: a system message, or None.
        options: of generation.

    Yields:
        The result of each turn, after its answer was printed.
    """
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    while (turn := _read()) is not None:
        messages.append({"role": "user", "content": turn})
        answer = model.stream(messages, **options)
        print_answer(answer)
        messages.append({"role": "assistant", "content": answer.result.text})
        yield answer.result


def _read() -> str | None:
    """The next turn, or None at the end."""
    turn = read_line()
    return None if turn in _ENDINGS else turn
