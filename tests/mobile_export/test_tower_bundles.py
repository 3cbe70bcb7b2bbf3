"""Multimodal checkpoints as bundles: pictures in, the torch engine's tokens out, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image as PILImage
from sensorium import sdk
from sensorium.encoders.image.config import PixelBudget
from sensorium.encoders.media import Modality
from sensorium.fusion.multimodal.native_layout import NativeLayout, read_native_layout
from sensorium.mobile_export.bundle import file_entries, read_manifest, write_manifest
from sensorium.mobile_export.decoder_runner import DecoderShape, RowReading, RunnerState
from sensorium.mobile_export.export_towers import check_exported
from skimage import data

from .small_towers import small_gemma3, small_idefics3, small_llava, small_llava_next, small_qwen2_vl

Pair: TypeAlias = tuple[sdk.Model, sdk.Model, Path]
CASES: dict[str, Callable[[Path], Path]] = {
    "llava-clip": lambda folder: small_llava(folder, "clip"),
    "llava-padded": lambda folder: small_llava(folder, "padded"),
    "llava-siglip": lambda folder: small_llava(folder, "siglip"),
    "llava-next": small_llava_next,
    "gemma3": small_gemma3,
    "gemma3-pieces": lambda folder: small_gemma3(folder, pieces=True),
    "idefics3": small_idefics3,
    "smolvlm-uncut": lambda folder: small_idefics3(folder, kind="SmolVLM", longest=50, factor=2, cuts=False),
    **{f"qwen2-vl-{case}": partial(small_qwen2_vl, case=case) for case in ("pairs", "thirds", "fused", "sliding")},
}
QWEN2_VL = [name for name in CASES if name.startswith("qwen2-vl")]


def photos() -> list[NDArray[np.uint8]]:
    """Wide, tall, smaller than a part, and of a part's size."""
    coffee, cat = data.coffee()[::2, ::3], data.chelsea()
    return [coffee, cat[:180, 40:100], cat[100:105, 200:207], cat[60:95, 100:135], cat[50:80, 110:140]]


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A checkpoint run by torch, its bundle in 32 bits, and the bundle's place."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = CASES[request.param](folder / "checkpoint")
    sdk.export(checkpoint, folder / "out", quant="fp32", figures=False)
    return sdk.load(checkpoint, dtype="float32", device="cpu"), sdk.load(folder / "out"), folder / "out"


def assert_same(theirs: sdk.Model, ours: sdk.Model, *parts: sdk.Part) -> None:
    expected, found = theirs.encode(*parts), ours.encode(*parts)
    assert (found.tokens, found.spans) == (expected.tokens, expected.spans)
    want, got = theirs.logits(expected), ours.logits(found)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    assert ours.ask(*parts, max_new_tokens=9).tokens == theirs.ask(*parts, max_new_tokens=9).tokens


def test_pictures_are_read_as_with_torch(pair: Pair) -> None:
    shown = {pair[0].encode(sdk.Image(photo)).items[0].slots for photo in photos()}
    assert (len(shown) > 1) == any(name in str(pair[2]) for name in ("next", "pieces", "idefics3", "qwen2"))
    for photo in photos():
        assert_same(*pair[:2], "What is this?", sdk.Image(photo))
    first, second, *_ = map(sdk.Image, photos())
    assert_same(*pair[:2], "One", first, "and", second, "What is in them?")
    assert_same(*pair[:2], "What is a cat?")


@pytest.mark.parametrize("pair", ["gemma3"], indirect=True)
def test_places_that_see_each_other_are_read_in_one_pass(pair: Pair) -> None:
    theirs, ours, _ = pair
    picture = sdk.Image(photos()[0])
    before = ours.encode("", picture).tokens.index(ours.tokenizer.token_id("<image_soft_token>"))
    for place in (250, 505):  # passes end at 256 positions and at 512
        assert_same(theirs, ours, "#" * (place - before), picture, "What?")
    prompts = [[{"role": "user", "content": [picture, text]}] for text in ("What is this?", "Hm")]
    prompts.append([{"role": "user", "content": "A text alone."}])
    alone = [theirs.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    cache = sdk.PrefixCache()
    assert [ours.ask(prompt, max_new_tokens=9, prefix_cache=cache).tokens for prompt in prompts] == alone


def test_passes_keep_runs_whole() -> None:
    """``0123[456]78[9ABCD]E``, behind two positions that are there already, four at a time."""
    state = RunnerState(DecoderShape(1, 1, 1, 1, 99), 1)
    state.advance(2)
    state.rows = [RowReading(spans=((6, 9), (11, 16)))]
    assert state.passes(15, 4) == [(0, 4), (4, 8), (8, 9), (9, 14), (14, 15)]
    assert state.passes(15, 5) == [(0, 4), (4, 9), (9, 14), (14, 15)]
    assert state.seen_until(7).tolist() == [[0, 0, 0, 0, 9, 9, 9]]
    assert [state.whole(place) for place in (5, 6, 8, 9, 12)] == [5, 6, 6, 9, 11]


@pytest.mark.parametrize("pair", ["smolvlm-uncut", *QWEN2_VL], indirect=True)
def test_clips_are_watched_as_with_torch(pair: Pair) -> None:
    frames = np.stack([photos()[1][at : at + 41, :50] for at in (0, 9, 31)])
    clip = sdk.Video(frames, timestamps=[0.0, 0.5, 62.25])
    assert_same(*pair[:2], "What happens?", clip, "And here?", sdk.Image(photos()[0]))
    assert_same(*pair[:2], clip)


@pytest.mark.parametrize("pair", QWEN2_VL, indirect=True)
def test_places_of_three_axes_are_those_of_torch(pair: Pair) -> None:
    theirs, ours, folder = pair
    kinds = {node.op_type for node in onnx.load(folder / "media.onnx", load_external_data=False).graph.node}
    assert ("GroupQueryAttention" in kinds) == ("fused" in str(folder))
    wide, tall, tiny, *_ = photos()
    for shape in ((wide[:23], tall), (wide[:, :9],), (tall[:61, :59], tiny, wide[3:60:2, 5:190:3])):
        assert_same(theirs, ours, "One", *map(sdk.Image, shape), "two?")
    clip = sdk.Video(np.stack([tall[at : at + 61, :23] for at in range(0, 75, 3)]), timestamps=np.arange(25) / 2)
    assert_same(theirs, ours, "Before", clip, "behind", sdk.Image(wide), "what?")  # more times than rows and columns
    for place in (480, 511, 560):  # a pass ends at 512 positions
        assert_same(theirs, ours, "#" * place, sdk.Image(wide), "What?")


@pytest.mark.parametrize("pair", ["qwen2-vl-pairs", "qwen2-vl-fused"], indirect=True)
def test_rows_and_turns_keep_their_places(pair: Pair) -> None:
    theirs, ours, _ = pair
    wide, tall, *_ = map(sdk.Image, photos())
    clip = sdk.Video(np.stack([photos()[1][at : at + 41, :50] for at in (0, 9, 31)]), timestamps=[0.0, 0.5, 2.25])
    first = {"role": "user", "content": [wide, "What is this?"]}
    again = [first, {"role": "assistant", "content": "A cup."}, {"role": "user", "content": ["And this?", tall]}]
    prompts = [[first], again, [{"role": "user", "content": "A text alone."}]]
    prompts += [[{"role": "user", "content": [clip, "What happens?", tall]}], [*again[:2], prompts[2][0]]]
    alone = [theirs.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert len(set(alone)) > 2
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    caches = sdk.PrefixCache(), sdk.PrefixCache()
    for prompt, tokens in zip(prompts, alone, strict=True):
        found, expected = (
            model.ask(prompt, max_new_tokens=9, prefix_cache=cache)
            for model, cache in zip((ours, theirs), caches, strict=True)
        )
        assert found.tokens == expected.tokens == tokens
        assert found.usage.cached_tokens == expected.usage.cached_tokens


def test_places_follow_the_largest_before() -> None:
    """A picture of 2 x 3 cells behind two tokens, and what stands behind it: 0 1 [2 2 2 2 2 2] 5 6 …"""
    grid = np.concatenate((np.full((3, 2), (0, 1)), 2 + np.indices((1, 2, 3)).reshape(3, -1)), axis=1)
    row = RowReading(axes=grid)
    assert row.places(1, 5).tolist() == [[1, 2, 2, 2], [1, 2, 2, 2], [1, 2, 3, 4]]
    assert row.places(6, 10).tolist() == [[2, 2, 5, 6], [3, 3, 5, 6], [3, 4, 5, 6]]
    assert row.places(11, 12).tolist() == [[8]] * 3
    assert row.cut(4).places(3, 6).tolist() == [[2, 4, 5], [2, 4, 5], [3, 4, 5]]
    assert RowReading().places(3, 5).tolist() == [[3, 4]] * 3
    first, second = (RunnerState(DecoderShape(1, 1, 1, 1, 99), 1) for _ in range(2))
    first.rows = [row]
    first.advance(8)
    second.advance(3)
    joined = RunnerState.join([first, second])
    assert joined.places(2)[0].tolist() == [[5, 6], [3, 4]]
    joined.select([1, 0, 1])
    assert joined.places(1)[2].tolist() == [[3], [5], [3]]
    joined.truncate([2, 4, 3])
    assert joined.places(1)[2].tolist() == [[2], [4], [3]]


def test_a_bundle_proves_itself_and_says_what_it_reads(pair: Pair) -> None:
    found = sdk.verify(pair[2])
    native = "qwen2" in pair[2].parent.name
    kinds = ["image", "video"] if native or "smolvlm" in pair[2].parent.name else ["image"]
    assert found.passed and [one.name.partition(":")[0] for one in found.goldens[-len(kinds) :]] == kinds
    assert all(golden.same_tokens == golden.tokens for golden in found.goldens)
    entry, graphs = found.manifest.media["image"], found.manifest.interfaces
    assert found.manifest.modalities == pair[1].modalities == ("text", *kinds)
    assert graphs["image-resize"]["inputs"] == {"pixels": "uint8 [height, width, 3]", "size": "int64 [2]"}
    sizes = graphs["embedding"]["outputs"]["inputs_embeds"].rpartition(", ")[2]
    count = "embeddings" if native else entry.least
    assert graphs["image"]["outputs"]["embeddings"] == f"float32 [{count}, {sizes}"
    slots = [pair[0].encode(sdk.Image(photo)).items[0].slots for photo in photos()]
    assert entry.least <= min(slots) and max(slots) <= entry.most


@pytest.mark.parametrize("pair", ["llava-clip"], indirect=True)
def test_elongated_pictures_are_refused_as_with_torch(pair: Pair) -> None:
    line = sdk.Image(np.zeros((1, 60_000, 3), np.uint8))
    for model in pair[:2]:
        with pytest.raises(sdk.InvalidInputError, match="1 x 60000 pixels, which would become 35 x 2100000"):
            model.ask("What is this?", line)


@pytest.mark.parametrize("quant", ["int8", "int4", "int4-fp32"])
@pytest.mark.parametrize("family", ["idefics3", "qwen2-vl-pairs"])
def test_towers_follow_the_plan_of_fewer_bits(family: str, quant: str, tmp_path: Path) -> None:
    checkpoint = CASES[family](tmp_path / "checkpoint")
    sdk.export(checkpoint, tmp_path / "out", quant=quant, figures=False)
    assert sdk.verify(tmp_path / "out").passed
    theirs, ours = sdk.load(checkpoint, dtype="float32", device="cpu"), sdk.load(tmp_path / "out")
    picture = sdk.Image(photos()[0])
    assert len(ours.ask("What is this?", picture, max_new_tokens=5).tokens) == 5
    want, got = (model.engine.media.connector("image").embed(picture.data) for model in (theirs, ours))  # type: ignore[attr-defined]
    bound = {"int8": 0.1, "int4": 0.7, "int4-fp32": 0.01}[quant]
    assert 1e-6 < np.abs(got - want.numpy()).max() / want.abs().max() < bound
    kinds = [node.op_type for node in onnx.load(tmp_path / "out" / "image.onnx", load_external_data=False).graph.node]
    # Six linear layers in each of four blocks, and the projector; or four in each of three, and two.
    layers = 25 if family == "idefics3" else 14
    assert kinds.count("MatMulNBits") == (layers if quant in ("int8", "int4") else 0)


@pytest.mark.parametrize("pair", ["llava-clip", "idefics3", "qwen2-vl-fused"], indirect=True)
def test_pictures_are_read_without_torch(pair: Pair, tmp_path: Path) -> None:
    PILImage.fromarray(photos()[0]).save(tmp_path / "photo.png")
    program = f"""
import sys
from sensorium import sdk
model = sdk.load({str(pair[2])!r})
tokens = model.ask("What is this?", sdk.Image({str(tmp_path / "photo.png")!r}), max_new_tokens=9).tokens
assert sdk.verify({str(pair[2])!r}).passed
print(list(tokens), [name for name in ("torch", "transformers", "onnx") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    expected = pair[0].ask("What is this?", sdk.Image(photos()[0]), max_new_tokens=9).tokens
    assert found.stdout.strip() == f"{list(expected)} []"


@pytest.mark.parametrize("pair", ["llava-clip", "llava-next", "gemma3-pieces", "idefics3"], indirect=True)
def test_damaged_descriptions_are_refused(pair: Pair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pair[2], tmp_path / "copy"))
    path, manifest = copy / "media" / "image.json", read_manifest(copy)
    good = json.loads(path.read_text())
    geometry = next(name for name in ("anyres", "steps", "splitting") if name in good)
    changes = [{"mark": 3}, {"slots": 0}, {"slots": good["slots"] + 1}, {"parts": ["whole"]}, {geometry: None}]
    changes += [{geometry: good[geometry] | more} for more in ({"crop": [7, True]}, {"tile": -3}, {"smell": 3})]
    if "cutting" in good:
        changes += [{"cutting": good["cutting"] | {"ratio": "2"}}, {"cutting": {"most": -1}}, {"around": ["<", 3]}]
    for change in changes:
        path.write_text(json.dumps(good | change))
        with pytest.raises(sdk.IntegrityError):
            sdk.load(copy)
        write_manifest(copy, replace(manifest, files=file_entries(copy)))
        with pytest.raises(sdk.CheckpointError):
            sdk.load(copy).encode("?", sdk.Image(photos()[0]))
        write_manifest(copy, manifest)


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_has_no_graph_is_named(kind: Modality) -> None:
    class Smells:
        """Another family's connector."""

    media = SimpleNamespace(connector=lambda kind: Smells())
    with pytest.raises(sdk.UnsupportedInputError, match=r"(?s)not exported.*Smells"):
        check_exported(media, kind)  # type: ignore[arg-type]


def test_a_layout_is_read_as_it_is_written() -> None:
    layout = NativeLayout(PixelBudget(least=3136, most=900_000, unit=28), 2, shared=True)
    assert read_native_layout(json.loads(json.dumps(asdict(layout)))) == layout
    assert layout.grid(64, 1080, 1920) == (32, 25, 45) and layout.grid(400, 1080, 1920) == (200, 18, 32)


@pytest.mark.parametrize("pair", ["qwen2-vl-pairs"], indirect=True)
def test_damaged_budgets_are_refused(pair: Pair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pair[2], tmp_path / "copy"))
    path, manifest = copy / "media" / "image.json", read_manifest(copy)
    good = json.loads(path.read_text())
    changes = [{"frames": 3}, {"frames": True}, {"shared": 1}, {"budget": None}, {"budget": {}}, {"parts": "squares"}]
    budgets = ({"unit": 0}, {"unit": "10"}, {"most": 1 << 40}, {"most": 9}, {"most_elongated": 0.5}, {"smell": 3})
    changes += [{"budget": good["budget"] | more} for more in budgets]
    for change in changes:
        path.write_text(json.dumps(good | change))
        write_manifest(copy, replace(manifest, files=file_entries(copy)))
        with pytest.raises(sdk.CheckpointError):
            sdk.load(copy).encode("?", sdk.Image(photos()[0]))


@pytest.mark.parametrize("pair", ["qwen2-vl-pairs"], indirect=True)
def test_lines_are_refused_by_their_shape(pair: Pair) -> None:
    for model in pair[:2]:
        with pytest.raises(sdk.InvalidInputError, match="3 x 700 pixels"):
            model.ask("What is this?", sdk.Image(np.zeros((3, 700, 3), np.uint8)))


def test_clips_prepared_otherwise_than_pictures_are_left_out(tmp_path: Path) -> None:
    checkpoint = small_qwen2_vl(tmp_path / "checkpoint", "pairs")
    raw = json.loads((checkpoint / "processor_config.json").read_text())
    raw["video_processor"] |= {"image_mean": [0.1, 0.2, 0.3]}
    (checkpoint / "processor_config.json").write_text(json.dumps(raw))
    told: list[str] = []
    sdk.export(checkpoint, tmp_path / "out", quant="fp32", figures=False, tell=told.append)
    assert sdk.load(tmp_path / "out").modalities == ("text", "image")
    assert any("video is not exported of this qwen2_vl" in step for step in told)


def test_a_context_too_short_for_a_picture_is_refused(tmp_path: Path) -> None:
    checkpoint = small_llava(tmp_path / "checkpoint", "clip")
    with pytest.raises(sdk.InvalidInputError, match="question about a picture"):
        sdk.export(checkpoint, tmp_path / "out", quant="fp32", figures=False, context_length=60)
    assert not (tmp_path / "out").exists()


def test_a_processor_that_keeps_shapes_leaves_the_decoder(tmp_path: Path) -> None:
    checkpoint = small_llava(tmp_path / "checkpoint", "clip")
    raw = json.loads((checkpoint / "processor_config.json").read_text())
    raw["image_processor"] |= {"do_center_crop": False}
    (checkpoint / "processor_config.json").write_text(json.dumps(raw))
    with pytest.raises(sdk.UnsupportedInputError, match="crops to no size"):
        sdk.export(checkpoint, tmp_path / "out", quant="fp32", figures=False, modalities=["image"])
    told: list[str] = []
    sdk.export(checkpoint, tmp_path / "out", quant="fp32", figures=False, tell=told.append)
    assert sdk.load(tmp_path / "out").modalities == ("text",)
    assert any("image is not exported of this llava" in step for step in told)
