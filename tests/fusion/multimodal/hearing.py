"""Small random models that hear, for several tests: each case is built by `transformers`' own classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import AddedToken

__all__ = ["CASES", "QWEN2_AUDIO_TOWER", "VOXTRAL_TOWER", "WEIGHTS", "Asking", "Build", "Sounds", "model_of"]

Sounds = Mapping[str, NDArray[np.float32]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]
WEIGHTS = "model.safetensors"
# Towers with windows of 2 s; all sizes differ.
QWEN2_AUDIO_TOWER: dict[str, Any] = {
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "num_mel_bins": 128,
    "max_source_positions": 100,
}
VOXTRAL_TOWER: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "num_mel_bins": 128,
    "max_source_positions": 100,
}
#: Fields of the tower, and of config.json, by name of the case.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen2-audio": ({}, {}),
    "qwen2-audio-relu": ({"activation_function": "relu", "num_mel_bins": 80}, {}),
    "voxtral": ({}, {}),
    "voxtral-pairs": ({"intermediate_size": 48, "num_mel_bins": 80}, {"projector_hidden_act": "relu"}),
}
_CONTROL = {
    "qwen2-audio": ("<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
    "voxtral": ("[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
}


def model_of(case: str, tokenizer: Callable[..., Any], text: dict[str, Any]) -> tuple[Any, Any]:
    """Model and processor of a case.

    Args:
        case: one of `CASES`.
        tokenizer: builds one from its control tokens.
        text: sizes of the decoder.
    """
    family = next(name for name in _CONTROL if case.startswith(name))
    tokens = (AddedToken(token, special=True, normalized=False) for token in _CONTROL[family])
    return _MAKERS[family](tokenizer(*tokens, template=None), text, *CASES[case])


def _qwen2_audio(words: Any, text: dict[str, Any], tower: dict[str, Any], fields: dict[str, Any]) -> tuple[Any, Any]:
    config = transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder"} | QWEN2_AUDIO_TOWER | tower,
        text_config={"model_type": "qwen2"} | text,
        audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
        **fields,
    )
    processor = transformers.Qwen2AudioProcessor(_extractor(config.audio_config.num_mel_bins), words)
    return transformers.Qwen2AudioForConditionalGeneration(config), processor


def _voxtral(words: Any, text: dict[str, Any], tower: dict[str, Any], fields: dict[str, Any]) -> tuple[Any, Any]:
    config = transformers.VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder"} | VOXTRAL_TOWER | tower,
        text_config={"model_type": "llama"} | text,
        audio_token_id=words.convert_tokens_to_ids("[AUDIO]"),
        **fields,
    )
    sounds = transformers.VoxtralProcessor(_extractor(config.audio_config.num_mel_bins), words)
    processor = VoxtralProcessor(sounds, words, config.audio_config.intermediate_size)
    return transformers.VoxtralForConditionalGeneration(config), processor


_MAKERS = {"qwen2-audio": _qwen2_audio, "voxtral": _voxtral}


def _extractor(bins: int) -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=bins, chunk_length=2)


@dataclass(frozen=True)
class VoxtralProcessor:
    """`transformers`' processor of sounds, and the ids that Mistral's own `mistral-common` writes for a chat."""

    sounds: Any
    words: Any
    intermediate: int

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **_: Any) -> dict[str, torch.Tensor]:
        ids, sounds = self.words.convert_tokens_to_ids, []
        tokens = [ids("<s>")]
        for message in conversation:
            is_user = message["role"] == "user"
            tokens += [ids("[INST]")] * is_user
            for block in message["content"]:
                if block["type"] == "text":
                    tokens += self.words.encode(block["text"], add_special_tokens=False)
                else:
                    sounds.append(block["audio"])
                    windows = -(-len(sounds[-1]) // 32_000)
                    places = windows * 100 * 24 // self.intermediate
                    tokens += [ids("[BEGIN_AUDIO]"), *[ids("[AUDIO]")] * places]
            tokens.append(ids("[/INST]" if is_user else "</s>"))
        inputs = {"input_ids": torch.tensor([tokens])}
        if sounds:
            options = {"padding": True, "truncation": False, "pad_to_multiple_of": 32_000, "return_tensors": "pt"}
            features = self.sounds._retrieve_input_features(sounds, 200, sampling_rate=16_000, **options)
            inputs["input_features"] = features
        return inputs

    def save_pretrained(self, folder: Path) -> None:
        self.words.save_pretrained(folder)
        self.sounds.feature_extractor.save_pretrained(folder)
