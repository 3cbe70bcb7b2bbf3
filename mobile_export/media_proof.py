"""Goldens of what is no text: an input of each modality that travels with the bundle, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, InvalidInputError
from ..encoders.media import AudioData, ImageData, Media, Modality, VideoData
from ..encoders.storage import read_json, shortened
from ..fusion.plan import PromptPlan
from .media import ExportedMedia, ExportedTower, open_media
from .proof import ANSWER, Golden, GoldenResult, Reader, make_golden, read_golden, run_golden
from .runtime import Bundle
from .samples import clip, picture, speech

__all__ = ["check_media_goldens", "media_reader", "write_media_goldens"]

_QUESTIONS: dict[Modality, str] = {
    "image": "What is in this picture?",
    "audio": "What is said?",
    "video": "What happens in the clip?",
}
_STEP = 0.5  # seconds between a clip's frames
_SPOKEN: dict[Modality, str] = {"image": "a picture", "audio": "a sound", "video": "a clip"}
_STRIP = slice(50, 100)  # rows


def write_media_goldens(bundle: Bundle, *, share: float) -> None:
    """Makes a golden of each modality that a bundle reads.

    Args:
        bundle: it is written to; its manifest does not know the new files yet.
        share: of the logits' standard deviation by which one may differ on another device.
    """
    media = open_media(bundle)
    for modality in media.modalities if media is not None else ():
        assert media is not None, "it has modalities"
        question = _QUESTIONS[modality]
        np.save(bundle.path / _input(modality), _shown(media, modality), allow_pickle=False)
        plan = _plan(bundle, media, _media(bundle, modality), question)
        _check_length(bundle, plan, modality)
        stops = bundle.tokenizer().stop_ids
        golden = make_golden(media_reader(bundle, media), f"{modality}: {question}", plan, stops, share=share)
        raw = {"question": question, "golden": asdict(golden)}
        (bundle.path / _file(modality)).write_text(json.dumps(raw) + "\n", encoding="utf-8")


def _shown(media: ExportedMedia, modality: Modality) -> NDArray[Any]:
    """What a golden is made from."""
    made = _INPUTS[modality]()
    # A strip of the picture: most towers read fewer tiles of one, and each takes seconds.
    return made[_STRIP] if isinstance(media.connector(modality), ExportedTower) else made


def _check_length(bundle: Bundle, plan: PromptPlan, modality: Modality) -> None:
    needed, there = len(plan) + ANSWER, bundle.shape.context_length
    if needed > there:
        raise InvalidInputError(
            f"The context is too short for a question about {_SPOKEN[modality]}.",
            given=f"{there} positions",
            expected=f"at least {needed}",
            hint="choose a longer context, or leave the modality out",
        )


def check_media_goldens(bundle: Bundle) -> list[GoldenResult]:
    """Runs the goldens of a bundle's media on this device: they are planned, read and answered anew.

    Raises:
        CheckpointError: the bundle lacks one that can be read.
        EngineError: a graph failed.
    """
    media = open_media(bundle)
    return [_check(bundle, media, modality) for modality in media.modalities] if media is not None else []


def media_reader(bundle: Bundle, media: ExportedMedia) -> Callable[[], Reader]:
    """What reads a plan, and then tokens, from nothing each time.

    Args:
        bundle: gives the decoder.
        media: its connectors.
    """

    def fresh() -> Reader:
        runner = bundle.media_decoder()
        state = runner.new_state()

        def read(tokens: Sequence[int]) -> NDArray[np.float32]:
            if isinstance(tokens, PromptPlan):
                state.rows = [media.reading(tokens)]
                return runner.read(state, media.embed(tokens))[0, -1]
            return runner.read(state, bundle.embeddings(np.array([list(tokens)], np.int64)))[0, -1]

        return read

    return fresh


def _check(bundle: Bundle, media: ExportedMedia, modality: Modality) -> GoldenResult:
    golden, question = _read(bundle, modality)
    plan = _plan(bundle, media, _media(bundle, modality), question)
    if list(plan) != golden.prompt:  # it was read as other words
        return GoldenResult(golden.name, float("inf"), golden.tolerance, 0, len(golden.answer))
    return run_golden(golden, media_reader(bundle, media), plan)


def _read(bundle: Bundle, modality: Modality) -> tuple[Golden, str]:
    path = bundle.path / _file(modality)
    raw = read_json(path) if path.is_file() else {}
    if not isinstance(raw.get("question"), str):
        raise CheckpointError(f"The bundle has no golden of {modality}.", given=shortened(raw))
    # What stands at the places of media need not be in the decoder's vocabulary.
    known = max(bundle.shape.vocabulary_size, bundle.tokenizer().vocabulary_size)
    return read_golden(raw.get("golden"), bundle.shape.vocabulary_size, known), raw["question"]


def _plan(bundle: Bundle, media: ExportedMedia, item: Media, question: str) -> PromptPlan:
    content, tokenizer = [{"type": "text", "text": question}, {"type": item.modality}], bundle.tokenizer()
    messages = [{"role": "user", "content": content}]
    return media.plan(tokenizer, messages, [(item, None)], raw=not tokenizer.has_chat_template)


def _array(path: Path) -> NDArray[Any]:
    try:
        # Mapped: a header that claims more than the file holds takes no memory.
        return np.array(np.load(path, allow_pickle=False, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path.name} is no input of a golden.", given=error) from error


def _media(bundle: Bundle, modality: Modality) -> Media:
    """A golden's input, of what is kept: pixels, samples of 16 bits, or frames; their sound is the sound's golden."""
    array = _array(bundle.path / _input(modality))
    if modality == "image":
        return ImageData(array)
    if modality == "audio":
        return _sound(array)
    times = np.arange(len(array) if array.ndim else 0, dtype=np.float64) * _STEP
    heard = _sound(_array(bundle.path / _input("audio"))) if "audio" in bundle.manifest.media else None
    return VideoData(array, times, len(times) * _STEP, heard)


def _sound(samples: NDArray[Any]) -> AudioData:
    if samples.dtype != np.int16:
        raise CheckpointError("These are no samples of a golden.", given=samples.dtype, expected="int16")
    return AudioData(samples.astype(np.float32) / np.float32(32768))


_INPUTS: dict[Modality, Callable[[], NDArray[Any]]] = {"image": picture, "audio": speech, "video": clip}


def _input(modality: Modality) -> str:
    return f"golden/{modality}.npy"


def _file(modality: Modality) -> str:
    return f"golden/{modality}.json"
