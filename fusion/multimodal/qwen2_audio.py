"""Qwen2-Audio (Chu et al., 2024): Whisper's encoder with neighbouring features averaged, through one linear layer.

    Audio 1: <|audio_bos|><|AUDIO|><|AUDIO|>…<|AUDIO|><|audio_eos|>\\nWhat is that sound?      a place for each 40 ms

Sounds up to 30 s are read as `transformers` reads them. It drops what comes after 30 s; here a longer sound goes
through the tower in windows of 30 s that overlap by 2 s, each of which is what the tower was trained on, and all
embeddings stand in the prompt one after the other: 25 for a second, 1500 for a minute. (The model was trained on
dialogues of several sounds, but not on one long one: it answers, how well is not known.) `transformers` also drops a
sound of 20 ms or less, which has one place here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...encoders.audio import audio_config
from ...encoders.media import AudioData, Modality
from ..config import DecoderConfig
from ..connectors import Connector
from ..projector import LinearProjector
from .family import FallbackTemplate, MediaParts, MultimodalFamily
from .reading import placeholder_text
from .sounds import RENAMES, SoundConnector, SoundModules, check_extractor
from .text_config import bare_text_config

__all__ = ["FAMILY", "Qwen2AudioSounds"]

_PLACEHOLDER = 151_646  # Qwen2AudioConfig's default
_AROUND = ("<|audio_bos|>", "<|audio_eos|>")
# What transformers' processor writes where the directory has no template of its own.
_TEMPLATE = (
    "{% set sounds = namespace(count=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'audio' %}"
    "{% set sounds.count = sounds.count + 1 %}"
    "{{ 'Audio %d: <|audio_bos|><|AUDIO|><|audio_eos|>\n' % sounds.count }}"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Qwen2AudioSounds(SoundConnector):
    """The connector: a run of placeholders between two control tokens, one for each feature."""

    def embedded(self, sound: AudioData) -> Tensor:
        """Features through the linear layer."""
        return self.projector(self.encoder.encode([sound]).features[0])


def _modules(raw: Mapping[str, Any], decoder: DecoderConfig) -> SoundModules:
    audio = audio_config(raw)
    return SoundModules(audio, LinearProjector(audio.width, decoder.hidden_size))


def _connectors(parts: MediaParts) -> Mapping[Modality, Callable[[], Connector]]:
    modules = parts.modules
    assert isinstance(modules, SoundModules), "made by this family"
    check_extractor(parts.directory, modules.audio_tower.config)
    placeholder = placeholder_text(parts, "audio_token_index", "audio_token_id", default=_PLACEHOLDER)
    mark = placeholder.join(_AROUND)
    return {"audio": lambda: Qwen2AudioSounds(modules, placeholder, mark=mark, around=_AROUND)}


FAMILY = MultimodalFamily(
    name="qwen2_audio",
    model_types=("qwen2_audio",),
    modalities=("audio",),
    text_config=lambda raw: bare_text_config(raw, model_type="qwen2"),
    renames=RENAMES,
    modules=_modules,
    connectors=_connectors,
    fallback_template=FallbackTemplate(_TEMPLATE, "<|AUDIO|>"),
)
