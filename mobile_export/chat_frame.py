"""What a chat template writes around messages, for devices that run no templates: ``chat.json`` of a bundle."""

from __future__ import annotations

from ..encoders.errors import ChatTemplateError
from ..encoders.text import Tokenizer

__all__ = ["CHAT_FRAME", "chat_frame"]

#: Its file in a bundle.
CHAT_FRAME = "chat.json"
# With spaces around them: a template that takes these away writes more than a frame.
_USER, _ANSWER, _AGAIN = "  <first question>  ", "  <first answer>  ", "  <second question>  "


def chat_frame(tokenizer: Tokenizer) -> dict[str, str] | None:
    """Texts ``before`` the first message, ``after`` each of the user's, ``between`` an answer and the next.

    None for a template that is no such frame, or where there is none.
    """
    if not tokenizer.has_chat_template:
        return None
    messages = [
        {"role": role, "content": text} for role, text in (("user", _USER), ("assistant", _ANSWER), ("user", _AGAIN))
    ]
    try:
        before, *rest = tokenizer.render_chat(messages[:1]).split(_USER)
        whole = tokenizer.render_chat(messages)
    except ChatTemplateError:
        return None
    between = whole.partition(_ANSWER)[2].partition(_AGAIN)[0]
    if len(rest) != 1 or whole != "".join((before, _USER, rest[0], _ANSWER, between, _AGAIN, rest[0])):
        return None
    return {"before": before, "after": rest[0], "between": between}
