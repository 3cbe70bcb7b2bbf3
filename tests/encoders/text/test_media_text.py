"""Media between texts: where their placeholders come to stand, and that no text can take their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sensorium.encoders.errors import ChatTemplateError, InvalidInputError
from sensorium.encoders.text import MediaText, SpecialTokens, Tokenizer
from sensorium.encoders.text.messages import in_parts, placed, with_media
from tokenizers import AddedToken

# Writes what stands for a picture or a sound itself.
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% else %}<{{ part.type }}>{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
)
PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
PICTURE = MediaText("image", "<image>", "<image><image>;<image>", "<image>")
SOUND = MediaText("audio", "<audio>", "[<audio>]", "<audio>")
UNMARKED = MediaText("image", "", "(<image>)", "<image>")
IMAGE, AUDIO = {"type": "image"}, {"type": "audio"}
Make = Callable[..., Tokenizer]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.fixture(scope="module")
def make(trained: Callable[[str], Any]) -> Make:
    """A byte-level tokenizer whose ``<image>`` and ``<audio>`` are control tokens or merely added ones."""
    known: dict[tuple[str, bool], Tokenizer] = {}

    def build(template: str = MARKED, *, special: bool = True) -> Tokenizer:
        if (template, special) not in known:
            backend = trained("gpt2").backend
            tokens = [AddedToken(name, special=special, normalized=False) for name in ("<image>", "<audio>")]
            backend.add_special_tokens(tokens) if special else backend.add_tokens(tokens)
            known[template, special] = Tokenizer(backend, chat_template=template)
        return known[template, special]

    return build


def shown(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """Text of tokens in which those that hold a place are ``@`` (image) and ``%`` (audio)."""
    names = {tokenizer.token_id("<image>"): "@", tokenizer.token_id("<audio>"): "%"}
    out, left = "", list(tokens)
    while left:
        end = next((at for at, token in enumerate(left) if token in names), len(left))
        out += tokenizer.decode(left[:end], skip_special=False)
        out += names[left[end]] if end < len(left) else ""
        left = left[end + 1 :]
    return out


# Messages for templates


def test_marked_media_stay_parts_and_unmarked_ones_become_text() -> None:
    messages = user("One", IMAGE, text("two"))
    assert with_media(messages, [PICTURE], str) == user(text("One"), IMAGE, text("two"))
    assert with_media(messages, [UNMARKED], lambda number: f"#{number}") == [{"role": "user", "content": "One#0two"}]


def test_messages_of_text_stay_as_they_are() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *user(IMAGE)]
    assert with_media(messages, [PICTURE], str) == messages
    assert in_parts(messages)[0]["content"] == [text("Be brief.")] and in_parts(messages)[1] == messages[1]


@pytest.mark.parametrize(
    ("parts", "media"),
    [((IMAGE,), []), ((text("x"),), [PICTURE]), ((IMAGE, AUDIO), [SOUND, PICTURE]), ((IMAGE,), [PICTURE, PICTURE])],
)
def test_other_media_than_parts_are_refused(parts: Any, media: list[MediaText]) -> None:
    with pytest.raises(InvalidInputError, match="do not match"):
        with_media(user(*parts), media, str)


# Layouts in the places of marks


def test_layouts_take_the_marks_places_in_order() -> None:
    other = MediaText("image", "<image>", "second")
    assert placed("a <image> b <audio> c <image>.", [PICTURE, SOUND, other], str) == (
        "a <image><image>;<image> b [<audio>] c second."
    )
    assert placed("a #0 b #1", [UNMARKED, UNMARKED], lambda number: f"#{number}") == "a (<image>) b (<image>)"


@pytest.mark.parametrize("rendered", ["", "<image>", "<audio> <image>", "<image> <audio> <image>"])
def test_a_template_writes_each_medium_once_in_order(rendered: str) -> None:
    with pytest.raises(ChatTemplateError):
        placed(rendered, [PICTURE, SOUND], str)


@pytest.mark.parametrize("special", [True, False])
def test_a_conversation_with_media(make: Make, special: bool) -> None:
    tokenizer = make(special=special)
    tokens = tokenizer.encode_media_chat(user(text("One"), IMAGE, text("two"), AUDIO), [PICTURE, SOUND])
    assert shown(tokenizer, tokens) == "<|im_start|>user\nOne@@;@two[%]<|im_end|>\n"
    assert tokens[0] == tokenizer.token_id("<|im_start|>")


def test_a_template_of_texts_alone(make: Make) -> None:
    tokenizer = make(PLAIN)
    tokens = tokenizer.encode_media_chat(user(text("One "), IMAGE, text(" two"), IMAGE), [UNMARKED, UNMARKED])
    assert shown(tokenizer, tokens) == "user: One (@) two(@)\n"


def test_a_layout_that_is_its_mark_keeps_its_control_tokens(make: Make) -> None:
    """As Qwen 2 VL's picture of one place: a mark of three tokens."""
    whole = "<|im_start|><image><|im_end|>"
    tokenizer = make(MARKED.replace("<{{ part.type }}>", whole))
    tokens = tokenizer.encode_media_chat(user(IMAGE, text(whole)), [MediaText("image", whole, whole, "<image>")])
    assert [tokens.count(tokenizer.token_id(name)) for name in ("<image>", "<|im_start|>")] == [1, 2]  # type: ignore[arg-type]
    assert tokenizer.decode(tokens, skip_special=False).count(whole) == 2


# Spoofing


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", ["<image>", "<audio>"])
def test_a_text_cannot_take_a_place(make: Make, special: bool, name: str) -> None:
    tokenizer = make(special=special)
    messages = [{"role": "system", "content": f"{name}!"}, *user(text(f"{name} {name}"), IMAGE, text(name), AUDIO)]
    tokens = tokenizer.encode_media_chat(messages, [PICTURE, SOUND])
    beginning = f"<|im_start|>system\n{name}!<|im_end|>\n<|im_start|>user\n"
    assert shown(tokenizer, tokens) == f"{beginning}{name} {name}@@;@{name}[%]<|im_end|>\n"


@pytest.mark.parametrize("mark", ["(picture)", "<image>", "[[image]]"])
def test_nor_where_the_mark_is_no_token(trained: Callable[[str], Any], mark: str) -> None:
    backend = trained("gpt2").backend
    backend.add_tokens([AddedToken("<hold>", special=False, normalized=False)])
    tokenizer = Tokenizer(backend, chat_template=MARKED.replace("<{{ part.type }}>", mark))
    picture = MediaText("image", mark, "<hold><hold>", "<hold>")
    tokens = tokenizer.encode_media_chat(user(text(f"{mark} <hold>"), IMAGE), [picture])
    assert tokens.count(tokenizer.token_id("<hold>")) == 2  # type: ignore[arg-type]
    assert tokenizer.decode(tokens, skip_special=False) == f"<|im_start|>user\n{mark} {'<hold>' * 3}<|im_end|>\n"


_PIECES = st.sampled_from(["<image>", "<im", "age>", "<", ">", "a", " ", "<|im_end|>", "image"])
_TEXTS = st.lists(_PIECES, max_size=5).map("".join)


@settings(max_examples=80, deadline=None)
@given(before=_TEXTS, between=_TEXTS, after=_TEXTS, special=st.booleans())
@example(before="<im", between="age>", after="", special=False)
@example(before="<image>", between="<image", after=">", special=True)
def test_no_texts_beside_media_make_a_place(make: Make, before: str, between: str, after: str, special: bool) -> None:
    tokenizer = make(special=special)
    chat = user(text(before), text(between), IMAGE, text(after))
    expected = f"{before}{between}@@;@{after}"
    assert shown(tokenizer, tokenizer.encode_media_chat(chat, [PICTURE])) == f"<|im_start|>user\n{expected}<|im_end|>\n"
    assert shown(tokenizer, tokenizer.encode_media_text([before, between, PICTURE, after])) == expected


def test_a_later_conversation_reads_its_own_marks(make: Make) -> None:
    """What is guarded beside one kind of media is plain beside another."""
    tokenizer = make(special=False)
    for _ in range(2):
        for medium, part, other in ((PICTURE, IMAGE, "<audio>"), (SOUND, AUDIO, "<image>")):
            tokens = tokenizer.encode_media_chat(user(text(other + medium.mark), part), [medium])
            own = tokenizer.token_id(medium.mark)
            assert tokens.count(own) == medium.layout.count(medium.mark)  # type: ignore[arg-type]


def test_other_added_tokens_are_read_as_ever(trained: Callable[[str], Any]) -> None:
    """Gemma's layouts have lines in them that are added tokens, which user's texts have as well."""
    tokenizer = Tokenizer(trained("qwen2").backend, chat_template=PLAIN)
    assert tokenizer.token_id("\n\n\n\n") is not None
    words = "a\n\n\n\nb<think>"
    tokens = tokenizer.encode_media_text([words, MediaText("image", "", "\n\n\n\n<think>")])
    assert tokens[:-2] == tokenizer.encode(words) and tokens[-2:] == tokenizer.encode("\n\n\n\n<think>")


# What stands before a text


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("written", [True, False])
def test_chats_begin_as_they_should(trained: Callable[[str], Any], begins: bool, written: bool) -> None:
    backend = trained("llama3").backend  # puts <|endoftext|> before every text
    template = PLAIN if not written else "{{ bos_token }}" + PLAIN
    special = SpecialTokens(bos="<|endoftext|>")
    tokenizer = Tokenizer(backend, special=special, chat_template=template, begins_chats=begins)
    begin = tokenizer.token_id("<|endoftext|>")
    for tokens in (
        tokenizer.encode_chat([{"role": "user", "content": "Hi"}]),
        tokenizer.encode_chat([{"role": "user", "content": "<|im_end|>"}]),
        tokenizer.encode_media_chat(user(IMAGE), [MediaText("image", "", "x")]),
    ):
        assert tokens.count(begin) == int(begins or written) == int(tokens[0] == begin)  # type: ignore[arg-type]
    assert tokenizer.encode_media_text(["x"])[0] == begin


@pytest.mark.parametrize("content", ["Hi", [{"type": "text", "text": "Hi"}]])
def test_templates_that_read_parts_alone_lose_no_text(make: Make, content: Any) -> None:
    parts_alone = (
        "{% for message in messages %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}"
    )
    tokenizer = make(parts_alone)
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": content}])) == "Hi"
    assert tokenizer.render_chat([{"role": "user", "content": content}]) == "Hi"
