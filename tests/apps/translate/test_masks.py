"""Placeholders: what is masked, what is put back, and how marks that were lost are told and mended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensorium.apps.translate.formats import cut
from sensorium.apps.translate.formats.markdown_inline import PROTECTED
from sensorium.apps.translate.masks import fault_of, mask, mended, pieces_between

ALPHABET = st.text(alphabet="ab {}1%$s()<>/`*_[]|\\!&;:@.-", max_size=40)


@given(ALPHABET | st.text())
def test_what_was_masked_is_put_back(text: str) -> None:
    for protected in (None, PROTECTED):
        masked = mask(text, protected)
        assert masked.restore(masked.text) == text
        assert fault_of(masked.text, masked.text, masked.ordered) is None
        assert "".join(pieces_between(masked.text)) == masked.text == "".join(masked.peeled())
        assert masked.snug(masked.text) == masked.text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Dear {name}, {0} and {} of {count:>5,d}", ("{name}", "{0}", "{}", "{count:>5,d}")),
        ("%s of %(x)d, %1$s, %05.2f, 100% sure, 50%", ("%s", "%(x)d", "%1$s", "%05.2f")),
        ("${HOME} and {{ user.name }} {% if x %}", ("${HOME}", "{{ user.name }}", "{% if x %}")),
        ("See https://a.org/b?c=d, or me.too@a-b.co.uk.", ("https://a.org/b?c=d", "me.too@a-b.co.uk")),
        ("Run `a {b}` or ``c ` d``", ("`a {b}`", "``c ` d``")),
        ('<i class="x">Tom</i> &amp; Ann<br/>', ('<i class="x">', "</i>", "&amp;", "<br/>")),
        ("a < b and {not a placeholder} > c", ()),
        ("already {1}", ("{1}",)),
        ("{n, plural, one {# {x}} other {# files}} left", ("{n, plural, one {# {x}} other {# files}}",)),
    ],
)
def test_what_every_format_keeps(text: str, kept: tuple[str, ...]) -> None:
    assert mask(text).kept == kept


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("**bold** and *it*", "{1}bold{2} and {3}it{4}"),
        ("snake_case and 2 * 3 * 4", "snake_case and 2 * 3 * 4"),
        ("[a page](x.md 'T') and ![picture](y(1).png)", "{1}a page{2} and {3}picture{4}"),
        ("[a][ref] b[^1] \\* c", "{1}a{2} b{3} {4} c"),
    ],
)
def test_what_markdown_keeps(text: str, masked: str) -> None:
    assert mask(text, PROTECTED).text == masked


def test_a_reference_to_a_definition_is_kept_as_a_whole() -> None:
    document = cut("See [The Page], [the page][] and [here][the page], not [a b].\n\n[the page]: x.md\n", "markdown")
    masked = mask(document.segments[0].text, document.protected)
    assert masked.text == "See {1}, {2} and {3}here{4}, not [a b]." and masked.kept[0] == "[The Page]"


def test_what_subtitles_keep() -> None:
    document = cut("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi <00:01.500>there {\\an8}♪\n", "vtt")
    assert mask(document.segments[0].text, document.protected).text == "{1}Hi {2}there {3}{4}"


@pytest.mark.parametrize(
    ("source", "translation", "ordered", "fault"),
    [
        ("{1} a {2}", "b {2} c {1}", set(), None),
        ("{1} a {2}", "b {2} c {1}", {1, 2}, "order"),
        ("{1} a {2}", "b {1}", set(), "lost 1 of 2"),
        ("{1} a", "{1} b {1}", set(), "added 1"),
        ("a", "b {1}", set(), "added 1"),
    ],
)
def test_faults(source: str, translation: str, ordered: set[int], fault: str | None) -> None:
    found = fault_of(source, translation, frozenset(ordered))
    assert found is None if fault is None else fault in (found or "")


@pytest.mark.parametrize(
    ("source", "translation", "expected"),
    [
        ("{1} a", "{1} b {1} {7}", "{1} b"),
        ("{1}{2} a {3}", "b", "{1}{2} b {3}"),
        ("{1}a{2}", "b", "{1}b{2}"),
        ("a {1} b", "c", "c"),
        ("{1}", "c", "{1}c"),
    ],
)
def test_mended(source: str, translation: str, expected: str) -> None:
    assert mended(source, translation) == expected


@pytest.mark.parametrize(
    ("text", "peeled"),
    [
        ("<i>Who is there?</i>", ("{1}", "Who is there?", "{2}")),
        ("<v Ann> Hello {name}", ("{1} ", "Hello {2}", "")),
        ("<b>A</b> and B", ("", "{1}A{2} and B", "")),
        ("<i><b>A</b> or B</i>", ("{1}", "{2}A{3} or B", "{4}")),
        ("{name}, hello %s", ("", "{1}, hello {2}", "")),
        ("Hello<br>", ("", "Hello", "{1}")),
    ],
)
def test_what_stands_around_the_whole_is_not_shown(text: str, peeled: tuple[str, str, str]) -> None:
    assert mask(text).peeled() == peeled


@pytest.mark.parametrize(
    ("text", "translation", "expected"),
    [
        ("a **new** cat", "un {1} nouveau {2} chat", "un **nouveau** chat"),
        ("a **new** cat", "un{1} nouveau{2} chat", "un **nouveau** chat"),
        ("a **new** cat", "un {1}nouveau {2}chat", "un **nouveau** chat"),
        ("a ***new*** [b](c) cat", "un {1} neuf {2} {3} b {4} chat", "un ***neuf*** [b](c) chat"),
        ("a<br>b of %s", "c {1} d de {2}", "c <br> d de %s"),
        ("**a** b", "c {1}d {2}", "c **d**"),
        ("(**a**) b", "({1} c {2}) d", "(**c**) d"),
    ],
)
def test_marks_stand_close_to_their_words(text: str, translation: str, expected: str) -> None:
    masked = mask(text, PROTECTED)
    assert masked.restore(masked.snug(translation)) == expected


def test_very_many_placeholders() -> None:
    text = "%s " * 1_100_000
    masked = mask(text)
    assert len(masked.kept) == 1_100_000 and masked.restore(masked.text) == text
