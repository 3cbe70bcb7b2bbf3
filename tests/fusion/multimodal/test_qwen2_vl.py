"""Qwen2-VL against `transformers`: sizes, pixels, positions, prompts, logits and answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sensorium import sdk
from sensorium.encoders.image.config import PixelBudget
from sensorium.encoders.media import VideoData
from sensorium.fusion.multimodal.qwen2_vl import Reader
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from .native import CASES, VISION, qwen2_vl_model

Photos = Mapping[str, NDArray[np.uint8]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, text: dict[str, Any]) -> Build:
    """A random model of a case."""
    return lambda case: made(f"qwen2-vl-{case}", lambda: qwen2_vl_model(case, tiny_tokenizer, text))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", photos["chelsea"], "and", photos["odd"], "What is in them?"))


@pytest.mark.parametrize("name", ["coffee", "tall", "tiny", "rocket", "astronaut", "odd"])
@pytest.mark.parametrize("case", ["pairs", "thirds"])
def test_pixels_and_places_equal_the_processor_s(
    case: str, name: str, build: Build, photos: Photos, asking: Asking
) -> None:
    reference = build(case)
    inputs = reference.inputs(asking(photos[name], "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Image(photos[name]), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    assert torch.equal(patches_of(ours, "image", [photos[name]]), inputs["pixel_values"])


def patches_of(ours: Any, modality: Any, frames: Any) -> torch.Tensor:
    """What ours reads of frames, as `transformers` lays it out: [patches, numbers of each]."""
    from sensorium.encoders.image.native_resolution import patches_of_frames

    reader = ours.engine.media.connector(modality).reader
    pixels = reader.pixels([torch.from_numpy(frame.copy()) for frame in frames])
    return patches_of_frames(pixels, reader.modules.visual.config).flatten(0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_sizes_equal_the_reference(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for _ in range(200):
        unit, least = int(draw.integers(2, 40)), int(draw.integers(1, 9000))
        most = least + unit * unit * int(draw.integers(4, 99))
        height, width = (int(2 ** draw.uniform(0, 11)) for _ in range(2))
        if max(height, width) / min(height, width) > 200:
            with pytest.raises(sdk.InvalidInputError, match="elongated"):
                PixelBudget(least=least, most=most, unit=unit).fitted(height, width)
        else:
            expected = smart_resize(height, width, unit, least, most)
            assert PixelBudget(least=least, most=most, unit=unit).fitted(height, width) == expected


def test_several_turns(build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *asking(photos["tiny"], photos["tall"], "What is this?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
        *asking("And this?", photos["rocket"]),
    ]
    equals_reference(build("pairs"), turns)


def test_a_batch_of_different_media_equals_one_by_one(
    build: Build, photos: Photos, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build("pairs").folder, dtype="float32")
    clip = sdk.Video(clip_of(photos, 3), timestamps=[0.0, 0.5, 2.25])
    prompts = [
        our_parts(asking(photos["chelsea"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        [{"role": "user", "content": [clip, "What happens?", sdk.Image(photos["odd"])]}],
    ]
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    assert len(set(alone)) == 3


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_smaller_caches_keep_the_positions(precision: Any, build: Build, photos: Photos, our_parts: Any) -> None:
    prompt = [{"role": "user", "content": [sdk.Image(photos["chelsea"]), "What?"]}]
    exact, small = (
        sdk.load(build("pairs").folder, dtype="float32", **more) for more in ({}, {"cache_precision": precision})
    )
    # The newest positions are exact, and these prompts hold no others.
    assert small.ask(prompt, max_new_tokens=9).tokens == exact.ask(prompt, max_new_tokens=9).tokens


def clip_of(photos: Photos, count: int) -> NDArray[np.uint8]:
    """Frames uint8 [count, 61, 83, 3] of a photo that moves."""
    return np.stack([photos["chelsea"][40 + at : 101 + at, 90:173] for at in range(0, 3 * count, 3)])


def processed_clip(reference: Any, frames: NDArray[np.uint8], **options: Any) -> Any:
    """What `transformers` makes of a text, a clip and a question."""
    content = [{"type": "text", "text": "A"}, {"type": "video", "video": frames}, {"type": "text", "text": "What?"}]
    common = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    told = {"do_sample_frames": False, **options}
    return reference.processor.apply_chat_template(
        [{"role": "user", "content": content}], **common, processor_kwargs=told
    )


def planned_clip(ours: Any, frames: NDArray[np.uint8]) -> Any:
    """Ours of the same."""
    clip = VideoData(frames, np.arange(len(frames)) / 2, len(frames) / 2)
    content = [{"type": "text", "text": "A"}, {"type": "video"}, {"type": "text", "text": "What?"}]
    return ours.engine.media.plan(ours.tokenizer, [{"role": "user", "content": content}], [(clip, None)])


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("case", ["pairs", "thirds", "single"])
def test_clips_equal_transformers(case: str, count: int, build: Build, photos: Photos) -> None:
    reference, frames = build(case), clip_of(photos, count)
    inputs = processed_clip(reference, frames)
    ours = sdk.load(reference.folder, dtype="float32", device="cpu")
    plan = planned_clip(ours, frames)
    assert list(plan) == inputs["input_ids"][0].tolist()
    assert torch.equal(patches_of(ours, "video", frames), inputs["pixel_values_videos"])
    logits = torch.from_numpy(ours.logits(plan))
    with torch.no_grad():
        expected = reference.model(**inputs).logits[0]
    assert float((logits - expected).abs().max() / expected.abs().max()) <= 1e-5
    answer = reference.model.generate(**inputs, do_sample=False, max_new_tokens=9, eos_token_id=None)[0, len(plan) :]
    messages = [{"role": "user", "content": ["A", sdk.Video(frames, timestamps=np.arange(count) / 2), "What?"]}]
    assert list(ours.ask(messages, max_new_tokens=9, temperature=0).tokens) == answer.tolist()


def test_behind_a_clip_longer_than_wide_positions_follow_its_time(build: Build, photos: Photos) -> None:
    """The models were trained with what follows the largest number (the paper, section 2.1); `transformers` 5 counts
    rows and columns alone, so it is given the positions that its earlier versions computed."""
    reference, frames = build("pairs"), clip_of(photos, 25)
    inputs = processed_clip(reference, frames)
    ours = sdk.load(reference.folder, dtype="float32", device="cpu")
    plan = planned_clip(ours, frames)
    times, rows, columns = (
        number // unit for number, unit in zip(inputs["video_grid_thw"][0].tolist(), (1, 2, 2), strict=True)
    )
    assert times == 13 > max(rows, columns)
    first = plan.tokens.index(ours.tokenizer.token_id("<|video_pad|>"))
    found = ours.engine.media.positions(plan)[:, 0]  # type: ignore[attr-defined]
    cell = torch.tensor([[t, r, c] for t in range(times) for r in range(rows) for c in range(columns)]).T + first
    after = torch.arange(len(plan) - first - cell.shape[1]) + first + times
    assert torch.equal(found, torch.cat((torch.arange(first).expand(3, -1), cell, after.expand(3, -1)), dim=1))
    logits = torch.from_numpy(ours.logits(plan))
    with torch.no_grad():
        expected = reference.model(**inputs, position_ids=found[:, None]).logits[0]
    assert float((logits - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_pixels_are_shared_by_a_long_clip_s_frames(build: Build, photos: Photos, tmp_path: Path) -> None:
    reference = build("pairs")
    folder = changed(reference.folder, tmp_path / "x", steps={"video": {"cap_pixels_per_frame": True}})
    reader: Reader = sdk.load(folder).engine.media.connector("video").reader  # type: ignore[attr-defined]
    processor = transformers.AutoProcessor.from_pretrained(folder).video_processor
    assert reader.layout.shared and processor.cap_pixels_per_frame is True
    # So that few frames reach the bound, as 64 of 768 pixels a side do.
    processor.max_video_tokens = 40
    frames = clip_of(photos, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fusion.multimodal.native_layout._TOKENS", 40)
        grid = processor(frames, return_tensors="pt", do_sample_frames=False)["video_grid_thw"][0]
        assert reader.layout.grid(7, 61, 83) == (4, int(grid[1]) // 2, int(grid[2]) // 2)
    assert reader.layout.grid(7, 61, 83)[1:] > (int(grid[1]) // 2, int(grid[2]) // 2)


def test_many_frames_are_read_a_few_at_a_time(build: Build, photos: Photos) -> None:
    ours = sdk.load(build("pairs").folder, dtype="float32")
    connector = ours.engine.media.connector("video")  # type: ignore[attr-defined]
    frames = clip_of(photos, 37)
    whole = connector.embed(VideoData(frames, np.arange(37.0), 37.0))
    pairs = [frames[at : at + 2] for at in range(0, 37, 2)]
    parts = [connector.embed(VideoData(pair, np.arange(float(len(pair))), 2.0)) for pair in pairs]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=2e-5 * float(whole.abs().max()))


# Files


def changed(
    folder: Path,
    copy: Path,
    fields: Mapping[str, Any] | None = None,
    steps: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """A copy of a directory with other fields in config.json and in the processors' file."""
    shutil.copytree(folder, copy)
    raw = json.loads((copy / "config.json").read_text())
    for name, value in (fields or {}).items():
        part = raw
        *path, last = name.split(".")
        for step in path:
            part = part[step]
        part[last] = value
    (copy / "config.json").write_text(json.dumps(raw))
    processor = json.loads((copy / "processor_config.json").read_text())
    for kind, values in (steps or {}).items():
        processor[f"{kind}_processor"] |= values
    (copy / "processor_config.json").write_text(json.dumps(processor))
    return copy


def test_names_and_files_of_published_checkpoints(build: Build, photos: Photos, tmp_path: Path) -> None:
    """Flat fields, the tower's older spelling, one file for pictures and clips, tensors without the newer prefixes."""
    folder = build("pairs").folder
    older = Path(shutil.copytree(folder, tmp_path / "older"))
    raw = json.loads((older / "config.json").read_text())
    text = raw.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope.pop("rope_theta"),
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    vision = {name: raw["vision_config"][name] for name in (*VISION, "hidden_size")}
    raw |= text | {"vision_config": vision | {"in_chans": 3, "spatial_patch_size": 5}, "model_type": "qwen2_vl"}
    (older / "config.json").write_text(json.dumps(raw))
    (older / "processor_config.json").unlink()
    steps = {"min_pixels": 400, "max_pixels": 9000, "patch_size": 5, "temporal_patch_size": 2, "merge_size": 2}
    steps |= {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    (older / "preprocessor_config.json").write_text(json.dumps(steps))
    tensors = load_file(older / "model.safetensors")
    names = {
        name: name.replace("model.language_model.", "model.").replace("model.visual.", "visual.") for name in tensors
    }
    save_file({names[name]: tensor for name, tensor in tensors.items()}, older / "model.safetensors")
    question = ("What?", sdk.Image(photos["tall"]))
    new, old = sdk.load(folder), sdk.load(older)
    assert np.array_equal(old.logits(old.encode(*question)), new.logits(new.encode(*question)))
    frames = clip_of(photos, 3)
    assert torch.equal(
        patches_of(old, "video", frames),
        transformers.Qwen2VLVideoProcessor(
            **{name: value for name, value in steps.items() if "_" in name and "processor" not in name},
            cap_pixels_per_frame=False,
        )([frames], return_tensors="pt", do_sample_frames=False)["pixel_values_videos"],
    )


DAMAGES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "sections": ({"text_config.rope_parameters.mrope_section": [1, 2, 1]}, {}, ("sections [1, 2, 1]", "5 pairs")),
    "no-sections": ({"text_config.rope_parameters.mrope_section": 5}, {}, ("mrope_section", "5")),
    "two-sections": ({"text_config.rope_parameters.mrope_section": [2, 3]}, {}, ("sections [2, 3]",)),
    "negative": ({"text_config.rope_parameters.mrope_section": [-1, 3, 3]}, {}, ("sections [-1, 3, 3]",)),
    "width": ({"vision_config.hidden_size": 31}, {}, ("31", "30")),
    "heads": ({"vision_config.num_heads": 4}, {}, ("24 features, 4 heads",)),
    "square": ({"vision_config.spatial_merge_size": 0}, {}, ("square", "0")),
    "ratio": ({"vision_config.mlp_ratio": "2"}, {}, ("mlp_ratio",)),
    "activation": ({"vision_config.hidden_act": "swish2"}, {}, ("swish2",)),
    "no-tower": ({"vision_config": None}, {}, ("vision_config",)),
    "other-patches": ({}, {"image": {"patch_size": 7}}, ("steps of 14", "steps of 10")),
    "other-frames": ({}, {"video": {"temporal_patch_size": 4}}, ("4 frames", "2 frames")),
    "unresized": ({}, {"image": {"do_resize": False}}, ("any size", "steps of 10")),
    "no-pixels": ({}, {"image": {"size": {"shortest_edge": 5, "longest_edge": 9}}}, ("at most 9 pixels", "10 x 10")),
    "crossed": ({}, {"image": {"size": {"shortest_edge": 500, "longest_edge": 400}}}, ("500", "1..400")),
    "text": ({}, {"image": {"size": {"shortest_edge": "5", "longest_edge": 900}}}, ("no whole number",)),
    "no-such-token": ({"image_token_id": 9999}, {}, ("image_token_id", "9999")),
    "no-clip-token": ({"video_token_id": -1}, {}, ("video_token_id", "-1")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_contradictions_are_refused(damage: str, build: Build, tmp_path: Path) -> None:
    fields, steps, parts = DAMAGES[damage]
    folder = changed(build("pairs").folder, tmp_path / damage, fields, steps)
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_description_and_saving(build: Build, tmp_path: Path) -> None:
    reference = build("single")
    info = sdk.describe(reference.folder)
    assert info.parameters == sum(parameter.numel() for parameter in reference.model.parameters())
    assert info.modalities == ("text", "image", "video") and info.family == "qwen2_vl"
    ours = sdk.load(reference.folder)
    ours.save(tmp_path / "text", text_only=True)
    again = sdk.load(tmp_path / "text")
    assert again.modalities == ("text",)
    assert np.array_equal(again.logits([5, 6, 7]), ours.logits([5, 6, 7]))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    with torch.no_grad():
        torch.testing.assert_close(plain(torch.tensor([[5, 6, 7]])).logits[0], torch.from_numpy(ours.logits([5, 6, 7])))
