"""Idefics3 and SmolVLM against `transformers`: tiles, pixels, prompts, logits and answers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sensorium import sdk
from sensorium.encoders.image.resample import resize
from sensorium.encoders.media import ImageData, VideoData
from sensorium.fusion.multimodal.number_words import number_words
from sensorium.fusion.multimodal.splitting import Splitting, read_splitting
from tokenizers import AddedToken
from transformers.image_utils import SizeDict
from transformers.models.idefics3.image_processing_idefics3 import (
    Idefics3ImageProcessor,
    get_resize_output_image_size,
)

Photos = Mapping[str, NDArray[np.uint8]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]
# As SmolVLM's published checkpoints write it.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == "
    "'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
NAMES = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"]
PLACES = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2, 3)]
# Model, tower, steps of the processor, and fields of config.json.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "idefics3": ("Idefics3", {"image_size": 30}, {"longest": 90, "tile": 30}, {"scale_factor": 3}),
    "smolvlm": ("SmolVLM", {"image_size": 30}, {"longest": 60, "tile": 30}, {"scale_factor": 2}),
    "left-over": ("SmolVLM", {"image_size": 33}, {"longest": 70, "tile": 33}, {"scale_factor": 2}),
    "other-tiles": ("Idefics3", {"image_size": 40}, {"longest": 77, "tile": 30}, {"scale_factor": 3}),
    "uncut": ("SmolVLM", {"image_size": 30}, {"longest": 50, "tile": 30, "do_image_splitting": False}, {}),
    "tied": ("Idefics3", {"image_size": 30}, {"longest": 60, "tile": 30}, {"tie_word_embeddings": True}),
}


def sizes_of(case: str) -> tuple[int, int]:
    """Side of a tile in pixels, and embeddings of it."""
    _, _, steps, fields = CASES[case]
    side = steps["tile"] // 5 // fields.get("scale_factor", 2)
    return steps["tile"], side * side


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, tower: dict[str, Any], text: dict[str, Any]) -> Build:
    """A random model of a case."""

    def make(case: str) -> Any:
        kind, vision, steps, fields = CASES[case]
        named = [AddedToken(name, special=True, normalized=False) for name in (*NAMES, *PLACES)]
        words = tiny_tokenizer(*named, template=TEMPLATE)
        config = getattr(transformers, f"{kind}Config")(
            vision_config=tower | vision,
            text_config=transformers.LlamaConfig(**text, tie_word_embeddings=fields.get("tie_word_embeddings", False)),
            image_token_id=words.convert_tokens_to_ids("<image>"),
            **fields,
        )
        rest = {name: value for name, value in steps.items() if name not in ("longest", "tile")}
        longest, tile = ({"longest_edge": steps[name]} for name in ("longest", "tile"))
        options = {"size": longest, "max_image_size": tile}
        images = getattr(transformers, f"{kind}ImageProcessor")(**options, **rest)
        parts = [images, words]
        if kind == "SmolVLM":
            parts.append(transformers.SmolVLMVideoProcessor(**options))
        processor = getattr(transformers, f"{kind}Processor")(
            *parts, image_seq_len=sizes_of(case)[1], chat_template=TEMPLATE
        )
        return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor

    return lambda case: made(f"idefics3-{case}", lambda: make(case))


@pytest.fixture(scope="module", autouse=True)
def spelled_numbers() -> Any:
    """SmolVLM's processor of `transformers` needs a package for the few numbers that these tests have."""
    from transformers.models.smolvlm import processing_smolvlm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            processing_smolvlm, "num2words", {1: "one", 3: "three", 5: "five", 23: "twenty-three"}.__getitem__
        )
        yield


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", photos["chelsea"], "and", photos["odd"], "What is in them?"))


@pytest.mark.parametrize("name", ["coffee", "tall", "tiny", "rocket", "astronaut", "odd"])
@pytest.mark.parametrize("case", ["idefics3", "smolvlm", "other-tiles", "uncut"])
def test_pixels_and_places_equal_the_processor_s(
    case: str, name: str, build: Build, photos: Photos, asking: Asking
) -> None:
    reference = build(case)
    inputs = reference.inputs(asking(photos[name], "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Image(photos[name]), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    connector = ours.engine.media.connector("image")  # type: ignore[attr-defined]
    assert torch.equal(connector.reader.pixels(plan.items[0].media), inputs["pixel_values"][0])


def test_several_turns_and_pictures_first(build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *asking(photos["tiny"], photos["tall"], "What is this?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
        *asking("And this?", photos["rocket"]),
    ]
    equals_reference(build("smolvlm"), turns)


def test_names_of_places_that_are_no_tokens(
    build: Build, photos: Photos, asking: Asking, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    reference = build("smolvlm")
    folder = Path(shutil.copytree(reference.folder, tmp_path / "x"))
    words = tiny_tokenizer(*[AddedToken(name, special=True, normalized=False) for name in NAMES], template=TEMPLATE)
    words.save_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    chat = asking(photos["coffee"], "What?")
    options = {"tokenize": True, "add_generation_prompt": True, "return_dict": True}
    expected = processor.apply_chat_template(chat, **options)["input_ids"][0]
    found = list(sdk.load(folder).encode(sdk.Image(photos["coffee"]), "What?"))
    assert found == expected and len(found) > len(reference.inputs(chat)["input_ids"][0])


def test_a_batch_of_different_media_equals_one_by_one(
    build: Build, photos: Photos, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build("smolvlm").folder, dtype="float32")
    clip = sdk.Video(clip_of(photos, 3), timestamps=[0.0, 0.5, 2.25])
    prompts = [
        our_parts(asking(photos["chelsea"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        [{"role": "user", "content": [clip, "What happens?", sdk.Image(photos["odd"])]}],
    ]
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    assert len(set(alone)) == 3


# Clips


def clip_of(photos: Photos, count: int) -> NDArray[np.uint8]:
    """Frames uint8 [count, 61, 83, 3] of a photo that moves."""
    return np.stack([photos["chelsea"][40 + at : 101 + at, 90:173] for at in range(0, 3 * count, 3)])


def processed_clip(reference: Any, frames: NDArray[np.uint8], numbers: list[int], fps: float, total: int) -> Any:
    """What `transformers` makes of chosen frames of a clip and a question."""
    facts = transformers.video_utils.VideoMetadata(
        total_num_frames=total, fps=fps, duration=total / fps, frames_indices=numbers
    )
    chat = [{"role": "user", "content": [{"type": "video", "video": frames}, {"type": "text", "text": "What?"}]}]
    options = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    told = {"video_metadata": [facts], "do_sample_frames": False}
    return reference.processor.apply_chat_template(chat, **options, processor_kwargs=told)


@pytest.mark.parametrize(
    ("numbers", "fps", "total"),
    [([0, 7, 31], 10.0, 40), ([3], 30.0, 7), ([0, 100, 900, 36_000, 110_001], 29.97, 120_000), ([5, 6, 7], 5e-4, 99)],
)
@pytest.mark.parametrize("case", ["smolvlm", "left-over"])
def test_clips_equal_the_processor_s(
    case: str, numbers: list[int], fps: float, total: int, build: Build, photos: Photos
) -> None:
    reference = build(case)
    frames = clip_of(photos, len(numbers))
    inputs = processed_clip(reference, frames, numbers, fps, total)
    # An array does not say how long its clip is, a file does.
    clip = VideoData(frames, np.array(numbers) / fps, total / fps)
    ours = sdk.load(reference.folder, dtype="float32", device="cpu")
    media = ours.engine.media  # type: ignore[attr-defined]
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What?"}]}]
    plan = media.plan(ours.tokenizer, chat, [(clip, None)])
    assert list(plan) == inputs["input_ids"][0].tolist()
    reader = media.connector("video").reader
    assert torch.equal(torch.cat([reader.pixels(ImageData(frame)) for frame in frames]), inputs["pixel_values"][0])
    logits = torch.from_numpy(ours.logits(plan))
    with torch.no_grad():
        expected = reference.model(**inputs).logits[0]
    assert float((logits - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_a_clip_shows_its_frames_true_times(build: Build, photos: Photos) -> None:
    ours = sdk.load(build("smolvlm").folder)
    plan = ours.encode("A:", sdk.Video(clip_of(photos, 3), timestamps=[0.0, 9.9, 4271.5]), "B", raw=True)
    around, places = "<fake_token_around_image>", "<image>" * 9
    frame = f"{around}<global-img>{places}{around}"
    assert ours.tokenizer.decode(plan, skip_special=False) == (
        "<s>A:You are provided the following series of three frames from a 1:46:47 [H:MM:SS] video.\n\n"
        f"Frame from 00:00:{frame}\nFrame from 00:09:{frame}\nFrame from 71:11:{frame}\n\nB"
    )


def test_many_frames_are_read_a_few_at_a_time(build: Build, photos: Photos) -> None:
    ours = sdk.load(build("smolvlm").folder, dtype="float32")
    connector = ours.engine.media.connector("video")  # type: ignore[attr-defined]
    frames = clip_of(photos, 23)
    whole = connector.embed(VideoData(frames, np.arange(23.0), 23.0))
    parts = [connector.embed(VideoData(frame[None], np.zeros(1), 1.0)) for frame in frames]
    assert whole.shape == (23 * 9, 30)
    torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=2e-5 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (8, "eight"),
        (13, "thirteen"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (115, "one hundred and fifteen"),
        (640, "six hundred and forty"),
        (1000, "one thousand"),
        (2007, "two thousand and seven"),
        (12_345, "twelve thousand, three hundred and forty-five"),
        (700_100, "seven hundred thousand, one hundred"),
        (999_999, "nine hundred and ninety-nine thousand, nine hundred and ninety-nine"),
    ],
)
def test_numbers_are_spelled(number: int, words: str) -> None:
    assert number_words(number) == words


# Tiles


class OnlySizes(Idefics3ImageProcessor):
    """The reference's arithmetic, without pixels."""

    def resize(self, image: torch.Tensor, size: Any, resample: Any = None, **kwargs: Any) -> torch.Tensor:
        longest = size.longest_edge
        height, width = get_resize_output_image_size(image, longest) if longest else (size.height, size.width)
        return torch.zeros(1).expand(3, height, width)


@pytest.mark.parametrize(("longest", "tile"), [(1456, 364), (2048, 512), (1536, 384), (4096, 364), (100, 30), (7, 9)])
def test_arithmetic_equals_the_reference(longest: int, tile: int) -> None:
    splitting, reference = Splitting(tile, longest=longest), OnlySizes()
    numbers = random.Random(4)
    sizes = [(1, 1), (1, 5000), (5000, 1), (364, 364), (3, 700), (99_999, 7), (511, 512)]
    sizes += [(numbers.randint(1, 3000), numbers.randint(1, 3000)) for _ in range(500)]
    for height, width in sizes:
        image = torch.zeros(1).expand(3, height, width)
        resized = reference.resize(image, SizeDict(longest_edge=longest))
        assert splitting.resized(height, width) == tuple(resized.shape[1:])
        fitted = reference.resize_for_vision_encoder(resized, tile)
        assert splitting.fitted(height, width) == tuple(fitted.shape[1:])


def test_the_picture_in_the_docstring() -> None:
    splitting = Splitting(4, longest=12)
    assert splitting.resized(5, 9) == (6, 12) and splitting.fitted(5, 9) == (8, 12) and splitting.grid(5, 9) == (2, 3)
    image = torch.arange(96, dtype=torch.uint8).reshape(1, 8, 12).expand(3, -1, -1)
    tiles = torch.stack(Splitting(4).parts(image, partial(resize, resample="lanczos")))
    assert tiles.shape == (7, 3, 4, 4)
    assert tiles[0, 0, 0].tolist() == [0, 1, 2, 3] and tiles[1, 0, 0].tolist() == [4, 5, 6, 7]
    assert tiles[3, 2, 1].tolist() == [60, 61, 62, 63]
    (whole,) = Splitting(4).parts(image[:, :4, :4], partial(resize, resample="lanczos"))
    assert Splitting(4).grid(3, 4) == (0, 0) and torch.equal(whole, image[:, :4, :4])


def test_a_picture_of_endless_tiles_is_refused() -> None:
    with pytest.raises(sdk.InvalidInputError, match="60000 x 900"):
        Splitting(512).fitted(60_000, 900)


def test_what_no_file_says_is_what_published_files_say() -> None:
    assert read_splitting(None, 512) == Splitting(512, longest=2048)
    assert read_splitting({"do_image_splitting": False}, 512) == Splitting(364, longest=1456, cuts=False)
    assert read_splitting({"do_resize": False, "size": None}, 9) == Splitting(364)
    exact = {"size": {"height": 30, "width": 20}, "max_image_size": {"longest_edge": 10}}
    assert read_splitting(exact, 9) == Splitting(10, exact=(30, 20))


# Spellings, and what must be refused


def changed(folder: Path, target: Path, fields: Mapping[str, Any], steps: Mapping[str, Any], *, own: bool) -> Path:
    """A copy of a directory with other fields, and processors in files of their own if so asked."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text()) | fields
    (target / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    images = processor["image_processor"] | steps.get("image", {})
    processor = processor | {"image_processor": images} | steps.get("processor", {})
    if own:
        (target / "preprocessor_config.json").write_text(json.dumps(processor.pop("image_processor")))
        processor.pop("video_processor", None)
    (target / "processor_config.json").write_text(json.dumps(processor))
    return target


def test_files_of_transformers_4_load(build: Build, tmp_path: Path, photos: Photos) -> None:
    """Configurations name only what differs from their defaults, and clips are described with the pictures."""
    folder = build("smolvlm").folder
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 30}}
    older = changed(folder, tmp_path / "4", {}, {"image": {"video_sampling": sampling}}, own=True)
    raw = json.loads((older / "config.json").read_text())
    for part, usual in (
        ("text_config", transformers.LlamaConfig()),
        ("vision_config", transformers.Idefics3VisionConfig()),
    ):
        known = usual.to_dict()
        kept = {name: value for name, value in raw[part].items() if value != known.get(name)}
        assert len(kept) < len(raw[part])
        raw[part] = {name: value for name, value in kept.items() if name != "model_type"}
    (older / "config.json").write_text(json.dumps(raw))
    question = ("What?", sdk.Image(photos["tall"]), sdk.Video(clip_of(photos, 3), fps=1.0))
    new, old = sdk.load(folder), sdk.load(older)
    assert np.array_equal(old.logits(old.encode(*question)), new.logits(new.encode(*question)))


def test_without_files_of_processors_the_usual_steps_are_taken(build: Build, tmp_path: Path, photos: Photos) -> None:
    folder = Path(shutil.copytree(build("smolvlm").folder, tmp_path / "x"))
    (folder / "processor_config.json").unlink()
    ours = sdk.load(folder)
    steps = {"size": {"longest_edge": 120}, "max_image_size": {"longest_edge": 30}}
    pixels = transformers.SmolVLMImageProcessor(**steps)(photos["chelsea"], return_tensors="pt")["pixel_values"]
    connector = ours.engine.media.connector("image")  # type: ignore[attr-defined]
    assert torch.equal(connector.reader.pixels(sdk.Image(photos["chelsea"]).data), pixels[0])


DAMAGES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "factor": ({"scale_factor": 3}, {}, ("connector.modality_projection.proj.weight", "[30, 216]")),
    "odd-tile": ({}, {"image": {"max_image_size": {"longest_edge": 25}}}, ("5 patches a side", "2 of them")),
    "no-factor": ({"scale_factor": 0}, {}, ("scale_factor", "1..6")),
    "slots": ({}, {"processor": {"image_seq_len": 81}}, ("image_seq_len", "81", "9")),
    "no-tile": ({}, {"image": {"max_image_size": {"longest_edge": 0}}}, ("max_image_size", "1..4096")),
    "tile-of-two": ({}, {"image": {"max_image_size": {"height": 30, "width": 30}}}, ("max_image_size", "longest_edge")),
    "tile-too-small": ({}, {"image": {"max_image_size": {"longest_edge": 4}}}, ("0 patches",)),
    "no-size": ({}, {"image": {"size": {"shortest_edge": 30}}}, ("size", "shortest_edge", "longest_edge")),
    "size": ({}, {"image": {"size": {"longest_edge": 5000}}}, ("size", "5000", "4096")),
    "frames": (
        {},
        {"processor": {"video_processor": {"size": {"longest_edge": "30"}}}},
        ("size", "30", "longest_edge"),
    ),
    "step": ({}, {"image": {"do_something": True}}, ("do_something",)),
    "no-tower": ({"vision_config": None}, {}, ("vision_config",)),
    "no-such-token": ({"image_token_id": 9999}, {}, ("image_token_id", "9999")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_contradictions_are_refused(damage: str, build: Build, tmp_path: Path) -> None:
    fields, steps, parts = DAMAGES[damage]
    folder = changed(build("smolvlm").folder, tmp_path / damage, fields, steps, own=False)
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("name", ["model.connector.modality_projection.proj.weight", "model.text_model.norm.weight"])
def test_a_missing_tensor_is_named(name: str, build: Build, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build("idefics3").folder, tmp_path / "x"))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert name.removeprefix("model.").split(".")[-2] in str(caught.value)


def test_description(build: Build) -> None:
    for case, modalities in (("idefics3", ("text", "image")), ("smolvlm", ("text", "image", "video"))):
        reference = build(case)
        info = sdk.describe(reference.folder)
        assert info.parameters == sum(parameter.numel() for parameter in reference.model.parameters())
        assert info.modalities == sdk.load(reference.folder).modalities == modalities and info.family == case
    with pytest.raises(sdk.UnsupportedInputError, match="video"):
        sdk.load(build("idefics3").folder).ask(sdk.Video(np.zeros((3, 9, 9, 3), np.uint8), fps=1.0))
