"""Placeholders, tags, code, addresses: masked before a model sees them, put back after."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["MARK", "Masked", "fault_of", "mask", "mended", "pieces_between"]

#: How a masked place is shown to a model: {1}, {2}, ….
MARK = re.compile(r"\{(\d{1,8})\}")
_FIRST = re.compile(r"\s*\{(\d{1,8})\}\s*")
_LAST = re.compile(r"(?<!\s)\s*\{(\d{1,8})\}\s*\Z")
_MOST_PEELED = 16  # tags on either side; each takes another look at the text
_AHEAD, _BEHIND = re.compile(r"\{(\d{1,8})\}\s+"), re.compile(r"(?<!\s)\s+\{(\d{1,8})\}")
_TICKS = re.compile(r"`+")
# Every repetition is bounded, or ends at a character that begins another one: no text takes quadratic time.
_FREE = (
    # ICU's {count, plural, one {# file} other {# files}} as a whole: half of it would be no message any more.
    r"\{\w{1,60},\s{0,5}(?:plural|select|selectordinal)\s{0,5},(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,200}\}){0,400}\}){0,2000}\}|"
    r"\{\{[^{}\n]{0,200}\}\}|\{%[^{}\n]{0,200}%\}|\$?\{[^{}\s]{0,100}\}"  # {{ x }}, {% x %}, ${x}, {name:>5}
    r"|%(?:\(\w{1,100}\)|\d{1,3}\$)[-+#0]{0,4}\d{0,4}(?:\.\d{1,4})?[diouxXeEfFgGcrsa@]"  # %(x)d, %1$s
    r"|(?:https?|ftp|file|mailto)://[^\s<>()\[\]\"'`{}|]*[^\s<>()\[\]\"'`{}|.,;:!?]"
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
)
_ORDERED = (
    r"%[-+#0]{0,4}\d{0,4}(?:\.\d{1,4})?(?:hh|ll|[hlLqjzt])?[diouxXeEfFgGcrsa@](?![A-Za-z])|%%"  # %s, %05.2f
    r"|<!--(?:[^-<]|-(?!->)|<(?!!--)){0,2000}-->|</?[A-Za-z][^<>\n]{0,2000}>"
    r"|&(?:[A-Za-z][A-Za-z0-9]{1,31}|#\d{1,7}|#x[0-9A-Fa-f]{1,6});"
)
_PATTERN = re.compile(f"(?P<free>{_FREE})|(?P<ordered>{_ORDERED})")


@dataclass(frozen=True, slots=True)
class Masked:
    """A text whose masked places are marks.

    Attributes:
        text: with {1}, {2}, … in it.
        kept: what stood at each mark, in order.
        ordered: numbers of those whose order a translation must keep, such as tags and %s.
    """

    text: str
    kept: tuple[str, ...] = ()
    ordered: frozenset[int] = frozenset()

    @property
    def has_words(self) -> bool:
        """Whether anything in it could be translated."""
        return any(character.isalpha() for character in MARK.sub("", self.text))

    def peeled(self) -> tuple[str, str, str]:
        """(front, text, back): without the tags and markup around the whole, which a model need not see.

        Those are pairs at both ends, and what stands alone at one end, such as ``<v Ann>`` or ``{\\an8}``.
        """
        front, text, back = "", self.text, ""
        for _ in range(_MOST_PEELED):
            first, last = _FIRST.match(text), _LAST.search(text)
            if not first or not last or first.end() > last.start():
                break
            if not (self._is_markup(first.group(1)) and self._is_markup(last.group(1))):
                break
            front, back = front + first.group(), last.group() + back
            text = text[first.end() : last.start()]
        alone = [number for number in MARK.findall(text) if self._is_markup(number)]
        if len(alone) == 1 and (first := _FIRST.match(text)) and first.group(1) in alone:
            front, text = front + first.group(), text[first.end() :]
        elif len(alone) == 1 and (last := _LAST.search(text)) and last.group(1) in alone:
            text, back = text[: last.start()], last.group() + back
        return front, text, back

    def _is_markup(self, number: str) -> bool:
        """Whether a mark stands for a tag or the like, not for a value or a character."""
        return int(number) in self.ordered and not self.kept[int(number) - 1].startswith(("%", "&", "\\"))

    def snug(self, translation: str) -> str:
        """A translation whose opening and closing marks stand as close to their words as the source's.

        ``{1} new {2}`` for ``{1}new{2}`` would be ``** new **``, which is no emphasis.
        """
        opening, closing = self._sides

        def opened(found: re.Match[str]) -> str:
            if found.group(1) not in opening:
                return found.group()
            apart = found.string[max(0, found.start() - 1) : found.start()].isalnum()
            return f"{' ' if apart else ''}{{{found.group(1)}}}"

        def closed(found: re.Match[str]) -> str:
            if found.group(1) not in closing:
                return found.group()
            apart = found.string[found.end() : found.end() + 1].isalnum()
            return f"{{{found.group(1)}}}{' ' if apart else ''}"

        return _BEHIND.sub(closed, _AHEAD.sub(opened, translation))

    @property
    def _sides(self) -> tuple[set[str], set[str]]:
        """Numbers of the marks that open something, and of those that close something."""
        opening: set[str] = set()
        closing: set[str] = set()
        for found in MARK.finditer(self.text):
            before, after = (
                self.text[max(0, found.start() - 1) : found.start()],
                self.text[found.end() : found.end() + 1],
            )
            if not self._is_markup(found.group(1)):
                continue
            if after.strip() and (not before.strip() or before in "([{«“\"'"):
                opening.add(found.group(1))
            elif before.strip() and not after.isalnum():
                closing.add(found.group(1))
        return opening, closing

    def restore(self, translation: str) -> str:
        """Puts back what was masked; each mark must be one of ours."""
        return MARK.sub(lambda found: self.kept[int(found.group(1)) - 1], translation)


def mask(text: str, protected: re.Pattern[str] | None = None) -> Masked:
    """Masks what a translation must keep as it is: placeholders, tags, entities, addresses, inline code.

    Args:
        text: one line.
        protected: matches what the text's format protects besides.
    """
    out: list[str] = []
    kept: list[str] = []
    ordered: set[int] = set()
    place = 0
    for begun, ended, in_order in _spans(text, protected):
        kept.append(text[begun:ended])
        out += [text[place:begun], f"{{{len(kept)}}}"]
        if in_order:
            ordered.add(len(kept))
        place = ended
    return Masked("".join([*out, text[place:]]), tuple(kept), frozenset(ordered))


def fault_of(source: str, translation: str, ordered: frozenset[int] = frozenset()) -> str | None:
    """What is wrong with the marks of a translation, or None.

    Args:
        source: masked; it may be a piece of a segment.
        translation: as the model gave it.
        ordered: marks whose order counts.
    """
    wanted, found = Counter(MARK.findall(source)), Counter(MARK.findall(translation))
    if lost := wanted - found:
        return f"lost {len(lost)} of {len(wanted)} placeholders"
    if doubled := found - wanted:
        return f"added {sum(doubled.values())} placeholders"
    if _sequence(source, ordered) != _sequence(translation, ordered):
        return "changed the order of tags or placeholders"
    return None


def mended(source: str, translation: str) -> str:
    """A translation without marks that are doubled or not its own, and with those that stand at the source's ends."""
    wanted = set(MARK.findall(source))
    seen: set[str] = set()

    def once(found: re.Match[str]) -> str:
        fresh = found.group(1) in wanted - seen
        seen.add(found.group(1))
        return found.group() if fresh else ""

    out = MARK.sub(once, translation)
    if out != translation:
        out = " ".join(out.split())
    front = re.match(r"(?:\{\d{1,8}\}\s*)+", source)
    back = re.search(r"(?:\s*\{\d{1,8}\})+\Z", source)
    if front and not wanted & seen & set(MARK.findall(front.group())):
        out = front.group() + out.lstrip()
    if back and back.start() and not wanted & seen & set(MARK.findall(back.group())):
        out = out.rstrip() + back.group()
    return out


def pieces_between(text: str) -> list[str]:
    """A masked text cut at its marks: texts at even places, marks at odd ones."""
    return re.split(r"(\{\d{1,8}\})", text)


def _sequence(text: str, ordered: frozenset[int]) -> list[str]:
    return [number for number in MARK.findall(text) if int(number) in ordered]


def _spans(text: str, protected: re.Pattern[str] | None) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, whether order counts) of what is masked; inline code goes before all else, then the format's own."""
    place = 0
    for begun, ended in [*_code_spans(text), (len(text), len(text))]:
        yield from _merged(text, place, begun, protected)
        if begun < ended:
            yield begun, ended, False
        place = ended


def _merged(text: str, begun: int, ended: int, protected: re.Pattern[str] | None) -> Sequence[tuple[int, int, bool]]:
    found = [(m.start(), m.end(), m.lastgroup == "ordered", 1) for m in _PATTERN.finditer(text, begun, ended)]
    if protected is not None:
        found += [(m.start(), m.end(), True, 0) for m in protected.finditer(text, begun, ended)]
    out: list[tuple[int, int, bool]] = []
    for start, end, in_order, _ in sorted(found, key=lambda span: (span[0], span[3])):
        if end > start and (not out or start >= out[-1][1]):
            out.append((start, end, in_order))
    return out


def _code_spans(text: str) -> list[tuple[int, int]]:
    """Inline code: from some backticks to the next run of as many (CommonMark 6.1), in linear time."""
    runs = list(_TICKS.finditer(text))
    following: dict[int, int] = {}  # length of a run → the nearest run of that length behind
    partner: list[int | None] = [None] * len(runs)
    for number in range(len(runs) - 1, -1, -1):
        length = len(runs[number].group())
        partner[number] = following.get(length)
        following[length] = number
    spans: list[tuple[int, int]] = []
    number = 0
    while number < len(runs):
        other = partner[number]
        if other is None:
            number += 1
        else:
            spans.append((runs[number].start(), runs[other].end()))
            number = other + 1
    return spans
