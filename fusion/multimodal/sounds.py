"""What the families that hear have in common: a Whisper-shaped tower, a projector, and a run of places for a sound.

Legend: D the decoder's hidden size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...encoders.audio import AudioConfig, AudioEncoder, WhisperEncoder
from ...encoders.audio.preprocess import HOP
from ...encoders.errors import CheckpointError
from ...encoders.media import SAMPLE_RATE, AudioData, Media
from ...encoders.storage import read_json, shortened
from ..connectors import BaseConnector
from .family import DECODER_RENAMES
from .sound_windows import SoundPlan

__all__ = ["RENAMES", "SoundConnector", "SoundModules", "check_extractor"]

#: Names of transformers 4 and 5.
RENAMES = (*DECODER_RENAMES, (r"^model\.(audio_tower|multi_modal_projector)\.", r"\1."))


class SoundModules(nn.Module):
    """Tower and projector, under the names of checkpoints.

    Args:
        audio: of the tower.
        projector: reads the tower's features.
    """

    def __init__(self, audio: AudioConfig, projector: nn.Module) -> None:
        super().__init__()
        self.audio_tower = WhisperEncoder(audio)
        self.multi_modal_projector = projector


class SoundConnector(BaseConnector):
    """A `Connector` of sounds of any length.

    Args:
        modules: tower and projector.
        placeholder: the control token's text.
        mark: what the chat template writes for a sound.
        around: what stands before and after a sound's places, as far as the mark has it.
    """

    def __init__(
        self, modules: SoundModules, placeholder: str, *, mark: str, around: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__("audio", placeholder, mark)
        self.around = around
        self.encoder = AudioEncoder(modules.audio_tower)
        self.projector = modules.multi_modal_projector

    def layout(self, media: Media) -> str:
        """As many placeholders as the sound has embeddings."""
        assert isinstance(media, AudioData), "sounds alone come here"
        before, after = self.around
        return before + self.placeholder * self.plan.count(len(media.samples)) + after

    @torch.inference_mode()
    def embed(self, media: Media) -> Tensor:
        """Embeddings [count, D]."""
        assert isinstance(media, AudioData), "sounds alone come here"
        return self.embedded(media)

    @property
    def plan(self) -> SoundPlan:
        """How sounds pass through the tower."""
        return SoundPlan.of(self.encoder.config)

    @abstractmethod
    def embedded(self, sound: AudioData) -> Tensor:
        """A sound's embeddings [count, D]."""


def check_extractor(directory: Path, audio: AudioConfig) -> None:
    """Refuses a directory whose processor computes other spectrograms than ours.

    Raises:
        CheckpointError: names the field.
    """
    expected = {
        "feature_size": audio.mel_bins,
        "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP,
        "n_fft": 400,
        "chunk_length": audio.window_samples / SAMPLE_RATE,
        "padding_value": 0,
        "dither": 0,
        "do_normalize": False,
    }
    found = _extractor(directory)
    for name, value in expected.items():
        if found.get(name) is not None and found[name] != value:
            problem = f"The processor's {name} does not fit the audio tower."
            raise CheckpointError(problem, given=shortened(found[name]), expected=value)


def _extractor(directory: Path) -> Mapping[str, Any]:
    """preprocessor_config.json, or what the newer file that holds all processors of a model says of sounds."""
    if (directory / "preprocessor_config.json").is_file():
        return read_json(directory / "preprocessor_config.json")
    if (directory / "processor_config.json").is_file():
        inner = read_json(directory / "processor_config.json").get("feature_extractor")
        return inner if isinstance(inner, Mapping) else {}
    return {}
