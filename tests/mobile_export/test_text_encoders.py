"""Bundles of text encoders: the vectors of torch, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensorium import sdk
from sensorium.encoders.text.pooling import PoolingConfig
from sensorium.encoders.text.weights import load_text_encoder
from sensorium.mobile_export.bundle import file_entries, read_manifest, write_manifest
from sensorium.mobile_export.export_text_encoder import TextEncoderSource, export_text_encoder
from sensorium.mobile_export.quantization import QUANTIZATIONS
from sensorium.mobile_export.text_encoder import EMBEDDING_GOLDENS, TextEncoderBundle, check_embedding_goldens

from ..checkpoints import TEXT_ENCODERS, text_encoder

SETTINGS = {"kinds": ["mean"], "normalised": False, "prompt": "", "longest": 9, "feature_size": 384}
TEXTS = ["a cab", "", "bad dad had a cab", "zzz", "a b c d e f g h i j", "fed by a dog", "c a b " * 19]


@pytest.mark.parametrize("name", sorted(TEXT_ENCODERS))
@pytest.mark.parametrize("kinds", [("mean",), ("cls", "max", "mean")])
def test_vectors_are_those_of_torch(name: str, kinds: Any, tmp_path: Path) -> None:
    """Rows of different lengths together, a text without words, and one of many windows."""
    text_encoder(name, tmp_path / "model")
    pooling = PoolingConfig(kinds=kinds, normalised=len(kinds) > 1, prompt="be ")
    encoder = load_text_encoder(tmp_path / "model", pooling=pooling)
    source = TextEncoderSource(encoder=encoder, name=name, family=name)
    export_text_encoder(source, tmp_path / "out", QUANTIZATIONS["fp32"], figures=False)
    bundle = TextEncoderBundle(tmp_path / "out", threads=1)
    assert (bundle.pooling, bundle.embedding_size) == (pooling, encoder.embedding_size)
    for texts, prompt in ((TEXTS, None), (TEXTS[:1], "a "), (TEXTS[-1:], "")):
        expected = encoder.embed(texts, prompt=prompt).numpy()
        np.testing.assert_allclose(bundle.embed(texts, prompt=prompt), expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real model in fewer bits."""
    folder = tmp_path_factory.mktemp("minilm")
    for quant in ("int8", "int4"):
        sdk.export("minilm", folder / quant, quant=quant)
    return {quant: folder / quant for quant in ("int8", "int4")}


def test_the_real_model_stays_close_in_fewer_bits(bundles: dict[str, Path]) -> None:
    texts = ["How do I reset my password?", "Rates rose by half a percent.", "A long word: " * 200]
    exact = sdk.load_embedder(engine="torch").embed(texts)
    most = {"int8": (2e-3, 27e6), "int4": (5e-2, 24e6)}
    for quant, (away, size) in most.items():
        info = sdk.describe(bundles[quant])
        assert isinstance(info, sdk.BundleInfo) and info.bytes < size and info.context_length == 256
        assert info.figures["cosine"] > 1 - away and info.figures["same_nearest"] > 0.9
        found = sdk.load_embedder(bundles[quant]).embed(texts)
        assert (1 - (exact * found).sum(1)).max() < away
        assert sdk.verify(bundles[quant]).passed


def test_minilm_runs_without_torch() -> None:
    sdk.load_embedder(device="cpu")  # making the bundle needs torch
    program = """
import json, sys
import sensorium.sdk as sdk
embedder = sdk.load_embedder(device="cpu")
print(json.dumps(embedder.embed(["a cat", "two dogs " * 200]).tolist()))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    exact = sdk.load_embedder(engine="torch").embed(["a cat", "two dogs " * 200])
    np.testing.assert_allclose(json.loads(done.stdout), exact, atol=2e-6)


def test_what_is_damaged_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    for file in ("model.onnx", "tokenizer.json", "text_encoder.json", EMBEDDING_GOLDENS, "manifest.json"):
        copy = tmp_path / file.replace("/", "-")
        shutil.copytree(bundles["int4"], copy)
        data = bytearray((copy / file).read_bytes())
        data[len(data) // 2] ^= 64
        (copy / file).write_bytes(data)
        with pytest.raises((sdk.IntegrityError, sdk.CheckpointError)):
            sdk.load_embedder(copy)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("text_encoder.json", "{}"),
        (
            "text_encoder.json",
            '{"kinds": ["last"], "normalised": false, "prompt": "", "longest": 9, "feature_size": 9}',
        ),
        (
            "text_encoder.json",
            '{"kinds": ["mean"], "normalised": false, "prompt": "", "longest": 1, "feature_size": 9}',
        ),
        (EMBEDDING_GOLDENS, "{}"),
        (EMBEDDING_GOLDENS, '{"goldens": [{"text": "a", "vector": [1.0], "tolerance": 1.0}]}'),
        ("model.onnx", "no graph"),
    ],
)
def test_a_hostile_bundle_is_one_error(file: str, content: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    """Whose hashes are right."""
    copy = tmp_path / "copy"
    shutil.copytree(bundles["int4"], copy)
    (copy / file).write_text(content)
    write_manifest(copy, replace(read_manifest(copy), files=file_entries(copy)))
    with pytest.raises(sdk.CheckpointError):
        check_embedding_goldens(TextEncoderBundle(copy))


def test_bundles_are_not_mistaken(bundles: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(sdk.CheckpointError, match="load_embedder"):
        sdk.load(bundles["int8"])
    with pytest.raises(sdk.CheckpointError, match="text encoder"):
        sdk.load_embedder(bundle)
    with pytest.raises(sdk.OptionError, match="as it was exported"):
        sdk.load_embedder(bundles["int8"], dtype="bfloat16")
    with pytest.raises(sdk.OptionError, match="mixed"):
        sdk.export("minilm", tmp_path / "out", quant="mixed")
    with pytest.raises(sdk.OptionError, match="target=android"):
        sdk.export("minilm", tmp_path / "out", quant="int8", target="android")
    with pytest.raises(sdk.InvalidInputError, match="something already"):
        sdk.export("minilm", bundles["int8"], quant="int8")
    assert not (tmp_path / "out").exists()
