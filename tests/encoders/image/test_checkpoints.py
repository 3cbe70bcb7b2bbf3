"""Directories of strangers: damaged, hostile, of unknown kinds; each gives one clear error in little memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sensorium import sdk
from sensorium.encoders.image import VisionEncoder, load_image_encoder
from sensorium.encoders.image.read_config import vision_model_types
from torch import Tensor

References = Callable[[str], tuple[Any, Path]]


@pytest.fixture
def folder(reference: References, tmp_path: Path) -> Path:
    """A copy of a ViT's directory, to be damaged."""
    return Path(shutil.copytree(reference("vit-classifier")[1], tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def configure(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(folder: Path, match: str | None) -> None:
    with pytest.raises(sdk.CheckpointError, match=match) as caught:
        load_image_encoder(folder)
    assert len(str(caught.value)) < 2_000


def test_damaged_weights(folder: Path) -> None:
    name = "vit.encoder.layer.2.layernorm_after.weight"
    whole = (folder / "model.safetensors").read_bytes()
    rewrite(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name})
    refused(folder, rf"tensors are missing[\s\S]*{name}")
    (folder / "model.safetensors").write_bytes(whole)
    rewrite(folder, lambda tensors: tensors | {name: torch.ones(25)})
    refused(folder, rf"{name} has another shape[\s\S]*\[25\][\s\S]*\[24\]")
    (folder / "model.safetensors").write_bytes(whole)
    rewrite(folder, lambda tensors: tensors | {name: torch.ones(24, dtype=torch.int8)})
    refused(folder, rf"{name} holds another kind of numbers")
    (folder / "model.safetensors").write_bytes(whole)
    rewrite(folder, lambda tensors: tensors | {"vit.encoder.layer.4.output.dense.bias": torch.ones(24)})
    refused(folder, r"layer\.4\.output\.dense\.bias")
    (folder / "model.safetensors").write_bytes(whole[:-100])
    refused(folder, "truncated")
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights")
    rewritten = {"something": torch.ones(3)}
    save_file(rewritten, folder / "model.safetensors")
    refused(folder, "none of a patch embedding")


@pytest.mark.parametrize("shape", [(1, 1, 25), (24,), (1, 2, 24), ()])
def test_a_class_token_of_another_shape(folder: Path, shape: tuple[int, ...]) -> None:
    rewrite(folder, lambda tensors: tensors | {"vit.embeddings.cls_token": torch.ones(shape)})
    if shape == (24,):  # what we call it; taken
        assert isinstance(load_image_encoder(folder), VisionEncoder)
    else:
        refused(folder, r"vit\.embeddings\.cls_token has another shape")


def test_older_pickles_and_index_buffers(reference: References, tmp_path: Path) -> None:
    """A full CLIP as it was published: a pickle, with buffers of positions that newer files leave out."""
    model, folder = reference("clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.embeddings.position_ids"] = torch.arange(50)[None]
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    shutil.copy(folder / "config.json", tmp_path)
    images = torch.randn(2, 3, 35, 35)
    loaded = load_image_encoder(tmp_path)
    assert isinstance(loaded, VisionEncoder)
    with torch.no_grad():
        theirs = model.float().vision_model(images).last_hidden_state
        assert torch.allclose(loaded.network(images), theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_unknown_kinds_list_the_known_ones(folder: Path) -> None:
    for kind in ("llama", "resnet", None, 3, ["vit"], "x" * 10_000):
        configure(folder, model_type=kind)
        with pytest.raises(sdk.UnknownFamilyError, match="siglip2_vision_model") as caught:
            load_image_encoder(folder)
        assert all(name in str(caught.value) for name in vision_model_types())
        assert len(str(caught.value)) < 1_000
    (folder / "config.json").unlink()
    refused(folder, r"no config\.json")


ABSURD: list[dict[str, Any]] = [
    {"hidden_size": 1 << 40},
    {"hidden_size": 0},
    {"hidden_size": "24"},
    {"hidden_size": True},
    {"hidden_size": 23},
    {"hidden_size": 10**400},
    {"num_hidden_layers": 1 << 30},
    {"num_hidden_layers": 1000},
    {"num_hidden_layers": -1},
    {"num_attention_heads": 7},
    {"num_attention_heads": 0},
    {"intermediate_size": 65_536, "hidden_size": 65_536, "num_attention_heads": 1},
    {"image_size": 1 << 15, "patch_size": 1},
    {"image_size": 3},
    {"image_size": [35, 40]},
    {"patch_size": [5, 6]},
    {"patch_size": 0},
    {"patch_size": None, "image_size": 7},
    {"num_channels": 4},
    {"hidden_act": "swish"},
    {"hidden_act": ["gelu"]},
    {"layer_norm_eps": "tiny"},
    {"layer_norm_eps": float("nan")},
    {"layer_norm_eps": -1},
    {"qkv_bias": True},
    {"vision_config": {"model_type": "llama"}},
]


@pytest.mark.parametrize("fields", ABSURD, ids=[str(fields)[:40] for fields in ABSURD])
def test_absurd_configurations(folder: Path, fields: dict[str, Any]) -> None:
    configure(folder, **fields)
    refused(folder, None)


def test_a_broken_preprocessor_file(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    for text in ("{", "[]", '{"size": "large"}', '{"do_thumbnail": true}'):
        path.write_text(text)
        refused(folder, r"preprocessor_config\.json")
