"""VideoMAE and ViViT give what `transformers` gives on the same weights, read from its own directories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from sensorium.encoders.encoder import Encoder
from sensorium.encoders.errors import CheckpointError, InvalidInputError, UnknownFamilyError
from sensorium.encoders.media import VideoData
from sensorium.encoders.storage import read_json
from sensorium.encoders.video import load_video_encoder
from sensorium.encoders.video.model import sinusoid_table
from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

from .conftest import MODELS

Reference = Callable[[str], tuple[Any, Path]]


def edited(folder: Path, to: Path, **fields: Any) -> Path:
    """A copy of a checkpoint with other fields in its config.json."""
    import json

    shutil.copytree(folder, to)
    config = read_json(to / "config.json") | fields
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize("name", sorted(MODELS))
def test_features_equal_the_reference(name: str, reference: Reference) -> None:
    model, folder = reference(name)
    encoder = load_video_encoder(folder)
    shape = encoder.network.config
    pixels = torch.randn(2, shape.frames, 3, *shape.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
        torch.testing.assert_close(encoder.network(pixels), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
        exact = model.double()(pixels.double()).last_hidden_state
        model.float()
    assert exact.shape == (2, shape.tokens, 24)
    doubled = load_video_encoder(folder, dtype=torch.float64).network
    with torch.no_grad():
        torch.testing.assert_close(doubled(pixels.double()), exact, rtol=1e-9, atol=1e-9 * exact.abs().max())


def test_positions_equal_the_reference_bit_for_bit() -> None:
    assert torch.equal(sinusoid_table(157, 26), get_sinusoid_encoding_table(157, 26)[0])


def test_clips_go_through_the_processor_and_the_network_as_in_the_reference(
    reference: Reference, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name, processor in (
        ("videomae", transformers.VideoMAEImageProcessor(size={"shortest_edge": 20}, crop_size=[13, 19])),
        ("vivit", transformers.VivitImageProcessor(size={"shortest_edge": 21}, crop_size={"height": 13, "width": 19})),
    ):
        model, folder = reference(name)
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        processor.save_pretrained(copy)
        encoder = load_video_encoder(copy)
        assert isinstance(encoder, Encoder)
        assert encoder.modality == "video"
        clip = VideoData(rng.integers(0, 256, (7, 31, 45, 3), dtype=np.uint8), np.arange(7) / 5, 1.4)
        inputs = processor(list(clip.frames), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected = model(inputs).last_hidden_state
        output = encoder.encode([clip])
        torch.testing.assert_close(output.features, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
        assert output.features.shape[-1] == encoder.feature_size == 24


def test_times_are_those_of_each_tubelets_first_frame(reference: Reference) -> None:
    rng = np.random.default_rng(0)
    times = np.array([0.1, 0.2, 0.4, 0.5, 0.9, 1.0, 1.3])
    clip = VideoData(rng.integers(0, 256, (7, 17, 23, 3), dtype=np.uint8), times, 1.5)
    mae = load_video_encoder(reference("videomae")[1]).encode([clip])
    assert mae.timestamps is not None
    assert mae.timestamps[0].reshape(3, 16).unique(dim=1).flatten().tolist() == pytest.approx([0.1, 0.4, 0.9])
    vivit = load_video_encoder(reference("vivit")[1]).encode([clip])
    assert vivit.timestamps is not None
    assert vivit.timestamps[0].tolist() == pytest.approx([0.1] + [0.1] * 9 + [0.5] * 9)
    assert vivit.lengths.tolist() == [19]


def test_a_batch_of_clips_of_all_sizes_gives_each_what_it_is_alone(reference: Reference) -> None:
    rng = np.random.default_rng(2)
    encoder = load_video_encoder(reference("vivit")[1])
    clips = [
        VideoData(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8), np.arange(count) / 3, count / 3)
        for count, height, width in ((1, 20, 30), (5, 31, 22), (7, 40, 41), (23, 18, 35))
    ]
    together = encoder.encode(clips)
    for number, clip in enumerate(clips):
        alone = encoder.encode([clip])
        torch.testing.assert_close(together.features[number], alone.features[0], rtol=1e-5, atol=1e-5)
        assert together.timestamps is not None
        assert alone.timestamps is not None
        assert torch.equal(together.timestamps[number], alone.timestamps[0])
    assert not together.features.requires_grad


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hidden_size": 23}, "evenly"),
        ({"hidden_size": "24"}, "hidden_size"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"hidden_size": 60_000, "num_attention_heads": 1}, "too few numbers"),
        ({"num_hidden_layers": 1000}, "fewer tensors"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"num_frames": 0}, "frames"),
        ({"num_frames": True}, "frames"),
        ({"image_size": [1 << 15, 1 << 15]}, "tokens"),
        ({"image_size": [2, 19]}, "tokens"),
        ({"image_size": "224"}, "image_size"),
        ({"patch_size": [5, 4]}, "another shape"),
        ({"tubelet_size": 0}, "tubelet"),
        ({"hidden_act": ["gelu"]}, "activation"),
        ({"layer_norm_eps": float("nan")}, "epsilon"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps"),
        ({"num_channels": 4}, "three channels"),
        ({"qv_bias": False}, "no place"),
        ({"use_mean_pooling": False}, "missing"),
    ],
)
def test_configurations_of_strangers_are_refused(
    fields: dict[str, Any], words: str, reference: Reference, tmp_path: Path
) -> None:
    folder = edited(reference("videomae")[1], tmp_path / "edited", **fields)
    with pytest.raises(CheckpointError, match=words):
        load_video_encoder(folder)


@pytest.mark.parametrize("kind", ["timesformer", None, ["vivit"], "x" * 10_000])
def test_an_unknown_family_is_named_with_those_that_are_known(kind: Any, reference: Reference, tmp_path: Path) -> None:
    folder = edited(reference("vivit")[1], tmp_path / "edited", model_type=kind)
    with pytest.raises(UnknownFamilyError, match=r"(?s)model_type.*videomae, vivit") as caught:
        load_video_encoder(folder)
    assert len(str(caught.value)) < 1000


def test_a_tubelet_that_is_no_triple_is_refused(reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tubelet_size"):
        load_video_encoder(edited(reference("vivit")[1], tmp_path / "edited", tubelet_size=[2, 16]))


def test_newer_names_of_the_biases_are_read_as_well(reference: Reference, tmp_path: Path) -> None:
    model, folder = reference("videomae")
    copy = edited(folder, tmp_path / "newer")
    tensors = safetensors.torch.load_file(copy / "model.safetensors")
    named = {
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): tensor for name, tensor in tensors.items()
    }
    assert named.keys() != tensors.keys()
    safetensors.torch.save_file(named, copy / "model.safetensors")
    pixels = torch.randn(1, 7, 3, 13, 19)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
        torch.testing.assert_close(load_video_encoder(copy).network(pixels), expected, rtol=1e-5, atol=1e-4)


def test_clips_of_other_sizes_are_refused_by_the_network(reference: Reference) -> None:
    network = load_video_encoder(reference("videomae")[1]).network
    with pytest.raises(InvalidInputError, match="19, 13"):
        network(torch.zeros(1, 7, 3, 19, 13))


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    from sensorium.encoders.storage import shapes_only
    from sensorium.encoders.video import VideoTransformer
    from sensorium.encoders.video.read_config import read_video_config

    for kind, count in (("videomae", 86_227_200), ("vivit", 88_646_400)):  # ViT-B over tubelets of 2 x 16 x 16
        config = read_video_config({"model_type": kind})
        with shapes_only():
            ours = sum(parameter.numel() for parameter in VideoTransformer(config).parameters())
        theirs = {"videomae": transformers.VideoMAEConfig, "vivit": transformers.VivitConfig}[kind]()
        with torch.device("meta"):
            make = transformers.VideoMAEModel if kind == "videomae" else transformers.VivitModel
            model = make(theirs) if kind == "videomae" else make(theirs, add_pooling_layer=False)
        assert ours == sum(parameter.numel() for parameter in model.parameters())
        assert abs(ours - count) / count < 0.01
