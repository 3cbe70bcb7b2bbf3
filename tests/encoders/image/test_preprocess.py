"""Preprocessing against `transformers`' and timm's processors, against Pillow, and as an exported graph."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from sensorium import sdk
from sensorium.encoders.image import Preprocess, PreprocessConfig, VisionConfig
from sensorium.encoders.image.efficientnet import EFFICIENTNETS, efficientnet_preprocess
from sensorium.encoders.image.preprocess import patchify
from sensorium.encoders.image.read_config import read_preprocess_config, read_vision_config
from sensorium.encoders.image.resample import resample_matrix, resize, resize_by_products
from torch import Tensor

Photos = Mapping[str, NDArray[np.uint8]]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
FILTERS |= {"lanczos": Image.Resampling.LANCZOS}
# Each kind of processor, at its own size and at odd ones: a crop that does not divide, one larger than the image.
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIP", {}),
    "clip-odd": ("CLIP", {"size": {"shortest_edge": 97}, "crop_size": {"height": 71, "width": 96}}),
    "clip-small": ("CLIP", {"size": {"shortest_edge": 34}, "crop_size": {"height": 53, "width": 38}}),
    "clip-uncropped": ("CLIP", {"size": {"shortest_edge": 51}, "do_center_crop": False, "resample": 1}),
    "vit": ("ViT", {}),
    "vit-scaled": ("ViT", {"do_normalize": False, "size": {"height": 61, "width": 43}}),
    "vit-raw": ("ViT", {"do_rescale": False, "do_resize": False}),
    "siglip": ("Siglip", {"size": {"height": 384, "width": 384}}),
    "siglip2": ("Siglip", {"resample": 2}),
    "naflex": ("Siglip2", {}),
    "naflex-odd": ("Siglip2", {"patch_size": 7, "max_num_patches": 90}),
}
FAMILIES = {"CLIP": "clip", "ViT": "vit", "Siglip": "siglip", "Siglip2": "siglip2"}
DIMENSION = {"min": 2, "max": 8192}


def of_family(prefix: str) -> VisionConfig:
    return read_vision_config({"model_type": FAMILIES[prefix]})


def as_pixels(processor: Any, photo: NDArray[np.uint8], ours: Tensor) -> tuple[Tensor, Tensor]:
    """The reference's result and ours in one layout, with padding removed."""
    found = processor(photo, return_tensors="pt")
    theirs = found["pixel_values"][0]
    if "spatial_shapes" not in found:
        return theirs, ours
    rows, columns = found["spatial_shapes"][0].tolist()
    patch = processor.patch_size
    assert tuple(ours.shape[1:]) == (rows * patch, columns * patch)
    return theirs[: rows * columns], patchify(ours, patch)


@pytest.mark.parametrize("name", PROCESSORS)
def test_equal_to_transformers(photos: Photos, tmp_path: Path, name: str) -> None:
    """To the last bit to the processors that transformers takes by default, to 2 of 255 to those that use Pillow."""
    prefix, fields = PROCESSORS[name]
    processor = getattr(transformers, f"{prefix}ImageProcessor")(**fields)
    pillow = getattr(transformers, f"{prefix}ImageProcessorPil")(**fields)
    processor.save_pretrained(tmp_path)
    config = read_preprocess_config(json.loads((tmp_path / "preprocessor_config.json").read_text()), of_family(prefix))
    preprocess = Preprocess(config)
    differ, total = 0, 0
    for which, photo in photos.items():
        ours = preprocess(torch.from_numpy(photo))
        assert ours.dtype == torch.float32
        theirs, same = as_pixels(processor, photo, ours)
        assert torch.equal(same, theirs.float())
        if name == "clip-small" or which == "tall":  # the references differ: an odd margin, Pillow's order of axes
            continue
        theirs, same = as_pixels(pillow, photo, ours)
        unit = config.scale / max(config.std)  # one of 255, after normalisation
        assert (theirs - same).abs().max() < 2.01 * unit
        differ, total = differ + int(((theirs - same).abs() > 0.5 * unit).sum()), total + same.numel()
    assert differ <= 0.025 * total


def test_the_published_steps_of_efficientnet(photos: Photos) -> None:
    theirs = timm.data.create_transform(
        (3, 260, 260), interpolation="bicubic", crop_pct=0.89, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    )
    ours = Preprocess(efficientnet_preprocess(EFFICIENTNETS["lite2"]))
    for name in ("coffee", "chelsea", "astronaut"):
        image = theirs(Image.fromarray(photos[name]))
        assert isinstance(image, Tensor)
        difference = (image - ours(torch.from_numpy(photos[name]))).abs() * 128
        assert difference.max() < 2.01
        assert (difference > 0.5).float().mean() < 0.01


@pytest.mark.parametrize("resample", FILTERS)
def test_products_equal_pillow(photos: Photos, resample: Any) -> None:
    """In float64 bit for bit; in float32 to 1 of 255, in few values."""
    differ, total = 0, 0
    for name, photo in photos.items():
        image = torch.from_numpy(photo).permute(2, 0, 1)
        for height, width in ((97, 33), (260, 381), (photo.shape[0], 5), (700, photo.shape[1]), (1, 1)):
            pillow = np.array(Image.fromarray(photo).resize((width, height), FILTERS[resample]))
            theirs = torch.from_numpy(pillow).permute(2, 0, 1)
            exact = resize_by_products(image, height, width, resample)
            if (name, height) == ("tall", 260) and not torch.equal(exact, theirs.double()):
                # Pillow 13 takes the height first here; so do we if rows and columns change places.
                turned = resize_by_products(image.transpose(1, 2), width, height, resample).transpose(1, 2)
                assert torch.equal(turned, theirs.double())
                assert (exact - theirs.double()).abs().max() <= 6
                continue
            assert torch.equal(exact, theirs.double())
            single = resize_by_products(image, height, width, resample, dtype=torch.float32)
            assert (single - theirs.float()).abs().max() <= 1
            differ, total = differ + int((single != theirs).sum()), total + single.numel()
            native = resize(image, height, width, resample)
            assert (native.int() - theirs.int()).abs().max() <= 2
    assert differ < (5e-3 if resample == "bilinear" else 1e-4) * total


def test_a_resampling_matrix_looks_like_its_picture() -> None:
    """Six pixels to three, bilinear: each new one sees four, the outer ones only what there is."""
    shares = torch.tensor([[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]]).double()
    assert torch.allclose(resample_matrix(6, 3, "bilinear"), shares / shares.sum(1, keepdim=True), atol=2**-23)
    assert torch.equal(resample_matrix(6, 3, "bilinear", kept=1), resample_matrix(6, 3, "bilinear")[1:2])
    assert torch.equal(resample_matrix(5, 5, "bicubic"), torch.eye(5).double())


@pytest.mark.parametrize("name", ["efficientnet", "clip", "siglip"])
def test_exported_with_sizes_as_symbols(photos: Photos, name: str) -> None:
    config = {
        "efficientnet": efficientnet_preprocess(EFFICIENTNETS["lite0"]),
        "clip": PreprocessConfig(shortest_edge=37, crop=(37, 37), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        "siglip": PreprocessConfig(height=61, width=43, resample="bilinear"),
    }[name]
    portable, native = Preprocess(config, portable=True), Preprocess(config)
    sizes = ({0: torch.export.Dim("height", **DIMENSION), 1: torch.export.Dim("width", **DIMENSION)},)
    graph = torch.export.export(portable, (torch.from_numpy(photos["coffee"]),), dynamic_shapes=sizes).module()
    for photo in photos.values():
        raw = torch.from_numpy(photo)
        assert torch.equal(graph(raw), portable(raw))
        assert (portable(raw) - native(raw)).abs().max() < 2.01 * config.scale / min(config.std)
        exact = Preprocess(config, portable=True).double()(raw)
        assert (portable(raw) - exact).abs().max() < 1.01 * config.scale / min(config.std)


def test_patches_cover_as_many_as_the_reference() -> None:
    from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

    draw = random.Random(5)
    for _ in range(200):
        height, width = (int(2 ** draw.uniform(0, 13)) for _ in range(2))
        patch, most = draw.randint(1, 32), draw.randint(1, 1024)
        ours = PreprocessConfig(most_patches=most, patch_size=patch).resized(height, width)
        assert ours == get_image_size_for_max_num_patches(height, width, patch, most)


EXTREMES = [(1, 1), (1, 60_000), (60_000, 2), (2, 3)]


@pytest.mark.parametrize("size", EXTREMES)
def test_extreme_images_get_an_answer_or_an_error(size: tuple[int, int]) -> None:
    raw = torch.full((*size, 3), 200, dtype=torch.uint8)
    for config in (
        PreprocessConfig(height=61, width=43),
        PreprocessConfig(most_patches=64, patch_size=5),
        PreprocessConfig(shortest_edge=70, crop=(50, 50)),
    ):
        for portable in (False, True) if max(size) < 60_000 else (False,):
            preprocess = Preprocess(config, portable=portable)
            if max(size) == 60_000 and config.shortest_edge:
                with pytest.raises(sdk.InvalidInputError, match="which would become"):
                    preprocess(raw)
            else:
                found = preprocess(raw)
                assert torch.allclose(found, torch.full_like(found, 200 / 255), atol=1e-6)


OLD: dict[str, tuple[str, dict[str, Any], PreprocessConfig]] = {
    # Published before sizes were dictionaries.
    "clip": (
        "clip",
        {
            "crop_size": 224,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.4, 0.5, 0.6],
            "image_std": [0.2, 0.3, 0.4],
            "resample": 3,
            "size": 224,
        },
        PreprocessConfig(shortest_edge=224, crop=(224, 224), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
    ),
    "vit": (
        "vit",
        {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 384},
        PreprocessConfig(height=384, width=384, resample="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    "list": (
        "siglip",
        {"size": [384, 378], "image_processor_type": "SiglipImageProcessorFast"},
        PreprocessConfig(height=384, width=378, mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    "naflex": (
        "siglip2",
        {"max_num_patches": 1024, "patch_size": 14},
        PreprocessConfig(most_patches=1024, patch_size=14, resample="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_older_files(name: str) -> None:
    family, raw, expected = OLD[name]
    assert read_preprocess_config(raw, read_vision_config({"model_type": family})) == expected


def test_without_a_file_the_network_says_its_size() -> None:
    def of(**fields: Any) -> PreprocessConfig:
        return read_preprocess_config(None, read_vision_config(fields))

    assert of(model_type="clip_vision_model", image_size=336).crop == (336, 336)
    assert of(model_type="vit", image_size=96, patch_size=8).fixed_size == (96, 96)
    assert of(model_type="siglip2", num_patches=144).most_patches == 144
    assert of(model_type="siglip2", num_patches=144).fixed_size is None


REFUSED: list[dict[str, Any]] = [
    {"size": {"longest_edge": 364}},
    {"size": {"height": 224}},
    {"size": "224"},
    {"size": {"height": 1 << 40, "width": 3}},
    {"size": {"height": 0, "width": 3}},
    {"size": {"height": True, "width": 3}},
    {"size": [1, 2, 3]},
    {"do_center_crop": True, "crop_size": {"shortest_edge": 4}},
    {"do_center_crop": True, "crop_size": -3},
    {"resample": 5},
    {"resample": "bicubic"},
    {"image_mean": [0.5, 0.5]},
    {"image_mean": [0.5, 0.5, "0.5"]},
    {"image_std": [0.5, 0.5, 0]},
    {"image_std": [float("nan")] * 3},
    {"rescale_factor": 0},
    {"rescale_factor": "1/255"},
    {"do_image_splitting": True},
    {"do_pad": True},
]


@pytest.mark.parametrize("fields", REFUSED)
def test_files_that_ask_for_something_else(fields: dict[str, Any]) -> None:
    config = read_vision_config({"model_type": "vit"})
    with pytest.raises(sdk.CheckpointError):
        read_preprocess_config(fields, config)
