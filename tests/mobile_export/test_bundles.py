"""Bundles: exported, opened, verified, packed; and refused when anything in them is not as it was."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sensorium import sdk
from sensorium.mobile_export.bundle import FORMAT, MANIFEST, file_entries, pack, read_manifest, unpack, write_manifest
from sensorium.mobile_export.quantization import BlockFormat, Quantization
from sensorium.mobile_export.runtime import Bundle

WEIGHTS = "adapter_model.safetensors"
PROMPTS = ("Hello", "How are you?", "x" * 40)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.mark.parametrize("quant", ["fp32", "fp16", "int8", "int8-fp32", "int4-fast", "mixed"])
def test_a_bundle_answers_as_its_model(quant: str, checkpoint: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    manifest = sdk.export(checkpoint, tmp_path / "out", quant=quant, tell=steps.append)
    assert steps and not list(tmp_path.glob(".*"))  # nothing is left beside it
    torch_model, model = sdk.load(checkpoint, dtype="float32", device="cpu"), sdk.load(tmp_path / "out")
    assert model.engine.info.name == f"onnxruntime (cpu, {quant})" and model.modalities == ("text",)
    exact = torch_model.logits(torch_model.encode(PROMPTS[1]))
    found = model.logits(model.encode(PROMPTS[1]))
    bound = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.05, "int8-fp32": 0.04}.get(quant, 0.4)
    assert np.abs(found - exact).max() <= bound * np.abs(exact).max()
    assert manifest.figures["kl"] <= {"fp32": 1e-6, "fp16": 1e-3, "int8": 0.05, "int8-fp32": 0.05}.get(quant, 0.5)
    if quant == "fp32":
        assert manifest.figures["answers_changed"] == 0 and manifest.figures["agreement"] == 1
        for prompt in PROMPTS:
            assert model.ask(prompt, max_new_tokens=12).tokens == torch_model.ask(prompt, max_new_tokens=12).tokens


def test_the_same_model_gives_the_same_bytes(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    manifest = sdk.export(checkpoint, tmp_path / "again", quant="int4")
    assert manifest == read_manifest(bundle)


def test_an_adapter_is_merged(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(3)
    layer = "base_model.model.model.layers.1.mlp.down_proj"
    shapes = {f"{layer}.lora_A.weight": (5, 80), f"{layer}.lora_B.weight": (48, 5)}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}, adapter / WEIGHTS)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 5, "lora_alpha": 9}))
    manifest = sdk.export(checkpoint, tmp_path / "out", quant="fp32", adapter=adapter)
    assert str(adapter) in manifest.source
    tokens = sdk.load(bundle).encode(PROMPTS[1])
    tuned = sdk.load(checkpoint, adapter=adapter, dtype="float32", device="cpu").logits(tokens)
    plain = sdk.load(checkpoint, dtype="float32", device="cpu").logits(tokens)
    assert np.abs(tuned - plain).max() > 0.1 * np.abs(plain).max()
    assert np.abs(sdk.load(tmp_path / "out").logits(tokens) - tuned).max() <= 1e-5 * np.abs(tuned).max()
    with pytest.raises(sdk.OptionError, match="adapter"):
        sdk.load(bundle, adapter=adapter)


def test_batches_beams_and_seeds_work_as_with_torch(bundle: Path) -> None:
    model = sdk.load(bundle)
    for options in ({}, {"temperature": 0.9, "seed": 3}, {"beams": 3}):
        alone = [model.ask(prompt, max_new_tokens=9, **options).tokens for prompt in PROMPTS]  # type: ignore[arg-type]
        together = model.batch(PROMPTS, max_new_tokens=9, **options)  # type: ignore[arg-type]
        assert [result.tokens for result in together] == alone
    long = "a" * 1300  # several chunks, and buffers that grow
    tokens = model.encode(long)
    state, last = model.engine.prefill([tokens])
    np.testing.assert_allclose(last[0], model.logits(tokens)[-1], rtol=0, atol=0.05 * float(np.abs(last).max()))
    assert state.lengths == (len(tokens),)
    with pytest.raises(sdk.ContextLengthError, match="1600"):
        model.ask("a" * 1700)


def test_it_is_opened_and_run_without_torch(bundle: Path) -> None:
    program = f"""
import sys
from sensorium import sdk
assert sdk.load({str(bundle)!r}).ask("Hello", max_new_tokens=3).usage.new_tokens == 3
assert sdk.verify({str(bundle)!r}).passed
print([name for name in ("torch", "transformers", "onnx") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "[]"


def test_a_bundle_runs_as_it_was_exported(bundle: Path, checkpoint: Path) -> None:
    for options in (
        {"dtype": "float32"},
        {"device": "cuda"},
        {"engine": "torch"},
        {"cache_precision": "int8"},
        {"offload": "."},
        {"rolling": sdk.Rolling()},
    ):
        with pytest.raises(sdk.OptionError, match="as it was exported"):
            sdk.load(bundle, **options)  # type: ignore[arg-type]
    with pytest.raises(sdk.UnsupportedInputError, match="sensorium export"):
        sdk.load(checkpoint, engine="onnx")
    assert sdk.load(bundle, engine="onnx").ask("Hi", max_new_tokens=1).usage.new_tokens == 1


def test_verification_prints_what_it_saw(bundle: Path, copy: Path) -> None:
    found = sdk.verify(bundle)
    assert found.passed and len(found.goldens) == 4
    assert all(golden.difference <= 1e-5 and golden.same_tokens == golden.tokens for golden in found.goldens)
    # A bundle whose weights are others, and whose hashes say so, is whole, but no longer what its goldens show.
    weights = copy / "model.onnx_data"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(sdk.IntegrityError, match=r"model\.onnx_data"):
        sdk.verify(copy)
    write_manifest(copy, replace(read_manifest(copy), files=file_entries(copy)))
    assert not sdk.verify(copy).passed


def test_a_quantization_of_one_s_own(checkpoint: Path, tmp_path: Path) -> None:
    own = Quantization("own", BlockFormat(4, 64, "level"), "float32", {"down_proj": "float16"})
    manifest = sdk.export(checkpoint, tmp_path / "out", quant=own, figures=False)
    assert manifest.quantization == "own" and sdk.verify(tmp_path / "out").passed
    expected = sdk.load(checkpoint, dtype="float32", device="cpu").logits(list(range(5, 30)))
    assert (
        np.abs(sdk.load(tmp_path / "out").logits(list(range(5, 30))) - expected).max() <= 0.4 * np.abs(expected).max()
    )


def test_what_is_there_is_not_lost(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(sdk.InvalidInputError):
            sdk.export(checkpoint, other, quant="int8", overwrite=overwrite)
    assert (other / "letter.txt").read_text() == "dear"
    with pytest.raises(sdk.InvalidInputError, match="something already"):
        sdk.export(checkpoint, bundle)
    with pytest.raises(sdk.OptionError, match="quantization"):
        sdk.export(checkpoint, tmp_path / "new", quant="int3")
    with pytest.raises(sdk.OptionError, match="context"):
        sdk.export(checkpoint, tmp_path / "new", context_length=99_999)
    assert not (tmp_path / "new").exists()


def test_an_archive_holds_the_same(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "one.zip")
    pack(bundle, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    unpack(tmp_path / "one.zip", tmp_path / "back")
    assert file_entries(tmp_path / "back") == file_entries(bundle) and sdk.verify(tmp_path / "back").passed
    with pytest.raises(sdk.InvalidInputError):
        unpack(tmp_path / "one.zip", tmp_path / "back")


def altered(archive: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    with zipfile.ZipFile(out, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)


def test_hostile_archives_are_refused(bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "good.zip")
    changes: list[Callable[[dict[str, bytes]], None]] = [
        lambda members: members.update({"../outside.txt": b"x"}),
        lambda members: members.update({"extra.txt": b"x"}),
        lambda members: members.update({"config.json": members["config.json"] + b" "}),
        lambda members: members.update({MANIFEST: b"[" * 100_000}),
        lambda members: members.pop("config.json") and None,
        lambda members: members.pop(MANIFEST) and None,
    ]
    for number, change in enumerate(changes):
        altered(tmp_path / "good.zip", tmp_path / f"{number}.zip", change)
        with pytest.raises(sdk.CheckpointError):
            unpack(tmp_path / f"{number}.zip", tmp_path / "out")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "good.zip").read_bytes()[:-400])
    with pytest.raises(sdk.CheckpointError):
        unpack(tmp_path / "cut.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "outside.txt").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../up.json", "cannot be in a bundle"),
        ("/etc/passwd", "cannot be in a bundle"),
        ("a/b/c.json", "cannot be in a bundle"),
        ("c:\\x", "cannot be in a bundle"),
        ("nul.txt", "cannot be in a bundle"),
        (".hidden", "cannot be in a bundle"),
        ("gone.json", "has no gone.json"),
    ],
)
def test_a_manifest_names_only_what_is_in_the_bundle(copy: Path, name: str, problem: str) -> None:
    manifest = read_manifest(copy)
    write_manifest(copy, replace(manifest, files={**manifest.files, name: manifest.files["config.json"]}))
    with pytest.raises(sdk.CheckpointError, match=problem):
        Bundle(copy)


def test_links_newer_formats_and_other_sizes_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "config.json").rename(tmp_path / "elsewhere.json")
    (copy / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(sdk.IntegrityError, match=r"config\.json"):
        Bundle(copy)
    raw = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(raw | {"format": FORMAT + 1}))
    with pytest.raises(sdk.CheckpointError, match="update Sensorium"):
        sdk.load(copy)
    (copy / MANIFEST).write_text(json.dumps(raw))
    manifest, huge = read_manifest(copy), raw["decoder"] | {"layers": 10**9}
    for change in (
        {"decoder": {}},
        {"decoder": huge},
        {"graphs": {"decoder": "no.onnx"}},
        {"graphs": {"decoder": ["model.onnx"]}},
        {"figures": {"kl": "0.1"}},
    ):
        write_manifest(copy, replace(manifest, **change))
        for call in (sdk.load, sdk.describe):
            with pytest.raises(sdk.CheckpointError):
                call(copy)
    with pytest.raises(sdk.CheckpointError, match="no bundle"):
        Bundle(tmp_path)


def test_two_hundred_damaged_bundles_are_refused_or_detected(bundle: Path, tmp_path: Path) -> None:
    draw = random.Random(11)
    names = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    for number in range(200):
        name = names[number % len(names)]
        path, good = copy / name, (bundle / name).read_bytes()
        bad = bytearray(good)
        if number % 5 == 0:
            del bad[draw.randrange(len(bad)) :]
        else:
            for _ in range(draw.choice((1, 1, 3, 40))):
                bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        if bytes(bad) != good:
            with pytest.raises(sdk.SensoriumError):
                sdk.verify(copy)
        path.write_bytes(good)
    assert sdk.verify(copy).passed
