"""Encoders and transcribers from Hugging Face directories."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sensorium.encoders.audio import (
    AudioConfig,
    WhisperEncoder,
    audio_config,
    audio_families,
    load_audio_encoder,
    load_transcriber,
)
from sensorium.encoders.errors import CheckpointError, InvalidInputError, UnknownFamilyError
from torch import Tensor, nn
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    Qwen2Config,
    VoxtralConfig,
    VoxtralEncoder,
    VoxtralEncoderConfig,
)

MakeNetwork = Callable[..., WhisperEncoder]
SIZES = {"num_mel_bins": 80, "max_source_positions": 76}
WHISPER = SIZES | {"d_model": 30, "encoder_layers": 3, "encoder_attention_heads": 5, "encoder_ffn_dim": 37}
VOXTRAL = SIZES | {"hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 37}


def write(directory: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, directory / "model.safetensors")
    return directory


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def assert_equal(ours: WhisperEncoder, weights: Mapping[str, Tensor]) -> None:
    state = ours.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in state)
    assert not ours.training


def test_whisper_as_transformers_saves_it(their_whisper: Any, tmp_path: Path) -> None:
    their_whisper.save_pretrained(tmp_path / "whole")
    their_whisper.model.save_pretrained(tmp_path / "bare")
    expected = their_whisper.model.encoder.state_dict()
    for name in ("whole", "bare"):
        encoder = load_audio_encoder(tmp_path / name)
        assert_equal(encoder.network, expected)
        assert encoder.config == AudioConfig(width=30, layers=3, heads=5, mlp_size=37, positions=76, overlap=18)


def test_an_encoder_by_itself_and_in_bfloat16(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network().bfloat16()
    write(tmp_path, {"model_type": "whisper", **WHISPER}, network.state_dict())
    assert_equal(load_audio_encoder(tmp_path, dtype=torch.bfloat16).network, network.state_dict())
    as_float = {name: tensor.float() for name, tensor in network.state_dict().items()}
    assert_equal(load_audio_encoder(str(tmp_path)).network, as_float)


@pytest.mark.parametrize("prefix", ["audio_tower.", "model.audio_tower."])
def test_qwen2_audio(tmp_path: Path, prefix: str) -> None:
    config = Qwen2AudioEncoderConfig(**WHISPER)
    tower, whole = Qwen2AudioEncoder(config), Qwen2AudioConfig(audio_config=config, text_config=Qwen2Config())
    weights = prefixed(prefix, tower) | {"language_model.model.norm.weight": torch.zeros(3)}
    encoder = load_audio_encoder(write(tmp_path, whole.to_dict(), weights))
    assert_equal(encoder.network, tower.state_dict())
    assert (encoder.config.pool, encoder.config.masked, encoder.config.trim) == (2, True, False)
    assert load_audio_encoder(write(tmp_path / "tower", config.to_dict(), tower.state_dict())).config == encoder.config


@pytest.mark.parametrize("prefix", ["audio_tower.", "model.audio_tower."])
def test_voxtral(tmp_path: Path, prefix: str) -> None:
    config = VoxtralEncoderConfig(**VOXTRAL)
    tower, whole = VoxtralEncoder(config), VoxtralConfig(audio_config=config)
    weights = prefixed(prefix, tower) | {"multi_modal_projector.linear_1.weight": torch.zeros(3, 5)}
    encoder = load_audio_encoder(write(tmp_path, whole.to_dict(), weights))
    assert_equal(encoder.network, tower.state_dict())
    assert (encoder.config.overlap, encoder.config.keep_padding, encoder.config.pool) == (0, True, 1)
    assert load_audio_encoder(write(tmp_path / "tower", config.to_dict(), tower.state_dict())).config == encoder.config


def test_ultravox(make_network: MakeNetwork, tmp_path: Path) -> None:
    network = make_network()
    config = {"model_type": "ultravox", "audio_config": {"model_type": "whisper", **WHISPER}}
    weights = prefixed("audio_tower.", network) | {"multi_modal_projector.ln_pre.weight": torch.zeros(3)}
    encoder = load_audio_encoder(write(tmp_path, config, weights))
    assert_equal(encoder.network, network.state_dict())
    assert (encoder.config.masked, encoder.trim, encoder.config.overlap) == (True, True, 0)
    assert not load_audio_encoder(tmp_path, trim=False).trim


def test_ultravox_may_publish_its_projector_alone(tmp_path: Path) -> None:
    config = {"model_type": "ultravox", "audio_config": WHISPER, "audio_model_id": "openai/whisper-small"}
    write(tmp_path, config, {"multi_modal_projector.ln_pre.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="openai/whisper-small"):
        load_audio_encoder(tmp_path)
    write(tmp_path, config | {"audio_latency_block_size": 100}, {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="audio_latency_block_size 100"):
        load_audio_encoder(tmp_path)


def test_published_sizes_are_the_defaults() -> None:
    large = {"mel_bins": 128, "width": 1280, "layers": 32, "heads": 20, "mlp_size": 5120}
    for kind in ("qwen2_audio", "voxtral"):
        config = audio_config({"model_type": kind})
        assert {name: getattr(config, name) for name in large} == large
    assert audio_config({"model_type": "whisper"}) == AudioConfig()
    assert audio_config({"model_type": "whisper"}).window_samples == 480_000


def test_unknown_families_are_told_the_known_ones(tmp_path: Path) -> None:
    for config in ({"model_type": "wav2vec2"}, {}, {"model_type": ["whisper"]}):
        write(tmp_path, config, {"x": torch.zeros(1)})
        with pytest.raises(UnknownFamilyError) as caught:
            load_audio_encoder(tmp_path)
        assert all(name in str(caught.value) for name in audio_families())


HOSTILE = (
    {"encoder_layers": 10**9},
    {"encoder_layers": -1},
    {"encoder_layers": 2.5},
    {"encoder_layers": None},
    {"encoder_layers": True},
    {"encoder_layers": "3"},
    {"d_model": 1 << 60},
    {"d_model": 31},
    {"encoder_attention_heads": 7},
    {"encoder_attention_heads": 0},
    {"num_mel_bins": [80]},
    {"max_source_positions": 0},
    {"max_source_positions": 1 << 40},
    {"activation_function": "relu2"},
    {"activation_function": ["gelu"]},
    {"encoder_ffn_dim": 1 << 18, "d_model": 1 << 15, "encoder_attention_heads": 64, "encoder_layers": 256},
    {"encoder_layers": 4},
    {"encoder_layers": 2},
    {"encoder_ffn_dim": 38},
)


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_hostile_configurations(make_network: MakeNetwork, tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, {"model_type": "whisper", **WHISPER, **change}, prefixed("model.encoder.", make_network()))
    with pytest.raises(CheckpointError) as caught:
        load_audio_encoder(tmp_path)
    assert len(str(caught.value)) < 1_500


def test_parts_that_are_no_objects(tmp_path: Path) -> None:
    for part in (3, "x", [1]):
        with pytest.raises(CheckpointError, match="audio_config"):
            audio_config({"model_type": "voxtral", "audio_config": part})


def test_damaged_weights(make_network: MakeNetwork, tmp_path: Path) -> None:
    weights, config = prefixed("encoder.", make_network()), {"model_type": "whisper", **WHISPER}
    without = {name: tensor for name, tensor in weights.items() if name != "encoder.layers.1.fc1.bias"}
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.1\.fc1\.bias"):
        load_audio_encoder(write(tmp_path, config, without))
    with pytest.raises(CheckpointError, match=r"encoder\.extra"):
        load_audio_encoder(write(tmp_path, config, weights | {"encoder.extra": torch.zeros(1)}))
    broken = weights | {"encoder.layer_norm.bias": torch.full((30,), torch.nan)}
    with pytest.raises(CheckpointError, match=r"encoder\.layer_norm\.bias"):
        load_audio_encoder(write(tmp_path, config, broken))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no missing"):
        load_audio_encoder(tmp_path / "missing")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        load_audio_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(CheckpointError, match="no weights"):
        load_audio_encoder(tmp_path)
    with pytest.raises(CheckpointError, match="no CTranslate2 model"):
        load_audio_encoder(tmp_path / "config.json")


@pytest.mark.parametrize("pool", [0, 3])
def test_configurations_that_contradict_themselves(pool: int) -> None:
    with pytest.raises(InvalidInputError):
        AudioConfig(positions=76, overlap=10, pool=pool)
    with pytest.raises(InvalidInputError):
        AudioConfig(positions=20, overlap=10)


def test_only_whisper_has_a_decoder(tmp_path: Path) -> None:
    config = VoxtralEncoderConfig(**VOXTRAL)
    write(tmp_path, config.to_dict(), VoxtralEncoder(config).state_dict())
    with pytest.raises(UnknownFamilyError, match="Only Whisper"):
        load_transcriber(tmp_path)


def test_large_v3_has_its_published_size() -> None:
    with torch.device("meta"):
        network = WhisperEncoder(AudioConfig(mel_bins=128, width=1280, layers=32, heads=20, mlp_size=5120))
    assert sum(parameter.numel() for parameter in network.parameters()) == 636_968_960
