"""Multimodal checkpoints that hear as bundles: sounds in, the torch engine's tokens out, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from sensorium import sdk
from sensorium.mobile_export.bundle import file_entries, read_manifest, write_manifest

from .small_towers import small_listener

Pair: TypeAlias = tuple[sdk.Model, sdk.Model, Path]
# Of towers that hear two seconds: a place's share, all windows but for the last sample, one more, and several windows.
LENGTHS = [643, 11_777, 31_999, 32_001, 33_000, 64_000, 77_003]
PROGRAM = """
import json, sys
import numpy as np
from sensorium import sdk
model = sdk.load(sys.argv[1])
sound = sdk.Audio(np.sin(np.arange(11_777, dtype=np.float32) ** 1.3 / 90), rate=16_000)
assert sdk.verify(sys.argv[1]).passed
tokens = model.ask("What is said?", sound, max_new_tokens=9).tokens
print(list(tokens), [name for name in ("torch", "transformers", "onnx") if name in sys.modules])
"""


def sound(samples: int) -> sdk.Audio:
    """A tone that rises and falls in loudness, over noise."""
    noise = np.random.default_rng(samples).standard_normal(samples) * 0.03
    tone = np.sin(np.arange(samples) ** 1.3 / 90) * np.sin(np.arange(samples) / 2500) ** 2
    return sdk.Audio((0.3 * tone + noise).astype(np.float32), rate=16_000)


@pytest.fixture(scope="module", params=["ultravox", "ultravox-4", "qwen2-audio", "voxtral-pairs"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A checkpoint run by torch, its bundle in 32 bits, and the bundle's place."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = small_listener(folder / "checkpoint", request.param)
    sdk.export(checkpoint, folder / "out", quant="fp32", figures=False)
    return sdk.load(checkpoint, dtype="float32", device="cpu"), sdk.load(folder / "out"), folder / "out"


def assert_same(theirs: sdk.Model, ours: sdk.Model, *parts: sdk.Part) -> None:
    expected, found = theirs.encode(*parts), ours.encode(*parts)
    assert (found.tokens, found.spans) == (expected.tokens, expected.spans)
    want, got = theirs.logits(expected), ours.logits(found)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    assert ours.ask(*parts, max_new_tokens=9).tokens == theirs.ask(*parts, max_new_tokens=9).tokens


def test_sounds_are_heard_as_with_torch(pair: Pair) -> None:
    for samples in LENGTHS:
        assert_same(*pair[:2], "What is said?", sound(samples))
    assert_same(*pair[:2], "One", sound(9_001), "and", sound(40_000), "What is in them?")
    assert_same(*pair[:2], "What is a cat?")


def test_a_bundle_proves_itself_and_says_what_it_hears(pair: Pair) -> None:
    found = sdk.verify(pair[2])
    assert found.passed and found.goldens[-1].name == "audio: What is said?"
    assert found.manifest.modalities == pair[1].modalities == ("text", "audio")
    assert found.manifest.interfaces["audio-encoder"]["inputs"]["frames"] == "int64 [1]"


@pytest.mark.parametrize("pair", ["ultravox"], indirect=True)
def test_sounds_are_heard_without_torch(pair: Pair) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(pair[2])], capture_output=True, text=True, timeout=120, check=True
    )
    heard = sdk.Audio(np.sin(np.arange(11_777, dtype=np.float32) ** 1.3 / 90), rate=16_000)
    expected = pair[0].ask("What is said?", heard, max_new_tokens=9).tokens
    assert found.stdout.strip() == f"{list(expected)} []"


@pytest.mark.parametrize("pair", ["ultravox", "voxtral-pairs"], indirect=True)
def test_damaged_descriptions_are_refused(pair: Pair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pair[2], tmp_path / "copy"))
    path, manifest = copy / "media" / "audio.json", read_manifest(copy)
    good = json.loads(path.read_text())
    plans = [{"positions": 99}, {"positions": -1}, {"group": 0}, {"pool": "2"}, {"overlap": 700}, {"smell": 1}]
    changes = [{"mark": None}, {"around": ["<"]}, {"stand_in": 3}, {"plan": None}]
    changes += [{"plan": good["plan"] | change} for change in plans]
    for change in changes:
        if change == {"plan": good["plan"] | {"overlap": 700}} and good["plan"]["stack"]:
            continue  # windows side by side have none
        path.write_text(json.dumps(good | change))
        write_manifest(copy, replace(manifest, files=file_entries(copy)))
        with pytest.raises(sdk.CheckpointError):
            sdk.load(copy).encode("?", sound(643))


def test_towers_follow_the_plan_of_fewer_bits(tmp_path: Path) -> None:
    checkpoint = small_listener(tmp_path / "checkpoint", "ultravox")
    sdk.export(checkpoint, tmp_path / "out", quant="int4", figures=False)
    assert sdk.verify(tmp_path / "out").passed
    assert len(sdk.load(tmp_path / "out").ask("What is said?", sound(9_001), max_new_tokens=5).tokens) == 5
    graph = onnx.load(tmp_path / "out" / "audio_encoder.onnx", load_external_data=False).graph
    # Six linear layers in each block, and two of the projector.
    assert [node.op_type for node in graph.node].count("MatMulNBits") % 6 == 2
