"""What a line that begins with a slash does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from ...sdk import InvalidInputError
from .conversation import Attachment, Conversation
from .transcript import load_transcript, save_transcript

__all__ = ["HELP", "run_command"]


def run_command(conversation: Conversation, line: str) -> str:
    """Carries out a line such as ``/attach photo.jpg``, and returns what to tell the user.

    Raises:
        InvalidInputError: there is no such command, or it cannot be carried out.
        UnsupportedInputError: a file to attach is nothing that can be read.
    """
    name, _, argument = line.partition(" ")
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean {near[0]}? To say it to the model, begin with //" if near else "to say it, begin with //"
        raise InvalidInputError("There is no such command.", given=name, expected=", ".join(_COMMANDS), hint=hint)
    action, usage, _ = _COMMANDS[name]
    if not argument.strip() and usage.startswith("FILE"):
        raise InvalidInputError(f"{name} needs a file.", expected=f"{name} {usage}")
    return action(conversation, argument.strip())


def _attach(conversation: Conversation, argument: str) -> str:
    found = Attachment.of(_path(argument))
    if found.kind not in conversation.model.modalities:
        reads = ", ".join(conversation.model.modalities)
        raise InvalidInputError(f"This model reads no {found.kind}.", given=str(found.path), expected=reads)
    conversation.attached.append(found)
    return f"[{found.kind} {found.path.name} goes with your next question]"


def _save(conversation: Conversation, argument: str) -> str:
    path = _path(argument)
    if path.exists() and conversation.file != path.resolve():
        raise InvalidInputError(f"{path} exists.", hint="choose another name, or remove it first")
    save_transcript(conversation, path)
    conversation.file = path.resolve()
    return f"[{len(conversation.turns)} messages saved in {path}]"


def _load(conversation: Conversation, argument: str) -> str:
    path = _path(argument)
    load_transcript(conversation, path)
    conversation.file = path.resolve()
    return f"[{len(conversation.turns)} messages taken up from {path}]"


def _system(conversation: Conversation, argument: str) -> str:
    if argument:
        conversation.system = argument
    return f"[system message: {conversation.system or 'none'}]"


def _undo(conversation: Conversation, _: str) -> str:
    return "[the last turn is taken back]" if conversation.undo() else "[there is nothing to take back]"


def _clear(conversation: Conversation, _: str) -> str:
    conversation.clear()
    return "[a new conversation]"


def _stats(conversation: Conversation, _: str) -> str:
    info = conversation.model.engine.info
    lines = [f"model    {conversation.model.name}, {info.name}"]
    lines.append(f"context  {conversation.tokens()} of {info.context_length} tokens")
    for number, result in enumerate(conversation.results, start=1):
        usage, timings = result.usage, result.timings
        prompt = f"prompt {usage.prompt_tokens} tokens, {usage.cached_tokens} of them known already"
        answer = f"{usage.new_tokens} tokens, {timings.tokens_per_second:.1f} a second"
        lines.append(f"answer {number}: {prompt}; first token after {timings.first_token:.2f} s; {answer}")
    return "\n".join(lines)


def _help(_: Conversation, __: str) -> str:
    return HELP


def _path(argument: str) -> Path:
    """A path as a person types it, also in quotes as terminals paste it."""
    unquoted = (
        argument[1:-1] if len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "'\"" else argument
    )
    return Path(unquoted).expanduser()


_COMMANDS: dict[str, tuple[Callable[[Conversation, str], str], str, str]] = {
    "/attach": (_attach, "FILE", "a picture, sound, clip or text goes with your next question"),
    "/save": (_save, "FILE", "writes the conversation"),
    "/load": (_load, "FILE", "takes up a conversation that was saved"),
    "/system": (_system, "[TEXT]", "sets or shows the system message"),
    "/stats": (_stats, "", "tokens and seconds so far"),
    "/undo": (_undo, "", "takes the last turn back"),
    "/clear": (_clear, "", "begins a new conversation"),
    "/help": (_help, "", "this list"),
}

#: What /help shows.
HELP = "\n".join(
    [f"{f'{name} {usage}':<16} {told}" for name, (_, usage, told) in _COMMANDS.items()]
    + [
        f"{'/quit':<16} ends the chat, as the end of input does",
        'A line that ends with \\ goes on in the next; """ begins and ends a text of several lines;',
        "// says a line that begins with /.",
    ]
)
