"""Stop texts: found wherever the pieces' borders lie, and never let through in part."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensorium import sdk
from sensorium.sdk.stopping import StopText
from sensorium.sdk.testing import fake_model


def passed(pieces: Sequence[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    """What comes through piece by piece, with what is left at the end, and the stop text that was found."""
    stop = StopText(stops)
    out = [stop.push(piece) for piece in pieces]
    return [*out, stop.finish()], stop.found


def by_definition(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The answer and its stop text, looked for in each beginning of the text."""
    for end in range(1, len(text) + 1):
        there = [stop for stop in stops if text[:end].endswith(stop)]
        if there:
            longest = max(there, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize(
    ("text", "stops", "answer", "found"),
    [
        ("one STOP two", ["STOP"], "one ", "STOP"),
        ("STOP", ["STOP"], "", "STOP"),
        ("no such", ["STOP"], "no such", None),
        ("almost STO", ["STOP"], "almost STO", None),
        ("aaab", ["aab"], "a", "aab"),  # a false start inside the match
        ("abababc", ["ababc"], "ab", "ababc"),
        ("xabcd", ["bc", "abcd"], "xa", "bc"),  # complete first, though it begins later
        ("xabc", ["bc", "abc"], "x", "abc"),  # complete together: the longer one
        ("abc", ["abc", "ab"], "", "ab"),
        ("a\n\nb", ["\n\n", "\n"], "a", "\n"),
        ("né😀!", ["😀"], "né", "😀"),
        ("text", [], "text", None),
    ],
)
def test_examples(text: str, stops: list[str], answer: str, found: str | None) -> None:
    for pieces in ([text], list(text), [text[:2], text[2:]]):
        out, stop = passed(pieces, stops)
        assert ("".join(out), stop) == (answer, found), pieces
    assert by_definition(text, stops) == (answer, found)


letters = st.text("ab", max_size=14)


@settings(max_examples=400, deadline=None)
@given(st.lists(letters, max_size=8), st.lists(st.text("ab", min_size=1, max_size=5), max_size=4))
def test_borders_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    out, found = passed(pieces, stops)
    assert ("".join(out), found) == by_definition("".join(pieces), stops)


@settings(max_examples=400, deadline=None)
@given(st.lists(letters, max_size=8), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4))
def test_nothing_is_let_out_that_may_become_a_stop(pieces: list[str], stops: list[str]) -> None:
    stop, out, seen = StopText(stops), "", ""
    for piece in pieces:
        seen, out = seen + piece, out + stop.push(piece)
        if stop.found is None:
            # Whatever follows, the answer begins with what is out; and nothing is held back without need.
            held = seen[len(out) :]
            assert all(by_definition(seen + end, stops)[0].startswith(out) for end in ("", *stops))
            assert held == "" or any(text.startswith(held) for text in stops)


def test_after_the_stop_nothing_comes() -> None:
    stop = StopText(["b"])
    assert [stop.push("ab"), stop.push("a"), stop.push("b"), stop.finish()] == ["a", "", "", ""]


@pytest.mark.parametrize("text", ["The end. Not this", "Yes.\n\nUser: more", "caf\u00e9 \U0001f600 fin"])
@pytest.mark.parametrize("stop", [["end. "], ["\n\nUser:", "\n\n\n"], ["\u00e9 \U0001f600"], ["N", "U", "f"]])
def test_streams_of_single_bytes_never_leak(text: str, stop: list[str]) -> None:
    model = fake_model(text)
    answer = model.stream("?", stop=stop)
    pieces = list(answer)
    expected, found = by_definition(text, stop)
    assert "".join(pieces) == answer.result.text == expected
    assert (answer.result.stop, answer.result.finish_reason) == (found if found is not None else 256, "stop")
    assert model.ask("?", stop=stop).text == expected
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_stop_text_at_the_limit_counts_as_a_stop() -> None:
    result = fake_model("abcdef").ask("?", stop="de", max_new_tokens=5)
    assert (result.text, result.finish_reason, result.stop, result.usage.new_tokens) == ("abc", "stop", "de", 5)
    result = fake_model("abcdef").ask("?", stop="de", max_new_tokens=4)
    assert (result.text, result.finish_reason, result.stop) == ("abcd", "length", None)


def test_a_beginning_held_back_comes_when_the_answer_ends() -> None:
    pieces = list(fake_model("abcd").stream("?", stop=["cde", "bcx"]))
    assert pieces == ["a", "b", "cd"]


def test_half_a_character_at_the_limit_is_told_as_such() -> None:
    model = fake_model("a\U0001f600")
    answer = model.stream("?", max_new_tokens=3)
    assert list(answer) == ["a", "\ufffd"]
    assert answer.result.text == model.tokenizer.decode(answer.result.tokens) == "a\ufffd"


def test_stop_tokens_end_without_being_part_of_the_answer() -> None:
    result = fake_model("abcabc").ask("?", stop_tokens=ord("c"))
    assert (result.text, result.tokens, result.stop) == ("ab", (97, 98), 99)
    assert (result.finish_reason, result.usage.new_tokens) == ("stop", 2)


def test_the_model_s_own_end_is_a_stop() -> None:
    result = fake_model("").ask("?")
    assert (result.text, result.tokens, result.stop, result.finish_reason) == ("", (), 256, "stop")
    assert isinstance(result, sdk.Result)
