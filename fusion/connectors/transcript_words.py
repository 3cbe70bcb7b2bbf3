"""Speech as words: what Whisper's own decoder hears, read through the embeddings of the decoder's own tokens.

Needs no torch: every engine reads speech so.

Sounds of several segments get markers of time in the text::

    [0:00] It was the best of times, [0:04] it was the worst of times …

Legend: L tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...encoders.audio.transcribing import Segment, Transcriber
from ...encoders.media import AudioData, Media
from .base_connector import BaseConnector
from .layouts import MARKED_FROM, speech_layout

__all__ = ["Table", "TranscriptWords"]


class Table(Protocol):
    """The decoder's embeddings: a tensor [vocabulary, D], or what looks rows up as it does."""

    def __getitem__(self, tokens: Any, /) -> Any:
        """Token ids, a list of n → [n, D]."""
        ...


class TranscriptWords(BaseConnector):
    """The connector.

    Args:
        transcriber: hears.
        spell: the decoder's token ids of a text, none of them a control token.
        table: the decoder's embeddings.
        placeholder: the control token's text that holds the places.
    """

    def __init__(
        self, transcriber: Transcriber, *, spell: Callable[[str], Sequence[int]], table: Table, placeholder: str
    ) -> None:
        super().__init__("audio", placeholder)
        self.transcriber, self._spell, self._table = transcriber, spell, table
        self._last: tuple[str, list[tuple[Segment, list[int]]]] | None = None

    def layout(self, media: Media) -> str:
        """A placeholder for each token heard, between quotes; longer sounds with the time of each segment."""
        return self.layout_with(media, self.placeholder)

    def layout_with(self, media: Media, placeholder: str) -> str:
        """The same with another placeholder: for the sound track of a clip."""
        segments = [(segment.begin, len(tokens)) for segment, tokens in self._heard(media)]
        return speech_layout(segments, placeholder, marked=media.duration > MARKED_FROM)  # type: ignore[union-attr]

    def embed(self, media: Media) -> Any:
        """The tokens' embeddings [L, D]."""
        return self._table[[token for _, tokens in self._heard(media) for token in tokens]]

    def _heard(self, media: Media) -> list[tuple[Segment, list[int]]]:
        assert isinstance(media, AudioData), "the plan gives a sound to the sounds' connector"
        if self._last is None or self._last[0] != media.digest:
            segments = self.transcriber.transcribe(media).segments
            heard = [(segment, list(self._spell(segment.text.strip()))) for segment in segments]
            self._last = (media.digest, [(segment, tokens) for segment, tokens in heard if tokens])
        return self._last[1]
