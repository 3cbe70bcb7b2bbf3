"""The one description of a prompt: text and media in exact order, counted and hashed before anything is computed.

    <|im_start|> user  [image: 26 slots]  What is in this picture?  <|im_end|> …
    └── text ────────┘ └── media ───────┘ └── text ──────────────────────────┘

Legend: T positions of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from ..encoders.errors import InvalidInputError
from ..encoders.media import Media, Modality

__all__ = ["MediaItem", "MediaSpan", "PromptPlan", "TextSpan", "plan_prompt"]

_SHOWN = 60  # characters of a text span in an explanation


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One picture, sound or clip of a prompt.

    Attributes:
        media: its content.
        slots: how many positions its embeddings take.
        name: for people, e.g. of its file.
    """

    media: Media = field(repr=False)
    slots: int
    name: str | None = None

    @property
    def modality(self) -> Modality:
        """What it is."""
        return self.media.modality

    @property
    def digest(self) -> str:
        """Names its content."""
        return self.media.digest


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Positions that hold tokens."""

    tokens: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """Positions that hold embeddings of one item.

    Attributes:
        item: number of the item.
        first: its first embedding here; an item may be cut into several spans by text markers.
        count: how many.
        placeholder: the token id that stands at these positions.
    """

    item: int
    first: int
    count: int
    placeholder: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class PromptPlan(Sequence[int]):
    """A prompt as a sequence of token ids, in which placeholders stand for embeddings.

    Attributes:
        spans: in order; together they are the prompt.
        items: media in the order of their first span.
        adapter: name of the adapter that reads it, or None; part of every cache key.
    """

    spans: tuple[TextSpan | MediaSpan, ...]
    items: tuple[MediaItem, ...] = ()
    adapter: str | None = None
    tokens: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tokens: list[int] = []
        for span in self.spans:
            tokens += span.tokens if isinstance(span, TextSpan) else [span.placeholder] * span.count
        object.__setattr__(self, "tokens", tuple(tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        return self.tokens[index]

    def placed(self) -> Iterator[tuple[int, TextSpan | MediaSpan]]:
        """Each span with the position at which it begins."""
        at = 0
        for span in self.spans:
            yield at, span
            at += len(span)

    def keys(self) -> tuple[int | str, ...]:
        """What stands at each position, for caches: a token id, or digest and number of an embedding.

        Equal prefixes of two plans' keys mean equal prefixes of their computations, if `adapter` is equal too and the
        prefix does not end inside of media whose positions see each other both ways.
        """
        keys: list[int | str] = []
        for span in self.spans:
            if isinstance(span, TextSpan):
                keys += span.tokens
            else:
                digest = self.items[span.item].digest
                keys += [f"{digest}:{number}" for number in range(span.first, span.first + span.count)]
        return tuple(keys)

    def explain(self, decode: Callable[[Sequence[int]], str]) -> str:
        """A table for people: position, tokens and content of every span.

        Args:
            decode: text of token ids, control tokens included.
        """
        rows = [_row(at, span, self.items, decode) for at, span in self.placed()]
        media = sum(len(span) for span in self.spans if isinstance(span, MediaSpan))
        total = f"{len(self)} tokens: {len(self) - media} of text, {media} of {len(self.items)} media items"
        return "\n".join([*rows, total if self.adapter is None else f"{total}; adapter {self.adapter}"])


def plan_prompt(
    tokens: Iterable[int],
    items: Sequence[MediaItem],
    placeholders: Mapping[Modality, int],
    *,
    shown: Mapping[int, int] | None = None,
    adapter: str | None = None,
) -> PromptPlan:
    """Gives each run of placeholders in a tokenized prompt to its item, in order.

    Args:
        tokens: the whole prompt.
        items: media in the order in which they stand in it.
        placeholders: the token id that stands for each modality's embeddings.
        shown: what the plan has in the place of a placeholder that the decoder does not know.
        adapter: as `PromptPlan.adapter`.

    Raises:
        InvalidInputError: more or fewer placeholders than the items have slots; says both numbers.
    """
    builder = _Builder(items, placeholders, shown or {})
    for token in tokens:
        builder.add(token)
    return PromptPlan(builder.finished(), tuple(items), adapter)


class _Builder:
    """Walks over a tokenized prompt."""

    def __init__(
        self, items: Sequence[MediaItem], placeholders: Mapping[Modality, int], shown: Mapping[int, int]
    ) -> None:
        self._items, self._shown = items, shown
        self._wanted = [(number, placeholders[item.modality], item.slots) for number, item in enumerate(items)]
        self._placeholders = {token for _, token, _ in self._wanted}
        self._spans: list[TextSpan | MediaSpan] = []
        self._text: list[int] = []
        self._item, self._used = 0, 0

    def add(self, token: int) -> None:
        if token not in self._placeholders:
            self._text.append(token)
            return
        while self._item < len(self._wanted) and self._used == self._wanted[self._item][2]:
            self._item, self._used = self._item + 1, 0
        if self._item == len(self._wanted) or token != self._wanted[self._item][1]:
            raise self._mismatch("more placeholders than embeddings")
        self._flush()
        token = self._shown.get(token, token)
        last = self._spans[-1] if self._spans else None
        if isinstance(last, MediaSpan) and last.item == self._item:
            self._spans[-1] = MediaSpan(last.item, last.first, last.count + 1, token)
        else:
            self._spans.append(MediaSpan(self._item, self._used, 1, token))
        self._used += 1

    def finished(self) -> tuple[TextSpan | MediaSpan, ...]:
        self._flush()
        left = self._wanted[self._item + 1 :]
        if self._wanted and (self._used != self._wanted[self._item][2] or any(slots for *_, slots in left)):
            raise self._mismatch("fewer placeholders than embeddings")
        return tuple(self._spans)

    def _flush(self) -> None:
        if self._text:
            self._spans.append(TextSpan(tuple(self._text)))
            self._text = []

    def _mismatch(self, what: str) -> InvalidInputError:
        used = sum(len(span) for span in self._spans if isinstance(span, MediaSpan))
        wanted = ", ".join(f"{item.modality}: {item.slots}" for item in self._items)
        return InvalidInputError(
            f"Media and prompt do not match: {what}.",
            given=f"{used} placeholders up to item {min(self._item, len(self._items) - 1)}",
            expected=f"slots {wanted}",
            hint="the chat template must name every item once, in order",
        )


def _row(
    at: int, span: TextSpan | MediaSpan, items: Sequence[MediaItem], decode: Callable[[Sequence[int]], str]
) -> str:
    place = f"{at:>6} {len(span):>6}"
    if isinstance(span, TextSpan):
        text = repr(decode(span.tokens))
        return f"{place}  text   {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}"
    item = items[span.item]
    part = "" if span.count == item.slots else f", {span.first}..{span.first + span.count - 1} of {item.slots}"
    name = f" {item.name}" if item.name else ""
    return f"{place}  {item.modality:<6} {_size(item.media)}{name}, {item.digest[:12]}{part}"


def _size(media: Media) -> str:
    if media.modality == "image":
        return f"{media.width}x{media.height}"  # type: ignore[union-attr]
    if media.modality == "audio":
        return f"{media.duration:.1f} s"  # type: ignore[union-attr]
    return f"{len(media.frames)} frames of {media.duration:.1f} s"  # type: ignore[union-attr]
