"""Voxtral (Liu et al., 2025): Whisper's encoder over whole windows of 30 s, four features a place, two linear layers.

    <s>[INST][BEGIN_AUDIO][AUDIO][AUDIO]…[AUDIO]What is that sound?[/INST]      a place for each 80 ms

A sound is padded with silence to whole windows, which stand side by side, and the silence's places are kept: 375 for
each 30 s begun. So do `transformers` and Mistral's own code; nothing is cut. A system message beside sounds is refused,
as there: the model has not been trained with one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...encoders.audio import AudioConfig, audio_config
from ...encoders.errors import CheckpointError
from ...encoders.media import AudioData, Modality
from ..config import DecoderConfig
from ..connectors import Connector
from ..families.reading import activation
from ..projector import MLPProjector
from .family import FallbackTemplate, MediaParts, MultimodalFamily
from .reading import inner_config, placeholder_text
from .sound_windows import SoundPlan
from .sounds import RENAMES, SoundConnector, SoundModules, check_extractor
from .text_config import bare_text_config

__all__ = ["FAMILY", "VoxtralSounds"]

_BEGIN = "[BEGIN_AUDIO]"
# What a text_config leaves out: here it is not a Llama's.
_TEXT: dict[str, Any] = {
    "vocab_size": 131_072,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 30,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e8,
    "head_dim": 128,
}
# The published directories have no template: Mistral's own code writes its chats. This is its version 11.
_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.content is string %}{% set parts = [{'type': 'text', 'text': message.content}] %}"
    "{% else %}{% set parts = message.content %}{% endif %}"
    "{% if message.role == 'system' %}"
    "{% for other in messages %}{% if other.content is not string %}"
    "{% if other.content | selectattr('type', 'equalto', 'audio') | list %}"
    "{{ raise_exception('Voxtral takes no system message beside sounds.') }}"
    "{% endif %}{% endif %}{% endfor %}"
    "{{ '[SYSTEM_PROMPT]' }}{% for part in parts %}{{ part.text }}{% endfor %}{{ '[/SYSTEM_PROMPT]' }}"
    "{% elif message.role == 'user' %}"
    "{{ '[INST]' }}"
    "{% for part in parts %}{% if part.type == 'audio' %}{{ '[BEGIN_AUDIO][AUDIO]' }}"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{{ '[/INST]' }}"
    "{% else %}{% for part in parts %}{{ part.text.rstrip(' ') if loop.last else part.text }}{% endfor %}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)


class VoxtralSounds(SoundConnector):
    """The connector: a control token, then a run of placeholders, one for each group of neighbouring features."""

    @property
    def group(self) -> int:
        """Features of a place."""
        return _group(self.encoder.config)

    @property
    def plan(self) -> SoundPlan:
        """Whole windows side by side."""
        return SoundPlan.of(self.encoder.config, group=self.group)

    def embedded(self, sound: AudioData) -> Tensor:
        """Neighbours laid side by side, through both layers."""
        features = self.encoder.encode([sound]).features[0]
        return self.projector(features.unflatten(0, (-1, self.group)).flatten(1))


def _group(audio: AudioConfig) -> int:
    """How many features together are as wide as the tower's MLP: so the configuration says it.

    Raises:
        CheckpointError: no whole number, or a window is not made of whole groups.
    """
    group, rest = divmod(audio.mlp_size, audio.width)
    if rest or not group or audio.positions % group:
        problem = "config.json: the audio tower's features cannot be laid side by side in groups."
        given = f"intermediate_size {audio.mlp_size}, hidden_size {audio.width}, {audio.positions} features in a window"
        raise CheckpointError(problem, given=given, expected="sizes that divide")
    return group


def _text_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    return bare_text_config({**raw, "text_config": _TEXT | inner_config(raw, "text_config")})


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> SoundModules:
    audio = audio_config(raw)
    width, kind = audio.width * _group(audio), activation(raw.get("projector_hidden_act", "gelu"))
    return SoundModules(audio, MLPProjector(width, decoder.hidden_size, activation=kind, bias=False))


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, SoundModules), "made by this family"
    check_extractor(parts.directory, modules.audio_tower.config)
    placeholder = placeholder_text(parts, "audio_token_id", "audio_token_index")
    return {"audio": lambda: VoxtralSounds(modules, placeholder, mark=_BEGIN + placeholder, around=(_BEGIN, ""))}


FAMILY = MultimodalFamily(
    name="voxtral",
    model_types=("voxtral",),
    modalities=("audio",),
    text_config=_text_config,
    renames=RENAMES,
    modules=_modules,
    connectors=_connectors,
    fallback_template=FallbackTemplate(_TEMPLATE, "[AUDIO]"),
)
