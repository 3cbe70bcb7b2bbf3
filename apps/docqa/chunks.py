"""Documents to passages: along their structure, never across pages or sections, overlapping by whole sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from ...sdk import OptionError
from .document import Document
from .passages import Passage, document_id
from .sentences import sentence_spans

__all__ = ["TokenCounter", "passages_of"]

#: How many tokens an embedder makes of a text.
TokenCounter: TypeAlias = Callable[[str], int]

_CHARACTERS = 12  # each as many count as a token at least: tokenizers may take a word of any length for a single one
_CONTEXT = 4  # headings take at most this part of a passage's size


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence, a line of code or of a table, or a heading."""

    start: int
    end: int
    tokens: int
    page: int | None
    path: tuple[str, ...]  # headings, its own included
    heading: bool


def passages_of(document: Document, count_tokens: TokenCounter, *, size: int = 200, overlap: int = 1) -> list[Passage]:
    """A document's passages, in order.

    Every sentence is in one at least. A passage lies on one page and in one section; it begins with the section's
    heading where that stands before it.

    Args:
        document: what has been read.
        count_tokens: the embedder's.
        size: most tokens of a passage. Headings that are embedded with it come on top, with a quarter of it at most.
        overlap: sentences that a passage shares with the one before it in the same section.

    Raises:
        OptionError: a size below 8, or an overlap below 0.
    """
    if size < 8 or overlap < 0:
        raise OptionError("Passages of this size are none.", given=f"size={size}, overlap={overlap}", expected="8, 0")
    special = count_tokens("")
    units = list(_units(document, lambda text: count_tokens(text) - special, size))
    identity = document_id(document.source)
    return [
        Passage(
            document=identity,
            ordinal=ordinal,
            text=document.text[group[0].start : group[-1].end],
            start=group[0].start,
            end=group[-1].end,
            page=group[0].page,
            headings=_context(group[-1].path, count_tokens, size // _CONTEXT),
            name=document.name,
            source=document.source,
            format=document.format,
            digest=document.digest,
            made_by=document.made_by,
        )
        for ordinal, group in enumerate(_groups(units, size, overlap))
    ]


def _units(document: Document, count: TokenCounter, size: int) -> Iterator[_Unit]:
    path: list[tuple[int, str]] = []
    for block, start in zip(document.blocks, document.starts, strict=True):
        heading = block.kind == "heading"
        if heading:
            path = [(level, text) for level, text in path if level < block.level]
            path.append((block.level, " ".join(block.text.split())))
        spans = sentence_spans(block.text) if block.kind == "paragraph" else _lines(block.text)
        for left, right in [(0, len(block.text.rstrip()))] if heading else spans:
            for first, last, tokens in _fitting(block.text, left, right, count, size):
                names = tuple(text for _, text in path)
                yield _Unit(start + first, start + last, tokens, block.page, names, heading)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.split("\n"):
        if line.strip():
            yield start, start + len(line.rstrip())
        start += len(line) + 1


def _fitting(text: str, start: int, end: int, count: TokenCounter, size: int) -> Iterator[tuple[int, int, int]]:
    """A span with its tokens, in halves as often as it takes to fit."""
    least = -(-(end - start) // _CHARACTERS)
    tokens = max(least, count(text[start:end])) if least <= size else least
    if tokens <= size or end - start < 2:
        yield start, end, tokens
        return
    middle = (start + end) // 2
    blank = max(text.rfind(mark, start + 1, middle) for mark in (" ", "\n", "\t"))
    cut = blank if blank > (start + middle) // 2 else middle
    yield from _fitting(text, start, cut, count, size)
    after = cut + len(text[cut:end]) - len(text[cut:end].lstrip())
    if after < end:
        yield from _fitting(text, after, end, count, size)


def _groups(units: list[_Unit], size: int, overlap: int) -> Iterator[list[_Unit]]:
    group: list[_Unit] = []
    for before, unit in pairwise([None, *units]):
        assert unit is not None
        full = sum(each.tokens for each in group) + unit.tokens > size
        if before is not None and group and (full or _apart(before, unit)):
            yield group
            group = [] if _apart(before, unit) else _kept(group, unit, size, overlap)
        group.append(unit)
    if group:
        yield group


def _apart(before: _Unit, unit: _Unit) -> bool:
    """Whether a page or a section ends between two units; a heading right below another one stays with it."""
    return before.page != unit.page or (unit.heading and not before.heading)


def _kept(group: list[_Unit], unit: _Unit, size: int, overlap: int) -> list[_Unit]:
    """The last sentences of a passage, as far as the next one has room for them beside its first."""
    kept = group[len(group) - overlap :] if overlap < len(group) else []
    room = min(size // _CONTEXT, size - unit.tokens)
    while kept and (kept[0].heading or sum(each.tokens for each in kept) > room):
        kept = kept[1:]
    return kept


def _context(path: tuple[str, ...], count: TokenCounter, most: int) -> tuple[str, ...]:
    """The innermost headings that fit; the text itself holds all of them."""
    while path and count(" > ".join(path)) > most:
        path = path[1:]
    return path
