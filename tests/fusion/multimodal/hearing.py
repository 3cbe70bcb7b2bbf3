"""Small random models that hear, for several tests: each case is built by `transformers`' own classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken
from transformers.models.whisper.modeling_whisper import WhisperEncoder

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
    "ultravox": ({}, {}),
    "ultravox-4": ({"num_mel_bins": 128}, {"projector_ln_mid": False, "projector_act": "gelu", "stack_factor": 7}),
    "voxtral": ({}, {}),
    "voxtral-pairs": ({"intermediate_size": 48, "num_mel_bins": 80}, {"projector_hidden_act": "relu"}),
}
_CONTROL: dict[str, tuple[str, ...]] = {
    "qwen2-audio": ("<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
    "ultravox": (),
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


def _ultravox(words: Any, text: dict[str, Any], tower: dict[str, Any], fields: dict[str, Any]) -> tuple[Any, Any]:
    size = len(words)  # the decoder has no embedding for what is added behind
    if fields:
        words.add_tokens([AddedToken("<|audio|>", special=True, normalized=False)])
    sizes = QWEN2_AUDIO_TOWER | {"num_mel_bins": 80} | tower
    audio = transformers.WhisperConfig(**sizes, vocab_size=61, decoder_layers=1, decoder_attention_heads=3)
    config = {"projector_act": "swiglu", "stack_factor": 8, "projector_ln_mid": True, "hidden_size": 44} | fields
    model = Ultravox(config, audio, transformers.LlamaConfig(**text | {"vocab_size": size}))
    words.chat_template = ULTRAVOX_TEMPLATE
    extractor = transformers.WhisperFeatureExtractor(feature_size=sizes["num_mel_bins"], chunk_length=2)
    return model, UltravoxProcessor(extractor, words, config["stack_factor"])


_MAKERS = {"qwen2-audio": _qwen2_audio, "ultravox": _ultravox, "voxtral": _voxtral}


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


ULTRAVOX_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@dataclass(frozen=True)
class UltravoxProcessor:
    """Ultravox's published steps: text cut at each sound, places that hold the token that ends a text."""

    sounds: Any
    words: Any
    stack: int

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **_: Any) -> dict[str, torch.Tensor]:
        blocks = [block for message in conversation for block in message["content"]]
        sounds = [block["audio"] for block in blocks if block["type"] == "audio"]
        turns = [
            {"role": turn["role"], "content": "".join(block.get("text", "<|audio|>") for block in turn["content"])}
            for turn in conversation
        ]
        text = self.words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        first, *others = text.split("<|audio|>")
        tokens, mels = self.words.encode(first, add_special_tokens=False), []
        for sound, part in zip(sounds, others, strict=True):
            options = {"padding": "longest", "pad_to_multiple_of": 160, "truncation": False, "return_tensors": "pt"}
            mels.append(self.sounds(sound, sampling_rate=16_000, **options).input_features[0])
            places = sum(-(-window.shape[1] // (2 * self.stack)) for window in mels[-1].split(200, dim=1))
            tokens += [self.words.eos_token_id] * places + self.words.encode(part, add_special_tokens=False)
        inputs = {"input_ids": torch.tensor([tokens])}
        if sounds:
            inputs["input_features"] = torch.cat(mels, dim=1)
            inputs["frames"] = torch.tensor([mel.shape[1] for mel in mels])
            inputs["places"] = torch.tensor(self._places(first, others, mels))
        return inputs

    def _places(self, first: str, others: Sequence[str], mels: Sequence[torch.Tensor]) -> list[int]:
        """Positions of all embeddings."""
        found, at = [], len(self.words.encode(first, add_special_tokens=False))
        for part, mel in zip(others, mels, strict=True):
            count = sum(-(-window.shape[1] // (2 * self.stack)) for window in mel.split(200, dim=1))
            found += range(at, at + count)
            at += count + len(self.words.encode(part, add_special_tokens=False))
        return found

    def save_pretrained(self, folder: Path) -> None:
        self.words.save_pretrained(folder)


class Ultravox(torch.nn.Module):
    """The published formulas around `transformers`' Whisper layers and Llama."""

    def __init__(self, config: dict[str, Any], audio: Any, text: Any) -> None:
        super().__init__()
        self.settings, self.audio, self.text = config, audio, text
        self.audio_tower = WhisperEncoder(audio)
        width, middle = audio.d_model * config["stack_factor"], config["hidden_size"]
        gated, norm = config["projector_act"] == "swiglu", config["projector_ln_mid"]
        self.multi_modal_projector = torch.nn.ModuleDict(
            {
                "ln_pre": torch.nn.RMSNorm(width, eps=1e-6),
                "linear_1": torch.nn.Linear(width, middle, bias=False),
                "linear_2": torch.nn.Linear(middle // 2 if gated else middle, text.hidden_size, bias=False),
                "ln_mid" if norm else "ln_post": torch.nn.RMSNorm(
                    (middle // 2 if gated else middle) if norm else text.hidden_size, eps=1e-6
                ),
            }
        )
        self.language_model = transformers.LlamaForCausalLM(text)

    def heard(self, mel: torch.Tensor) -> torch.Tensor:
        """One sound's embeddings; later windows are filled up with zeros."""
        parts = []
        for number, window in enumerate(mel.split(200, dim=1)):
            frames = window.shape[1]
            if number:
                window = torch.nn.functional.pad(window, (0, 200 - frames))
            features = self.encoded(window[None], (frames - 1) // 2 + 1)
            places = -(-frames // (2 * self.settings["stack_factor"]))
            parts.append(self.projected(features)[0, :places])
        return torch.cat(parts)

    def encoded(self, mel: torch.Tensor, attended: int) -> torch.Tensor:
        tower = self.audio_tower
        hidden = torch.nn.functional.gelu(tower.conv2(torch.nn.functional.gelu(tower.conv1(mel)))).transpose(1, 2)
        hidden = hidden + tower.embed_positions.weight[: hidden.shape[1]]
        mask = torch.zeros(1, 1, 1, hidden.shape[1], dtype=hidden.dtype)
        mask[..., attended:] = torch.finfo(hidden.dtype).min
        for layer in tower.layers:
            hidden = layer(hidden, mask)
        return tower.layer_norm(hidden)

    def projected(self, features: torch.Tensor) -> torch.Tensor:
        part, stack = self.multi_modal_projector, self.settings["stack_factor"]
        missing = -features.shape[1] % stack
        x = torch.cat([features, features.new_zeros(1, missing, features.shape[2])], dim=1)
        x = part["linear_1"](part["ln_pre"](x.reshape(1, -1, stack * features.shape[2])))
        if self.settings["projector_act"] == "swiglu":
            half = x.shape[-1] // 2
            x = x[..., half:] * x[..., half:].sigmoid() * x[..., :half]
        else:
            x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
        if "ln_mid" in part:
            return part["linear_2"](part["ln_mid"](x))
        return part["ln_post"](part["linear_2"](x))

    def embedded(
        self,
        input_ids: torch.Tensor,
        input_features: torch.Tensor | None = None,
        frames: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        out = self.language_model.get_input_embeddings()(input_ids)
        if input_features is not None and frames is not None:
            mels = input_features.split(frames.tolist(), dim=1)
            out[0, places] = torch.cat([self.heard(mel) for mel in mels])
        return out

    def forward(self, **inputs: Any) -> Any:
        return self.language_model(inputs_embeds=self.embedded(**inputs))

    def generate(self, *, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        media = {name: options.pop(name) for name in ("input_features", "frames", "places") if name in options}
        embedded = self.embedded(input_ids, **media)
        mask = torch.ones(embedded.shape[:2], dtype=torch.int64)
        new = self.language_model.generate(inputs_embeds=embedded, attention_mask=mask, pad_token_id=0, **options)
        return torch.cat([input_ids, new], dim=1)

    def save_pretrained(self, folder: Path) -> None:
        config = {"model_type": "ultravox", "audio_config": self.audio.to_dict(), "text_config": self.text.to_dict()}
        (folder / "config.json").write_text(json.dumps(config | self.settings, default=str))
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)
