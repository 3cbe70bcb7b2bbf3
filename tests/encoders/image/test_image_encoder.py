"""The encoder's protocol: batches of any sizes, errors, and what an import costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from sensorium import sdk
from sensorium.encoders.encoder import Encoder
from sensorium.encoders.image import PreprocessConfig, VisionEncoder, VisionTransformer, load_image_encoder
from sensorium.encoders.image.read_config import read_vision_config
from sensorium.encoders.media import SAMPLE_RATE, AudioData, ImageData
from sensorium.encoders.storage import shapes_only

References = Callable[[str], tuple[Any, Path]]
Photos = Mapping[str, NDArray[np.uint8]]
SIZES = {"shortest_edge": 35, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def images(photos: Photos) -> list[ImageData]:
    return [ImageData(photo) for photo in photos.values()]


@pytest.mark.parametrize("name", ["vit", "clip", "siglip", "naflex", "idefics3"])
def test_a_batch_is_what_each_would_be_alone(reference: References, photos: Photos, name: str) -> None:
    """Images keep their shapes, so each has another grid; nine of them, more than go in one pass."""
    loaded = load_image_encoder(reference(name)[1], dtype=torch.float64)
    assert isinstance(loaded, VisionEncoder)
    encoder = VisionEncoder(loaded.network, PreprocessConfig(shortest_edge=35))
    batch = (images(photos) * 2)[:9]
    output = encoder.encode(batch)
    first = int(encoder.network.config.class_token)
    assert output.features.shape == (9, int(output.lengths.max()), encoder.feature_size)
    assert output.timestamps is None
    assert len(set(output.lengths.tolist())) > 2
    for image, row, length in zip(batch, output.features, output.lengths.tolist(), strict=True):
        alone = encoder.encode([image])
        assert alone.lengths.tolist() == [length]
        height, width = encoder.preprocess.config.resized(image.height, image.width)
        assert length == first + (height // 5) * (width // 5)
        assert (row[:length] - alone.features[0]).abs().max() <= 1e-12 * alone.features.abs().max()
        assert not row[length:].any()
    if name != "idefics3":
        together = encoder.embed(batch)
        apart = torch.cat([encoder.embed([image]) for image in batch])
        assert (together - apart).abs().max() <= 1e-12 * apart.abs().max()


def test_from_photo_to_features_as_transformers_does_it(reference: References, photos: Photos, tmp_path: Path) -> None:
    """A whole CLIP directory with its processor: pixels, features, layer and embedding."""
    model, folder = reference("clip")
    model = model.float()
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 41}, crop_size={"height": 35, "width": 35})
    processor.save_pretrained(folder)
    encoder = load_image_encoder(folder, layer=-2, class_token=False)
    assert isinstance(encoder, VisionEncoder)
    inputs = processor(list(photos.values()), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = model.vision_model(inputs, output_hidden_states=True).hidden_states[-2][:, 1:]
        embedding = model.get_image_features(inputs).pooler_output
    ours = encoder.encode(images(photos))
    assert ours.lengths.tolist() == [49] * len(photos)
    assert torch.allclose(ours.features, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
    assert torch.allclose(encoder.embed(images(photos)), embedding, rtol=0, atol=1e-4 * float(embedding.abs().max()))
    # The newer file, which holds every processor of a model, says the same.
    steps = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": steps, "processor_class": "X"}))
    (folder / "preprocessor_config.json").unlink()
    assert load_image_encoder(folder).preprocess.config == encoder.preprocess.config


def test_naflex_as_transformers_does_it(reference: References, photos: Photos) -> None:
    model, folder = reference("naflex")
    processor = transformers.Siglip2ImageProcessor(patch_size=5, max_num_patches=49)
    inputs = processor(list(photos.values()), return_tensors="pt")
    model = model.float()
    with torch.no_grad():
        theirs = model.vision_model(**inputs)
        embedding = model.get_image_features(**inputs).pooler_output
    encoder = load_image_encoder(folder)
    assert isinstance(encoder, VisionEncoder)
    assert encoder.preprocess.config.most_patches == 49
    output = encoder.encode(images(photos))
    counts = inputs["pixel_attention_mask"].sum(1)
    assert output.lengths.tolist() == counts.tolist()
    scale = float(theirs.last_hidden_state.abs().max())
    for row, other, count in zip(output.features, theirs.last_hidden_state, counts.tolist(), strict=True):
        assert torch.allclose(row[:count], other[:count], rtol=0, atol=1e-4 * scale)
    assert torch.allclose(encoder.embed(images(photos)), embedding, rtol=0, atol=1e-4 * float(embedding.abs().max()))


def test_errors_name_what_was_given(reference: References) -> None:
    encoder = load_image_encoder(reference("vit")[1])
    sound = AudioData(np.zeros(SAMPLE_RATE, np.float32))
    image = ImageData(np.zeros((3, 5, 3), np.uint8))
    assert isinstance(encoder, Encoder)
    assert encoder.modality == "image"
    for batch, given in (([], "an empty batch"), ([image, sound], "item 1 is audio"), ([None], "item 0 is NoneType")):
        with pytest.raises(sdk.InvalidInputError, match=given):
            encoder.encode(batch)
    with pytest.raises(sdk.InvalidInputError, match="ImageData"):
        encoder.encode(image)  # type: ignore[arg-type]


def test_a_network_for_other_channels() -> None:
    config = read_vision_config({"model_type": "siglip", "num_channels": 1, "hidden_size": 24, "num_hidden_layers": 1})
    with shapes_only():
        network = VisionTransformer(config)
    with pytest.raises(sdk.UnsupportedInputError, match="1 channels"):
        VisionEncoder(network, PreprocessConfig())


def test_pixels_that_cannot_be_written_to(reference: References) -> None:
    """A frozen array is read without a warning, and stays as it is."""
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    flipped = pixels[:, ::-1]  # negative strides, which torch does not take
    encoder = load_image_encoder(reference("vit")[1])
    features = encoder.encode([ImageData(pixels), ImageData(frozen), ImageData(flipped)]).features
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


@pytest.mark.parametrize(
    "line",
    [
        "import sensorium.sdk",
        "import sensorium.encoders.image",
        "from sensorium.encoders.image import PreprocessConfig, VisionConfig, imagenet_labels; imagenet_labels()",
    ],
)
def test_configurations_cost_no_torch(line: str) -> None:
    code = f"import sys; {line}; print(sorted({{'torch', 'torchvision', 'transformers', 'timm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_networks_need_torch_alone() -> None:
    code = "import sys; from sensorium.encoders.image import load_image_encoder, Preprocess; "
    code += "print(sorted({'torchvision', 'transformers', 'timm', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_no_attribute() -> None:
    from sensorium.encoders import image

    with pytest.raises(AttributeError, match="nonsense"):
        _ = image.nonsense
