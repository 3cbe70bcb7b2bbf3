"""Every tower against `transformers` on the same weights: features, hidden states, pooled outputs, other sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sensorium import sdk
from sensorium.encoders.image import VisionConfig, VisionTransformer
from sensorium.encoders.image.preprocess import pack_patches
from sensorium.encoders.image.weights import load_vision_transformer
from sensorium.encoders.storage import read_json, tensor_files
from torch import Tensor

from .conftest import AllDoubles

References = Callable[[str], tuple[Any, Path]]
SQUARE = [
    "vit",
    "vit-classifier",
    "clip-vision",
    "clip-projection",
    "clip",
    "siglip-vision",
    "siglip-headless",
    "siglip",
]
# The table's own size, that with pixels left over, and grids that it must be resized to.
SIZES = [(35, 35), (35, 37), (20, 35), (64, 41), (5, 90)]
EXACT, SINGLE = 1e-12, 1e-5  # in float64 and float32, of the largest number


def load(folder: Path, dtype: torch.dtype = torch.float64) -> VisionTransformer:
    files = tensor_files(folder)
    network = load_vision_transformer(files, read_json(folder / "config.json"), dtype=dtype)
    for file in files.values():
        file.close()
    return network


def pixels(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height + width)).to(dtype)


def same(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Equal to a share of the largest number."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def run(model: Any, images: Tensor, **kwargs: Any) -> Any:
    with AllDoubles() if images.dtype == torch.float64 else torch.no_grad():
        return model(images, **kwargs)


@pytest.mark.parametrize("name", SQUARE)
def test_features_of_any_size(reference: References, name: str) -> None:
    model, folder = reference(name)
    tower = getattr(model, "vision_model", getattr(model, "vit", model)).double()
    network = load(folder)
    for size in SIZES:
        images = pixels(*size)
        theirs = run(tower, images, interpolate_pos_encoding=True)
        ours = network(images)
        same(ours, theirs.last_hidden_state, EXACT)
        if theirs.pooler_output is not None:
            same(network.pooled(ours), theirs.pooler_output, EXACT)


@pytest.mark.parametrize("name", SQUARE)
def test_single_precision(reference: References, name: str) -> None:
    model, folder = reference(name)
    tower = getattr(model, "vision_model", getattr(model, "vit", model)).float()
    network, images = load(folder, torch.float32), pixels(45, 25, torch.float32)
    same(network(images), run(tower, images, interpolate_pos_encoding=True).last_hidden_state, SINGLE)


@pytest.mark.parametrize("name", ["vit", "clip", "siglip"])
def test_every_hidden_state(reference: References, name: str) -> None:
    model, folder = reference(name)
    tower = getattr(model, "vision_model", model).double()
    network, images = load(folder), pixels(35, 35)
    theirs = run(tower, images, output_hidden_states=True).hidden_states
    states = network.hidden_states(images)
    assert len(states) == len(theirs) == 5
    for layer in range(-5, 5):
        same(states[layer], theirs[layer], EXACT)
        assert torch.equal(network(images, layer=layer), states[layer])
    for layer in (-6, 5):
        with pytest.raises(sdk.InvalidInputError, match=r"-5\.\.4"):
            network(images, layer=layer)


def test_heads_of_whole_models(reference: References) -> None:
    images = pixels(35, 35)
    model, folder = reference("clip")
    network = load(folder)
    same(network.embedding(network(images)), run(model.double().get_image_features, images).pooler_output, EXACT)
    model, folder = reference("clip-projection")
    network = load(folder)
    same(network.embedding(network(images)), run(model.double(), images).image_embeds, EXACT)
    model, folder = reference("vit-classifier")
    network = load(folder)
    same(network.logits(network(images)), run(model.double(), images).logits, EXACT)
    with pytest.raises(sdk.UnsupportedInputError, match="no classifier"):
        load(reference("clip")[1]).logits(images)
    headless = load(reference("siglip-headless")[1])
    with pytest.raises(sdk.UnsupportedInputError, match="a whole image"):
        headless.pooled(headless(images))


@pytest.mark.parametrize("name", ["naflex", "naflex-vision"])
def test_grids_of_any_shape_in_one_batch(reference: References, name: str) -> None:
    """Grids larger and smaller than the table of 7 x 7, with pixels left over, padded to 40 patches."""
    model, folder = reference(name)
    tower = getattr(model, "vision_model", model).double()
    network = load(folder)
    images = [pixels(*size)[0] for size in ((35, 35), (17, 62), (10, 100), (5, 5))]
    patches, grids = pack_patches(images, 5)
    assert grids.tolist() == [[7, 7], [3, 12], [2, 20], [1, 1]]
    mask = torch.arange(49)[None] < grids.prod(1, keepdim=True)
    with AllDoubles():
        theirs = tower(patches, pixel_attention_mask=mask.int(), spatial_shapes=grids)
    ours = network(patches, grids=grids)
    same(ours[mask], theirs.last_hidden_state[mask], EXACT)
    same(network.pooled(ours, mask), theirs.pooler_output, EXACT)
    for number, image in enumerate(images):  # the same image alone, as pixels
        alone = network(image[None])
        same(alone[0], ours[number][mask[number]], EXACT)
        same(network.pooled(alone)[0], theirs.pooler_output[number], EXACT)


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_fractional_positions_with_masks(reference: References, name: str) -> None:
    """Four images padded to 8 x 10 patches; which of the table's 7 x 7 positions each takes is part of the result."""
    model, folder = reference(name)
    model = model.double()
    network, images = load(folder), pixels(40, 50)
    images = torch.cat((images, -images))
    mask = torch.zeros(4, 8, 10, dtype=torch.bool)
    for image, (rows, columns) in enumerate(((8, 10), (3, 7), (7, 7), (1, 10))):
        mask[image, :rows, :columns] = True
    real = mask.flatten(1)
    theirs = run(model, images, patch_attention_mask=mask).last_hidden_state
    same(network(images, patch_mask=mask)[real], theirs[real], EXACT)
    same(network(images), run(model, images).last_hidden_state, EXACT)
    with pytest.raises(sdk.InvalidInputError, match=r"\[4, 8, 10\]"):
        network(images, patch_mask=mask[:, :5])


@pytest.mark.parametrize("side", range(1, 40))
def test_fractional_positions_of_every_side(side: int) -> None:
    """The reference's float32 borders: at some sides a grid of the table's own size is not looked up one to one."""
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionEmbeddings

    sizes: dict[str, Any] = {"hidden_size": 1, "patch_size": 1, "image_size": side, "num_channels": 3}
    theirs = Idefics3VisionEmbeddings(Idefics3VisionConfig(**sizes, num_attention_heads=1))
    theirs.position_embedding.weight.data = torch.arange(side * side).float()[:, None]
    theirs.patch_embedding.weight.data.zero_()
    theirs.patch_embedding.bias.data.zero_()
    config = VisionConfig(
        family="idefics3",
        hidden_size=1,
        layers=1,
        heads=1,
        mlp_size=1,
        patch_size=1,
        image_size=side,
        positions="fractional",
    )
    ours = VisionTransformer(config).embeddings
    ours.load_state_dict(theirs.state_dict())
    for rows, columns in ((side, side), (side + 3, 1), (7, 11)):
        mask = torch.ones(1, rows, columns, dtype=torch.bool)
        found, _ = ours(torch.zeros(1, 3, rows, columns), None, None)
        assert torch.equal(found, theirs(torch.zeros(1, 3, rows, columns), mask))


@pytest.mark.parametrize("name", ["vit", "clip-vision", "siglip", "idefics3"])
def test_packed_patches_equal_pixels(reference: References, name: str) -> None:
    """Images of different sizes in one batch, for networks whose patches are convolved."""
    network = load(reference(name)[1])
    images = [pixels(*size)[0] for size in ((35, 35), (17, 62), (35, 5))]
    patches, grids = pack_patches(images, 5)
    ours = network(patches, grids=grids)
    first = int(network.config.class_token)
    for number, image in enumerate(images):
        alone = network(image[None])[0]
        assert len(alone) == first + grids[number].prod()
        same(ours[number, : len(alone)], alone, EXACT)
    with pytest.raises(sdk.InvalidInputError, match="grids"):
        network(patches)
    with pytest.raises(sdk.InvalidInputError, match="smaller than a patch"):
        network(images[0][None, :, :4])


def test_a_mask_looks_like_its_picture() -> None:
    from sensorium.encoders.image.patches import PatchLayout

    picture = ("#####..", "#####..", ".......")
    mask = torch.tensor([[[sign == "#" for sign in row] for row in picture]])
    layout = PatchLayout.masked(mask)
    assert layout.grids.tolist() == [[2, 5]]
    assert layout.mask is not None
    assert torch.equal(layout.mask.unflatten(1, (3, 7)), mask)
    packed = PatchLayout.packed(layout.grids, 12)
    for rows, columns, real in ((layout.rows, layout.columns, layout.mask), (packed.rows, packed.columns, packed.mask)):
        places = list(zip(rows[real].tolist(), columns[real].tolist(), strict=True))
        assert places == [(row, column) for row in range(2) for column in range(5)]


def test_a_tower_within_a_larger_model(reference: References, tmp_path: Path) -> None:
    """As in LLaVA: the prefix is found, the configuration lies under ``vision_config``, the rest is left alone."""
    from safetensors.torch import load_file, save_file

    model, folder = reference("siglip-vision")
    tensors = load_file(folder / "model.safetensors")
    inside = {f"model.vision_tower.vision_model.{name}": tensor for name, tensor in tensors.items()}
    save_file(inside | {"lm_head.weight": torch.ones(3, 5)}, tmp_path / "model.safetensors")
    raw = {"model_type": "llava", "vision_config": read_json(folder / "config.json")}
    files = tensor_files(tmp_path)
    images = pixels(35, 35)
    network = load_vision_transformer(files, raw, dtype=torch.float64)
    same(network(images), run(model.double(), images).last_hidden_state, EXACT)
    twice = {f"{side}.{name}": tensor.clone() for side in ("one", "two") for name, tensor in tensors.items()}
    save_file(twice, tmp_path / "model.safetensors")
    two = tensor_files(tmp_path)
    with pytest.raises(sdk.CheckpointError, match=r"one\., two\."):
        load_vision_transformer(two, raw)
    same(load_vision_transformer(two, raw, prefix="two.", dtype=torch.float64)(images), network(images), EXACT)
    for file in {*files.values(), *two.values()}:
        file.close()


def test_full_sizes_have_the_published_parameter_counts() -> None:
    """On the meta device: no memory. Counts as `transformers` makes them."""
    import transformers
    from sensorium.encoders.image.read_config import read_vision_config
    from sensorium.encoders.storage import shapes_only

    gemma3 = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "num_attention_heads": 16}
    gemma3 |= {"num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False}
    for theirs in (
        transformers.ViTConfig(),
        transformers.CLIPVisionConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, patch_size=14),
        transformers.SiglipVisionConfig(**gemma3),
        transformers.Siglip2VisionConfig(),
    ):
        with shapes_only():
            ours = VisionTransformer(read_vision_config(theirs.to_dict()))
            model = transformers.AutoModel.from_config(theirs)
        assert sum(map(torch.numel, ours.parameters())) == sum(map(torch.numel, model.parameters()))
