"""LLaVA-NeXT against `transformers`: tiles, pixels, places, logits and answers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from sensorium import sdk
from sensorium.fusion.multimodal.anyres import RESOLUTIONS, Anyres, read_resolutions
from tokenizers import AddedToken
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

Photos = Mapping[str, NDArray[np.uint8]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]
PINPOINTS = [[35, 70], [70, 35], [70, 70], [105, 35], [35, 105]]
STEPS = {"size": {"shortest_edge": 35}, "crop_size": {"height": 35, "width": 35}, "image_grid_pinpoints": PINPOINTS}
# Decoder, tower, steps of the processor, and fields of config.json.
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "mistral": ("Mistral", "CLIP", {}, {}),
    "llama": ("Llama", "CLIP", {"size": {"shortest_edge": 39}}, {"vision_feature_layer": [-1, 2]}),
    "qwen2": (
        "Qwen2",
        "Siglip",
        {"size": {"height": 35, "width": 35}, "do_center_crop": False, "resample": 2},
        {"vision_feature_select_strategy": "full"},
    ),
}


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, tower: dict[str, Any], text: dict[str, Any]) -> Build:
    """A random LLaVA-NeXT of a case."""

    def make(case: str) -> Any:
        decoder, vision, steps, fields = CASES[case]
        words = tiny_tokenizer(AddedToken("<image>", special=True, normalized=False))
        config = transformers.LlavaNextConfig(
            vision_config=getattr(transformers, f"{vision}VisionConfig")(**tower),
            text_config=getattr(transformers, f"{decoder}Config")(**text),
            image_token_index=words.convert_tokens_to_ids("<image>"),
            image_grid_pinpoints=PINPOINTS,
            **fields,
        )
        processor = transformers.LlavaNextProcessor(
            transformers.LlavaNextImageProcessor(**STEPS | steps),
            words,
            patch_size=5,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=int(vision == "CLIP"),
            chat_template=words.chat_template,
        )
        return transformers.LlavaNextForConditionalGeneration(config), processor

    return lambda case: made(f"llava-next-{case}", lambda: make(case))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", photos["tall"], "and", photos["odd"], "What is in them?"))


@pytest.mark.parametrize("name", ["coffee", "tall", "tiny", "rocket", "astronaut", "odd", "chelsea"])
@pytest.mark.parametrize("case", ["mistral", "llama", "qwen2"])
def test_pixels_and_places_equal_the_processor_s(
    case: str, name: str, build: Build, photos: Photos, asking: Asking
) -> None:
    reference = build(case)
    inputs = reference.inputs(asking(photos[name], "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Image(photos[name]), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    connector = ours.engine.media.connector("image")  # type: ignore[attr-defined]
    assert torch.equal(connector.pixels(plan.items[0].media), inputs["pixel_values"][0])


def test_a_batch_of_different_media_equals_one_by_one(
    build: Build, photos: Photos, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build("mistral").folder, dtype="float32")
    prompts = [
        our_parts(asking(photos["chelsea"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        our_parts(asking(photos["odd"], "One", photos["tall"], "two")),
    ]
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone


# Tiles


def sizes() -> list[tuple[int, int]]:
    """Heights and widths: extreme, square, and random ones."""
    numbers = random.Random(4)
    extreme = [(1, 1), (1, 5000), (5000, 1), (336, 336), (672, 672), (671, 1009), (3, 700), (100_000, 7)]
    return extreme + [(numbers.randint(1, 3000), numbers.randint(1, 3000)) for _ in range(700)]


@pytest.mark.parametrize("pinpoints", [RESOLUTIONS, [[336, 1344], [672, 336]]])
def test_arithmetic_equals_the_reference(pinpoints: list[list[int]]) -> None:
    anyres = Anyres(read_resolutions(pinpoints, 336), 336, 24, (336, 336))
    for height, width in sizes():
        resolution = select_best_resolution((height, width), pinpoints)
        assert anyres.resolution(height, width) == resolution
        image = np.broadcast_to(np.uint8(0), (3, height, width))
        assert anyres.fitted(height, width) == get_patch_output_size(image, resolution, "channels_first")
        grid = get_anyres_image_grid_shape((height, width), pinpoints, 336)
        assert anyres.grid(height, width) == grid
        kept = unpad_image(torch.zeros(1, grid[0] * 24, grid[1] * 24), (height, width))
        assert anyres.count(height, width) == kept.shape[1] * (kept.shape[2] + 1)


def test_the_picture_in_the_docstring() -> None:
    """2 x 5 in 2 x 2 tiles of 2 x 2 features: one row of border above and one below."""
    anyres = Anyres(((4, 4),), 2, 2, (2, 2))
    assert anyres.fitted(2, 5) == (2, 4) and anyres.grid(2, 5) == (2, 2) and anyres.border(2, 5) == (1, 0)
    marked = np.arange(16).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(-1)  # of a 4 x 4 grid in raster order
    joined = np.concatenate((np.full(4, 100), marked, [-1]))[anyres.order(2, 5)]
    assert joined.tolist() == [100] * 4 + [4, 5, 6, 7, -1, 8, 9, 10, 11, -1]
    assert len(joined) == 4 + anyres.count(2, 5)


def test_tiles_are_cut_row_by_row() -> None:
    anyres = Anyres(((4, 6),), 2, 2, (1, 5))
    image = np.broadcast_to(np.arange(24, dtype=np.uint8).reshape(1, 4, 6), (3, 4, 6))
    whole, *tiles = anyres.parts(image, lambda image, height, width: image[:, :height, :width])
    assert whole.shape == (3, 1, 5) and [tile.shape for tile in tiles] == [(3, 2, 2)] * 6
    assert tiles[0][0].tolist() == [[0, 1], [6, 7]] and tiles[1][0].tolist() == [[2, 3], [8, 9]]
    assert tiles[3][2].tolist() == [[12, 13], [18, 19]]


@pytest.mark.parametrize(
    "given",
    [None, [], "x", [[336]], [[336, 0]], [[336, -336]], [[336, 337]], [[336, True]], [[336 * 60, 336 * 60]], [5]],
)
def test_nonsense_is_no_resolution(given: object) -> None:
    with pytest.raises(sdk.CheckpointError, match="image_grid_pinpoints"):
        read_resolutions(given, 336)


# What must be refused


DAMAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "pinpoints-differ": ("mistral", {"image_grid_pinpoints": [[35, 35]]}, {}, ("image_grid_pinpoints", "[[35, 35]]")),
    "pinpoints-odd": (
        "mistral",
        {"image_grid_pinpoints": [[36, 35]]},
        {"image_grid_pinpoints": [[36, 35]]},
        ("image_grid_pinpoints", "multiples of 35"),
    ),
    "class-kept": ("mistral", {"vision_feature_select_strategy": "full"}, {}, ("no square", "50")),
    "no-class-dropped": ("qwen2", {"vision_feature_select_strategy": "default"}, {}, ("no square", "48")),
    "other-tiles": ("mistral", {}, {"crop_size": {"height": 30, "width": 30}}, ("30 x 30", "35 x 35")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_contradictions_are_refused(damage: str, build: Build, tmp_path: Path) -> None:
    case, fields, steps, parts = DAMAGES[damage]
    folder = Path(shutil.copytree(build(case).folder, tmp_path / damage))
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    processor["image_processor"] |= steps
    (folder / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_missing_newline_is_named(build: Build, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(build("mistral").folder, tmp_path / "x"))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("image_newline")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(sdk.CheckpointError, match="image_newline"):
        sdk.load(folder)
