"""What Ultravox alone does: windows for longer sounds, a placeholder without an embedding, parts that are apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from sensorium import sdk

from .hearing import WEIGHTS, Asking, Sounds, model_of


@pytest.fixture(scope="module", params=["ultravox", "ultravox-4"])
def reference(request: pytest.FixtureRequest, made: Any, tiny_tokenizer: Any, text: dict[str, Any]) -> Any:
    """A random Ultravox whose tokenizer lacks the placeholder, and one whose tokenizer has it behind all others."""
    return made(request.param, lambda: model_of(request.param, tiny_tokenizer, text))


@pytest.mark.parametrize("samples", [32_001, 32_161, 33_000, 47_777, 64_000, 77_003])
def test_longer_sounds(samples: int, reference: Any, sounds: Sounds, equals_reference: Any, asking: Asking) -> None:
    """Up to 4.8 s through a tower of 2 s."""
    equals_reference(reference, asking("One", sounds["long"][:samples], "and", sounds["click"], "What?"))


def test_the_placeholder_needs_no_embedding(reference: Any, sounds: Sounds, tmp_path: Path) -> None:
    ours = sdk.load(reference.folder)
    assert ours.tokenizer.vocabulary_size == ours.tokenizer.embeddings + 1
    plan = ours.encode("<|audio|> and </s>", sdk.Audio(sounds["chirp"], rate=16_000), "<|aud")
    assert max(plan) < ours.tokenizer.embeddings
    assert "<|audio|> and </s>" in ours.explain("<|audio|> and </s>", sdk.Audio(sounds["chirp"], rate=16_000))
    ours.save(tmp_path / "text", text_only=True)
    again = sdk.load(tmp_path / "text")
    assert list(again.encode("What?")) == list(ours.encode("What?"))


def without(folder: Path, target: Path, prefix: str, fields: dict[str, Any], *dropped: str) -> Path:
    """A copy that lacks a part."""
    shutil.copytree(folder, target)
    tensors = {name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if not name.startswith(prefix)}
    save_file(tensors, target / WEIGHTS)
    config = json.loads((folder / "config.json").read_text()) | fields
    (target / "config.json").write_text(json.dumps({name: config[name] for name in config if name not in dropped}))
    return target


@pytest.mark.parametrize("dropped", [(), ("text_config",)])
def test_a_missing_text_model_is_named(dropped: tuple[str, ...], reference: Any, tmp_path: Path) -> None:
    fields = {"text_model_id": "someone/llama"}
    folder = without(reference.folder, tmp_path / "x", "language_model.", fields, *dropped)
    for call in (sdk.load, sdk.describe):
        with pytest.raises(sdk.CheckpointError, match="no text model") as caught:
            call(folder)
        assert all(part in str(caught.value) for part in ("someone/llama", "text_config", "language_model."))


def test_a_missing_tower_is_named(reference: Any, tmp_path: Path) -> None:
    folder = without(reference.folder, tmp_path / "x", "audio_tower.", {"audio_model_id": "someone/whisper"})
    with pytest.raises(sdk.CheckpointError, match="no audio tower") as caught:
        sdk.load(folder)
    assert "someone/whisper" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stack_factor": 0}, "stack_factor"),
        ({"stack_factor": "8"}, "stack_factor"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"hidden_size": 43}, "hidden_size"),
        ({"projector_act": "tan"}, "tan"),
        ({"audio_latency_block_size": 100}, "latency"),
    ],
)
def test_wrong_configurations_are_refused(fields: dict[str, Any], words: str, reference: Any, tmp_path: Path) -> None:
    folder = without(reference.folder, tmp_path / "x", "none.", fields)
    with pytest.raises(sdk.CheckpointError, match=words):
        sdk.load(folder)
