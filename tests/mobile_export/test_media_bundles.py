"""Bundles that read pictures and sounds: the plans and answers of the torch engine, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.fusion.checkpoints import LowRank
from sensorium.mobile_export.bundle import MANIFEST, file_entries, read_manifest, write_manifest
from sensorium.mobile_export.export import export_bundle
from sensorium.mobile_export.quantization import QUANTIZATIONS
from sensorium.mobile_export.runtime import DECODER, MEDIA_DECODER, Bundle

from .small_media import small_source, small_torch_model

NOISE = np.random.default_rng(5).integers(0, 256, (71, 53, 3), dtype=np.uint8)
PICTURES = [NOISE, NOISE[::2, ::3], np.zeros((1, 90, 3), np.uint8), np.full((300, 7, 3), 200, np.uint8), NOISE[:5]]
RATE = 16_000


def sound(seconds: float, seed: int = 3) -> sdk.Audio:
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * 0.1
    return sdk.Audio(noise.astype(np.float32), rate=RATE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[sdk.Model, sdk.Model, Path]:
    """The model run by torch, its bundle in 32 bits, and the bundle's place."""
    folder = tmp_path_factory.mktemp("media")
    source, switch = small_source(folder / "checkpoint")
    export_bundle(source, folder / "out", QUANTIZATIONS["fp32"])
    return small_torch_model(source, switch), sdk.load(folder / "out"), folder / "out"


@pytest.fixture
def copy(models: tuple[sdk.Model, sdk.Model, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models[2], tmp_path / "copy"))


def assert_same(theirs: sdk.Model, ours: sdk.Model, *parts: sdk.Part) -> None:
    expected, found = theirs.encode(*parts), ours.encode(*parts)
    assert (found.tokens, found.spans, found.adapter) == (expected.tokens, expected.spans, expected.adapter)
    want, got = theirs.logits(expected), ours.logits(found)
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()
    assert ours.ask(*parts, max_new_tokens=12).tokens == theirs.ask(*parts, max_new_tokens=12).tokens


@pytest.mark.parametrize("number", range(len(PICTURES)))
def test_pictures_are_read_as_with_torch(number: int, models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    assert_same(*models[:2], "What is this?", sdk.Image(PICTURES[number]))


@pytest.mark.parametrize("seconds", [0.2, 1.52, 4.0])
def test_sounds_are_heard_as_with_torch(seconds: float, models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    theirs, ours, _ = models
    expected = theirs.engine.media.connector("audio").transcriber.transcribe(sound(seconds).data)  # type: ignore[attr-defined]
    found = ours.engine.media.connector("audio").transcriber.transcribe(sound(seconds).data)  # type: ignore[attr-defined]
    assert found == expected and (seconds < 1 or found.segments)
    assert_same(theirs, ours, "What is said?", sound(seconds))


def test_several_items_in_one_conversation(models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    assert_same(*models[:2], "One:", sdk.Image(NOISE), "two:", sound(1.0), "three:", sdk.Image(PICTURES[3]), "?")
    silence = sdk.Audio(np.zeros(RATE // 3, np.float32), rate=RATE)
    assert_same(*models[:2], "And this?", silence)


def test_an_adapter_beside_acts_on_media_and_texts(tmp_path: Path) -> None:
    source, switch = small_source(tmp_path / "checkpoint")
    draw = torch.Generator().manual_seed(6)
    layers = {
        "layers.1.self_attn.k_proj": (16, 48),
        "layers.2.mlp.up_proj": (80, 48),
        "layers.0.mlp.down_proj": (48, 80),
    }
    updates = {
        f"model.{name}.weight": LowRank(torch.randn(out, 2, generator=draw), 0.1 * torch.randn(2, size, generator=draw))
        for name, (out, size) in layers.items()
    }
    export_bundle(replace(source, adapters={"more": updates}), tmp_path / "out", QUANTIZATIONS["fp32"])
    assert sdk.verify(tmp_path / "out").passed
    theirs, prompts = small_torch_model(source, switch), (("Hello",), ("What is this?", sdk.Image(NOISE)))
    base = sdk.load(tmp_path / "out")
    for prompt in prompts:
        assert_same(theirs, base, *prompt)
    for name, update in updates.items():
        source.decoder.get_parameter(name).data += update.up @ update.down
    adapted = sdk.load(tmp_path / "out", adapter="more")
    for prompt in prompts:
        assert_same(theirs, adapted, *prompt)


def test_rows_with_and_without_media_decode_together(models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    theirs, _, path = models
    ours = sdk.load(path)
    message = [{"role": "user", "content": [{"type": "text", "text": "Look: "}, sdk.Image(NOISE)]}]
    prompts = ["Hello", message, "x" * 40]
    alone = [theirs.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone  # all by one decoder now
    cache = sdk.PrefixCache()
    for _ in range(2):
        for prompt, tokens in zip(prompts, alone, strict=True):
            assert ours.ask(prompt, max_new_tokens=9, prefix_cache=cache).tokens == tokens


def test_one_decoder_is_in_memory(models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    bundle = Bundle(models[2])
    from sensorium.sdk.onnx_engine import OnnxEngine

    model = sdk.Model(OnnxEngine(bundle), bundle.tokenizer(), name="small")
    tokens = model.encode("Hello")
    before = model.engine.prefill([tokens])[1]
    assert not bundle.reads_media
    model.ask("What is this?", sdk.Image(NOISE), max_new_tokens=1)
    assert bundle.reads_media and DECODER not in bundle._sessions and MEDIA_DECODER in bundle._sessions
    # The adapter's additions are multiplied with zero: not one bit of a text's numbers changes.
    assert np.array_equal(model.engine.prefill([tokens])[1], before)


def test_the_manifest_says_how_media_are_read(models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    manifest = read_manifest(models[2])
    assert manifest.modalities == ("text", "image", "audio") == models[1].modalities and manifest.adapter == "small"
    picture, heard = manifest.media["image"], manifest.media["audio"]
    assert picture.placeholder == "<picture>" and heard.limits == {"seconds": 9.0}
    slots = models[1].encode(sdk.Image(NOISE)).items[0].slots
    assert picture.least <= slots <= picture.most
    assert manifest.interfaces["image"]["inputs"] == {"pixels": "uint8 [height, width, 3]"}
    assert manifest.interfaces["image"]["outputs"]["label"] == "float32 [1, 13]"
    assert manifest.interfaces["audio-spectrum"]["inputs"] == {"samples": "float32 [samples]"}
    assert manifest.interfaces["media-decoder"]["inputs"]["adapter_scale"] == "float32 [batch_size]"
    with pytest.raises(sdk.UnsupportedInputError, match="video"):
        models[1].encode(sdk.Video(np.stack([NOISE] * 3), timestamps=[0.0, 0.5, 1.0]))


def test_goldens_of_every_modality(models: tuple[sdk.Model, sdk.Model, Path], copy: Path) -> None:
    found = sdk.verify(models[2])
    assert found.passed and [golden.name.partition(":")[0] for golden in found.goldens[4:]] == ["image", "audio"]
    assert all(golden.same_tokens == golden.tokens for golden in found.goldens)
    # Other words, and hashes that say so: whole, but no longer what the goldens show.
    path = copy / "media" / "image.json"
    words = json.loads(path.read_text())
    words["lists"] = {name: [[1]] * len(spelled) for name, spelled in words["lists"].items()}
    path.write_text(json.dumps(words))
    write_manifest(copy, replace(read_manifest(copy), files=file_entries(copy)))
    assert not sdk.verify(copy).passed


def test_damaged_descriptions_are_refused(copy: Path) -> None:
    manifest, image = read_manifest(copy), sdk.Image(NOISE)
    changes = {
        "media/image.json": (
            {"lists": {}},
            {"lists": {"kind": [[]]}, "comma": [1]},
            {"lists": {"kind": [[10**9]]}, "comma": [1]},
        ),
        "media/audio.json": (
            {},
            {"window": -1, "positions": 4, "vocabulary": 70},
            {"window": 152, "positions": 23, "vocabulary": 2},
        ),
    }
    for name, contents in changes.items():
        good = (copy / name).read_text()
        for content in contents:
            (copy / name).write_text(json.dumps(content))
            write_manifest(copy, replace(manifest, files=file_entries(copy)))
            with pytest.raises(sdk.SensoriumError):
                sdk.load(copy).encode("?", image if "image" in name else sound(0.2))
        (copy / name).write_text(good)
    write_manifest(copy, replace(manifest, files=file_entries(copy)))
    raw = json.loads((copy / MANIFEST).read_text())
    for change in (
        {"image": {}},
        {"image": raw["media"]["image"] | {"details": "gone.json"}},
        {"smell": raw["media"]["image"]},
    ):
        write_manifest(copy, replace(manifest, files=file_entries(copy), media=change))
        with pytest.raises(sdk.CheckpointError):
            sdk.load(copy)


def test_bundles_of_the_first_format_are_read(bundle: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    from sensorium.mobile_export.bundle.manifest import _digest

    raw = json.loads((old / MANIFEST).read_text())
    raw = {name: value for name, value in raw.items() if name not in ("media", "adapter", "interfaces", "digest")}
    raw["format"] = 1
    (old / MANIFEST).write_text(json.dumps(raw | {"digest": _digest(raw)}))
    model = sdk.load(old)
    assert model.modalities == ("text",) and sdk.verify(old).passed
    assert model.ask("Hi", max_new_tokens=3).tokens == sdk.load(bundle).ask("Hi", max_new_tokens=3).tokens


def test_media_are_read_without_torch(models: tuple[sdk.Model, sdk.Model, Path], tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(NOISE).save(tmp_path / "noise.png")
    program = f"""
import sys
from sensorium import sdk
model = sdk.load({str(models[2])!r})
model.ask("What is this?", sdk.Image({str(tmp_path / "noise.png")!r}), max_new_tokens=2)
assert sdk.verify({str(models[2])!r}).passed
print([name for name in ("torch", "transformers", "onnx") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("quant", ["int4", "fp16"])
def test_fewer_bits_read_nearly_the_same(quant: str, models: tuple[sdk.Model, sdk.Model, Path], tmp_path: Path) -> None:
    source, _ = small_source(tmp_path / "checkpoint")
    export_bundle(source, tmp_path / "out", QUANTIZATIONS[quant])
    ours = sdk.load(tmp_path / "out")
    assert sdk.verify(tmp_path / "out").passed
    theirs = models[0].engine.media.connector("image")  # type: ignore[attr-defined]
    found = ours.engine.media.connector("image").read(sdk.Image(NOISE).data)  # type: ignore[attr-defined]
    expected = theirs.read([sdk.Image(NOISE).data])
    for name, probabilities in found.items():
        difference = np.abs(probabilities - getattr(expected, name)[0].numpy()).max()
        assert difference <= {"fp16": 0.01, "int4": 0.1}[quant], name


def test_only_what_a_model_reads_is_exported(checkpoint: Path, tmp_path: Path) -> None:
    for modalities in (["image"], ["text", "smell"]):
        with pytest.raises(sdk.OptionError, match=r"expected: text$|cannot read"):
            sdk.export(checkpoint, tmp_path / "out", modalities=modalities)
    sdk.export(checkpoint, tmp_path / "out", quant="int8", modalities=["text"])
    assert sdk.load(tmp_path / "out").modalities == ("text",)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_default_model_answers_about_photos_and_speech(root: Path, tmp_path: Path) -> None:
    import skimage

    sdk.export("nano", tmp_path / "out", quant="fp32", context_length=1024, figures=False)
    theirs, ours = sdk.load("nano", dtype="float32", device="cpu"), sdk.load(tmp_path / "out")
    folder = Path(skimage.__file__).parent / "data"
    names = (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "camera.png",
        "motorcycle_left.png",
        "coins.png",
    )
    asked = [("What is in this picture?", sdk.Image(folder / name)) for name in names]
    asked += [("Transcribe the speech.", sdk.Audio(root / "tests" / "data" / "speech.flac"))]
    for parts in asked:
        expected, found = theirs.encode(*parts), ours.encode(*parts)
        assert (found.tokens, found.spans, found.adapter) == (expected.tokens, expected.spans, expected.adapter)
        assert ours.ask(*parts, max_new_tokens=24).tokens == theirs.ask(*parts, max_new_tokens=24).tokens
    assert sdk.verify(tmp_path / "out").passed
