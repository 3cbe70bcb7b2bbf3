"""From a bundle's files to what reads media with its graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ...encoders.audio.whisper_tokens import whisper_tokens
from ...encoders.errors import CheckpointError
from ...encoders.media import Modality
from ...encoders.storage import read_json, shortened
from ...encoders.text import Tokenizer
from ...fusion.connectors.clip_choice import COUNTS, EVENTS
from ...fusion.connectors.clip_words import ClipWords
from ...fusion.connectors.connector import Connector
from ...fusion.connectors.transcript_words import TranscriptWords
from ...fusion.multimodal.native_layout import read_native_layout
from .clips import ExportedClipReader
from .heard import ExportedSounds, ExportedStandIns, read_sound_plan
from .native import NATIVE, ExportedNative, NativeReader
from .parts import read_parts
from .pictures import ExportedPictures
from .reader import ExportedMedia
from .soft_words import SpelledWords
from .sounds import ExportedTable, ExportedTranscriber, SoundSessions
from .towers import ExportedFrames, ExportedTower, PartReader

if TYPE_CHECKING:
    from ..runtime import Bundle

__all__ = ["CLIP", "RESIZE", "SOUNDS", "SOUND_ROLES", "open_media"]

#: Where a bundle has the tokenizer of what hears.
SOUNDS = "audio"
#: Roles of its graphs, in the order of `SoundSessions`.
SOUND_ROLES = ("audio-spectrum", "audio-encoder", "audio-decoder")
#: Role of the graph that says what happens between two frames of a clip.
CLIP = "clip"
#: Role of the graph that resizes pictures for a tower.
RESIZE = "image-resize"
_MOST = 1 << 20  # frames or tokens of a window, tokens of a vocabulary


def open_media(bundle: Bundle) -> ExportedMedia | None:
    """What reads a bundle's media; None if it reads text alone.

    Graphs are opened when the first item of their modality is read.

    Raises:
        CheckpointError: the manifest names a modality that is not known here, or clips without what they need.
    """
    if not bundle.manifest.media:
        return None
    unknown = sorted(bundle.manifest.media.keys() - _OPENERS.keys())
    if unknown:
        hint = "update Sensorium"
        raise CheckpointError("The bundle reads something unknown.", given=", ".join(unknown), hint=hint)
    needed = {"image"} if RESIZE in bundle.manifest.graphs else {"image", "audio"}
    if "video" in bundle.manifest.media and not needed <= bundle.manifest.media.keys():
        given, expected = ", ".join(bundle.manifest.media), f"{' and '.join(sorted(needed))} beside video"
        raise CheckpointError("The bundle lacks what clips are read with.", given=given, expected=expected)
    opened = _Opened(bundle)
    connectors: dict[Modality, Callable[[], Connector]] = {
        kind: partial(opens, opened) for kind, opens in _OPENERS.items() if kind in bundle.manifest.media
    }
    both_ways: list[Modality] = [kind for kind in connectors if opened.sees_both_ways(kind)]
    adapter = bundle.manifest.adapter or None
    return ExportedMedia(bundle.embeddings, connectors, adapter=adapter, both_ways=both_ways)


class _Opened:
    """A bundle's connectors. What reads pictures and sounds reads those in clips, too, and is opened once."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._media = bundle, bundle.manifest.media
        self._pictures: ExportedPictures | None = None
        self._sounds: TranscriptWords | None = None

    @property
    def graphs(self) -> Collection[str]:
        """Roles of the bundle's graphs."""
        return self._bundle.manifest.graphs.keys()

    @property
    def has_tower(self) -> bool:
        """Whether pictures are read by one."""
        return RESIZE in self.graphs

    def heard(self) -> ExportedSounds:
        placeholder, details = self._media["audio"].placeholder, self._details("audio")
        mark, around, stand_in = (details.get(name) for name in ("mark", "around", "stand_in"))
        texts = [mark, *(around if isinstance(around, list) else ()), *([stand_in] if stand_in is not None else [])]
        if len(texts) != 3 + (stand_in is not None) or not all(isinstance(one, str) for one in texts):
            raise CheckpointError("The bundle does not say what stands for a sound.", given=shortened(texts))
        spectrum, tower = (self._bundle.session(role) for role in SOUND_ROLES[:2])
        parts = spectrum, tower, read_sound_plan(details.get("plan") or {}), placeholder
        options: dict[str, Any] = {"mark": mark, "around": tuple(texts[1:3])}
        return ExportedSounds(*parts, **options) if stand_in is None else ExportedStandIns(stand_in, *parts, **options)

    def tower(self) -> Connector:
        placeholder, details = self._media["image"].placeholder, self._details("image")
        if NATIVE.items() <= details.items():
            return self._native("image", details)
        mark = details.get("mark")
        if not isinstance(mark, str):
            raise CheckpointError("The bundle does not say what stands for a picture.", given=shortened(mark))
        return ExportedTower(self._parts(details, placeholder), placeholder, mark)

    def frames(self) -> Connector:
        placeholder, details = self._media["video"].placeholder, self._details("video")
        if NATIVE.items() <= details.items():
            return self._native("video", details)
        return ExportedFrames(self._parts(details, placeholder), placeholder)

    def sees_both_ways(self, modality: Modality) -> bool:
        """Whether the decoder's positions of an item see each other both ways."""
        return self.has_tower and self._details(modality).get("both_ways") is True

    def _native(self, modality: Modality, details: Mapping[str, Any]) -> ExportedNative:
        reader = NativeReader(*self._tower_sessions(), read_native_layout(details))
        return ExportedNative(modality, reader, self._media[modality].placeholder)

    def _parts(self, details: Mapping[str, Any], placeholder: str) -> PartReader:
        return PartReader(*self._tower_sessions(), read_parts(details, placeholder))

    def _tower_sessions(self) -> tuple[Any, Any]:
        """Of the graph that resizes, and of the one that reads."""
        return self._bundle.session(RESIZE), self._bundle.session("image")

    def _details(self, modality: Modality) -> dict[str, Any]:
        return read_json(self._bundle.path / self._media[modality].details)

    def pictures(self) -> ExportedPictures:
        if self._pictures is None:
            words = _words(self._bundle, "image")
            self._pictures = ExportedPictures(self._bundle.session("image"), words, self._media["image"].placeholder)
        return self._pictures

    def sounds(self) -> TranscriptWords:
        if self._sounds is None:
            self._sounds = _sounds(self._bundle)
        return self._sounds

    def clips(self) -> ClipWords:
        reader = ExportedClipReader(self.pictures(), self._bundle.session(CLIP))
        words = _words(self._bundle, "video")
        expected = {"event": len(EVENTS), "count": len(COUNTS)}
        given = {name: words.size(name) for name in expected}
        if given != expected:
            raise CheckpointError("The clips' words do not fit their graphs.", given=given, expected=expected)
        return ClipWords(reader, words, self.sounds, placeholder=self._media["video"].placeholder)


def _pictures(opened: _Opened) -> Connector:
    """What reads pictures: a tower, or what sees words in them."""
    return opened.tower() if opened.has_tower else opened.pictures()


def _hears(opened: _Opened) -> Connector:
    """What hears: a tower, or what transcribes."""
    return opened.sounds() if SOUND_ROLES[-1] in opened.graphs else opened.heard()


def _clips(opened: _Opened) -> Connector:
    """What watches: the tower that reads pictures, or what tells of them in words."""
    return opened.frames() if opened.has_tower else opened.clips()


def _sounds(bundle: Bundle) -> TranscriptWords:
    details = read_json(bundle.path / bundle.manifest.media["audio"].details)
    tokenizer, own = Tokenizer.from_directory(bundle.path / SOUNDS), bundle.tokenizer()
    sizes = [details.get(name) for name in ("window", "positions", "vocabulary")]
    if not all(type(size) is int and 1 <= size <= _MOST for size in sizes):
        raise CheckpointError("The bundle does not say how long its windows of sound are.", given=shortened(sizes))
    tokens = whisper_tokens(tokenizer, sizes[2], details)  # type: ignore[arg-type]
    sessions = SoundSessions(*(bundle.session(role) for role in SOUND_ROLES))
    transcriber = ExportedTranscriber(sessions, tokenizer, tokens, window=sizes[0], positions=sizes[1])  # type: ignore[arg-type]
    return TranscriptWords(
        transcriber,
        spell=lambda text: own.encode(text, add_special=False, parse_special=False),
        table=ExportedTable(bundle.embeddings),
        placeholder=bundle.manifest.media["audio"].placeholder,
    )


def _words(bundle: Bundle, modality: Modality) -> SpelledWords:
    """The spelled words of a modality.

    Raises:
        CheckpointError: the file that holds them is damaged.
    """
    name = bundle.manifest.media[modality].details
    raw = read_json(bundle.path / name)
    lists, comma = raw.get("lists"), raw.get("comma")
    known = bundle.shape.vocabulary_size

    def spelled(tokens: Any) -> bool:
        return isinstance(tokens, list) and all(type(token) is int and 0 <= token < known for token in tokens)

    right = isinstance(lists, dict) and all(
        isinstance(words, list) and all(map(spelled, words)) for words in lists.values()
    )
    if not right or not spelled(comma):
        raise CheckpointError(f"{name} holds no spelled words.", given=shortened(raw))
    return SpelledWords(lists, comma, bundle.embeddings)  # type: ignore[arg-type]


_OPENERS: dict[Modality, Callable[[_Opened], Connector]] = {
    "image": _pictures,
    "audio": _hears,
    "video": _clips,
}
