"""Ultravox (Fixie.ai, 2024): Whisper's encoder over a sound's own length, eight features a place, a gated projector.

    user: <|audio|><|audio|>…<|audio|> What was said?      a place for each 160 ms

`transformers` has no such model; equality is to its published code, of one sound at a time. (With several, that code
fills the shorter ones up to the longest, which changes their last features a little; here each is what it is alone.) A
sound of more than 30 s is read in windows of 30 s side by side, each with its own places, as there.

The token that holds a place has no embedding and may be missing from the tokenizer: plans show the token that ends a
text in its place, as the published processor does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...encoders.audio import audio_config
from ...encoders.errors import CheckpointError
from ...encoders.media import AudioData, Modality
from ...encoders.storage import shortened
from ..config import DecoderConfig
from ..connectors import Connector
from ..families.reading import activation
from ..projector import StackingProjector
from .family import MediaParts, MultimodalFamily, PartApart
from .reading import inner_config
from .sound_windows import SoundPlan, SoundWindow
from .sounds import RENAMES, SoundConnector, SoundModules, check_extractor
from .text_config import bare_text_config

__all__ = ["FAMILY", "UltravoxSounds"]

_PLACEHOLDER = "<|audio|>"
_LARGEST = {"hidden_size": 1 << 18, "stack_factor": 64}


class UltravoxSounds(SoundConnector):
    """The connector: a run of placeholders, one for each stack of features.

    Args:
        modules: tower and projector.
        stand_in: text of the token that plans show at a sound's places.
    """

    def __init__(self, modules: SoundModules, stand_in: str) -> None:
        super().__init__(modules, _PLACEHOLDER, mark="")
        self._stand_in = stand_in
        assert isinstance(self.projector, StackingProjector), "made by this family"
        self._plan = SoundPlan.of(self.encoder.config, stack=self.projector.stack)

    @property
    def stand_in(self) -> str:
        """The token's text that plans show."""
        return self._stand_in

    @property
    def plan(self) -> SoundPlan:
        """Windows side by side, the last as long as the sound; a last stack that is not full has a place, too."""
        return self._plan

    def embedded(self, sound: AudioData) -> Tensor:
        """Window by window."""
        windows = self.plan.windows(len(sound.samples))
        mel = self.encoder.mel(sound, windows[-1].first + windows[-1].frames)
        return torch.cat([self._window(mel, window) for window in windows])

    def _window(self, mel: Tensor, window: SoundWindow) -> Tensor:
        """Embeddings of a window of a spectrogram [M, F]."""
        part = mel[:, window.first : window.first + window.frames]
        attended = torch.tensor([window.attended], device=mel.device)
        filled = F.pad(part, (0, window.computed - window.frames))
        return self.projector(self.encoder.network(filled[None], attended=attended))[0]


def _text_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    return bare_text_config({"text_config": inner_config(raw, "text_config")})  # the whole's own fields do not tie


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> SoundModules:
    audio = audio_config(raw)
    hidden, stack = (_size(raw, name, default) for name, default in (("hidden_size", 4096), ("stack_factor", 8)))
    kind = raw.get("projector_act", "swiglu")
    projector = StackingProjector(
        audio.width,
        decoder.hidden_size,
        stack=stack,
        middle=hidden,
        activation=None if kind == "swiglu" else activation(kind),
        norm_middle=raw.get("projector_ln_mid", False) is True,
    )
    return SoundModules(audio, projector)


def _size(raw: Mapping[str, Any], name: str, default: int) -> int:
    given, most = raw.get(name, default), _LARGEST[name]
    if type(given) is not int or not 1 <= given <= most or (name == "hidden_size" and given % 2):
        raise CheckpointError(f"config.json: {name} is out of range.", given=shortened(given), expected=f"1..{most}")
    return given


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, SoundModules), "made by this family"
    check_extractor(parts.directory, modules.audio_tower.config)
    stand_in = parts.tokenizer.special.eos
    if stand_in is None:
        raise CheckpointError("The tokenizer has no token that ends a text, which Ultravox's prompts need.")
    return {"audio": lambda: UltravoxSounds(modules, stand_in)}


FAMILY = MultimodalFamily(
    name="ultravox",
    model_types=("ultravox",),
    modalities=("audio",),
    text_config=_text_config,
    renames=RENAMES,
    modules=_modules,
    connectors=_connectors,
    begins_chats=False,
    placeholders=(_PLACEHOLDER,),
    apart=(
        PartApart("text model", "language_model.", "text_model_id", "text_config"),
        PartApart("audio tower", "audio_tower.", "audio_model_id", "audio_config"),
    ),
)
