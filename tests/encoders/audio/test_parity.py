"""Features against transformers' encoders: tiny sizes, the weights passed by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sensorium.encoders.audio import AudioEncoder, WhisperEncoder
from sensorium.encoders.media import AudioData
from torch import Tensor
from transformers import (
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    VoxtralEncoder,
    VoxtralEncoderConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.activations import ACT2FN
from transformers.models.whisper.modeling_whisper import WhisperEncoder as TheirWhisperEncoder

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
WINDOW = 76 * 320
MakeNetwork = Callable[..., WhisperEncoder]
MakeSound = Callable[[int], AudioData]


def theirs(kind: str, network: WhisperEncoder) -> Any:
    """Their encoder with our weights."""
    ours = network.config
    sizes = {"num_mel_bins": ours.mel_bins, "max_source_positions": ours.positions}
    if kind == "voxtral":
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    else:
        names = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    sizes |= dict(zip(names, (ours.width, ours.layers, ours.heads, ours.mlp_size), strict=True))
    classes = {
        "whisper": (TheirWhisperEncoder, WhisperConfig),
        "qwen2_audio": (Qwen2AudioEncoder, Qwen2AudioEncoderConfig),
        "voxtral": (VoxtralEncoder, VoxtralEncoderConfig),
    }
    model, config = classes[kind]
    built = model(config(**sizes)).eval().to(network.conv1.weight.dtype)
    built.load_state_dict(network.state_dict())
    return built


def key_mask(attended: Tensor, size: int) -> Tensor:
    """Minus infinity where a feature is not attended to, [B, 1, 1, T]."""
    return torch.zeros(len(attended), size).masked_fill(torch.arange(size) >= attended[:, None], -torch.inf)[
        :, None, None
    ]


def assert_close(ours: Tensor, expected: Tensor) -> None:
    """Within the tolerance of the dtype, relative to the largest feature."""
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max() / expected.abs().max()) <= TOLERANCE[ours.dtype]


def plain_mel(samples: np.ndarray, **options: Any) -> Tensor:
    """Their spectrogram, padded to one window unless told otherwise."""
    options = {"padding": "max_length", "max_length": WINDOW, "return_tensors": "pt"} | options
    return WhisperFeatureExtractor()(samples, sampling_rate=16_000, **options).input_features


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["whisper", "voxtral"])
def test_whisper_and_voxtral(make_network: MakeNetwork, kind: str, dtype: torch.dtype) -> None:
    network = make_network(mel_bins=13, positions=33, overlap=0).to(dtype)
    mel = torch.randn(3, 13, 66, dtype=dtype)
    assert_close(network(mel), theirs(kind, network)(mel).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_qwen2_audio(make_network: MakeNetwork, dtype: torch.dtype) -> None:
    network = make_network(mel_bins=13, positions=34, pool=2, masked=True).to(dtype)
    mel, attended = torch.randn(4, 13, 68, dtype=dtype), torch.tensor([1, 7, 33, 34])
    mask = key_mask(attended, 34).to(dtype)
    assert_close(network(mel, attended=attended), theirs("qwen2_audio", network)(mel, attention_mask=mask)[0])


def ultravox(model: Any, mel: Tensor, attended: Tensor) -> Tensor:
    """What Ultravox's encoder does, with transformers' layers: shorter windows, positions cut, padding masked."""
    hidden = torch.nn.functional.gelu(model.conv1(mel))
    hidden = torch.nn.functional.gelu(model.conv2(hidden)).transpose(1, 2)
    hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
    for layer in model.layers:
        hidden = layer(hidden, key_mask(attended, hidden.shape[1]).to(hidden.dtype))
    return model.layer_norm(hidden)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [2, 3, 41, 152])
def test_ultravox(make_network: MakeNetwork, frames: int, dtype: torch.dtype) -> None:
    network = make_network(masked=True, trim=True).to(dtype)
    mel, attended = torch.randn(2, 80, frames, dtype=dtype), torch.tensor([1, -(-frames // 2)])
    assert_close(network(mel, attended=attended), ultravox(theirs("whisper", network), mel, attended))


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 320, 321, 7_777, WINDOW])
def test_a_padded_sound_through_whisper(make_network: MakeNetwork, make_sound: MakeSound, samples: int) -> None:
    network, sound = make_network(), make_sound(samples)
    out = AudioEncoder(network).encode([sound])
    expected = theirs("whisper", network)(plain_mel(sound.samples)).last_hidden_state
    assert out.lengths.tolist() == [-(-samples // 320)]
    torch.testing.assert_close(out.features, expected[:, : out.lengths[0]], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 640, 641, 1_000, 7_777, WINDOW])
def test_a_sound_through_qwen2_audio(make_network: MakeNetwork, make_sound: MakeSound, samples: int) -> None:
    network, sound = make_network(pool=2, masked=True), make_sound(samples)
    out = AudioEncoder(network).encode([sound])
    frames = -(-samples // 160)  # from here on as in Qwen2AudioModel
    attended = (frames - 1) // 2 + 1
    model = theirs("qwen2_audio", network)
    mask = key_mask(torch.tensor([attended]), 76)
    expected = model(plain_mel(sound.samples), attention_mask=mask).last_hidden_state
    count = (attended - 2) // 2 + 1
    assert out.lengths.tolist() == [max(1, count)]  # Qwen2-Audio gives nothing at all for less than 20 ms
    torch.testing.assert_close(out.features, expected[:, : out.lengths[0]], rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_long_sound_through_voxtral(make_network: MakeNetwork, make_sound: MakeSound) -> None:
    network, sound = make_network(overlap=0, keep_padding=True), make_sound(WINDOW * 2 + 5_001)
    out = AudioEncoder(network).encode([sound])
    mel = plain_mel(sound.samples, padding="longest", pad_to_multiple_of=WINDOW, truncation=False, max_length=None)
    windows = mel.reshape(80, -1, 152).transpose(0, 1)  # as in VoxtralProcessor
    expected = theirs("voxtral", network)(windows).last_hidden_state.flatten(0, 1)
    assert out.lengths.tolist() == [3 * 76]
    torch.testing.assert_close(out.features[0], expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 320, 481, 7_777, WINDOW])
def test_a_sound_through_ultravox(make_network: MakeNetwork, make_sound: MakeSound, samples: int) -> None:
    network, sound = make_network(masked=True, trim=True, overlap=0), make_sound(samples)
    out = AudioEncoder(network).encode([sound])
    padded = np.pad(sound.samples, (0, max(0, 320 - samples)))  # as in UltravoxProcessor
    mel = plain_mel(padded, padding="longest", pad_to_multiple_of=160, truncation=False, max_length=None)
    expected = ultravox(theirs("whisper", network), mel, torch.tensor([-(-mel.shape[-1] // 2)]))
    torch.testing.assert_close(out.features, expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("ours", "name"), [("gelu_tanh", "gelu_pytorch_tanh"), ("relu", "relu"), ("silu", "silu")])
def test_other_activations(make_network: MakeNetwork, ours: str, name: str) -> None:
    network = make_network(mel_bins=13, positions=33, overlap=0, activation=ours)
    model, mel = theirs("whisper", network), torch.randn(2, 13, 66)
    for layer in model.layers:
        layer.activation_fn = ACT2FN[name]
    assert_close(network(mel), model(mel).last_hidden_state)


@torch.no_grad()
def test_half_precision_follows(make_network: MakeNetwork) -> None:
    network = make_network(mel_bins=13, positions=33, overlap=0)
    mel = torch.randn(2, 13, 66)
    full = network(mel)
    for dtype, bound in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        half = network.to(dtype)(mel)
        assert half.dtype == dtype
        assert float((half.float() - full).norm() / full.norm()) < bound
