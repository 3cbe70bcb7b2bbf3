"""`AudioEncoder`: the protocol, batches, seams and times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensorium.encoders.audio import AudioEncoder, WhisperEncoder, load_audio_encoder
from sensorium.encoders.encoder import Encoder
from sensorium.encoders.errors import InvalidInputError
from sensorium.encoders.media import AudioData, ImageData

MakeNetwork = Callable[..., WhisperEncoder]
MakeSound = Callable[[int], AudioData]
# One window, a little less and more, several, and odd ends.
LENGTHS = (1, 319, 5_000, 24_320, 24_321, 70_001, 160, 100_003)
FAMILIES = {
    "whisper": {},
    "trimmed": {"trim": True},
    "qwen2_audio": {"pool": 2, "masked": True},
    "voxtral": {"overlap": 0, "keep_padding": True},
    "ultravox": {"overlap": 0, "masked": True, "trim": True},
    "all": {"pool": 2, "masked": True, "trim": True},
}


def test_is_an_encoder(make_network: MakeNetwork) -> None:
    encoder = AudioEncoder(make_network())
    assert isinstance(encoder, Encoder)
    assert (encoder.modality, encoder.feature_size) == ("audio", 30)


@pytest.mark.parametrize("windows_at_once", [None, 3, 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_each_sound_alone(
    make_network: MakeNetwork, make_sound: MakeSound, family: str, windows_at_once: int | None
) -> None:
    network = make_network(**FAMILIES[family])
    sounds = [make_sound(samples) for samples in LENGTHS]
    out = AudioEncoder(network, windows_at_once=windows_at_once).encode(sounds)
    assert out.timestamps is not None
    assert out.timestamps.dtype == torch.float32
    for row, sound in enumerate(sounds):
        alone, length = AudioEncoder(network).encode([sound]), int(out.lengths[row])
        assert alone.timestamps is not None
        assert alone.lengths.tolist() == [length]
        torch.testing.assert_close(out.features[row, :length], alone.features[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(out.timestamps[row, :length], alone.timestamps[0], rtol=0, atol=0)
        assert not out.features[row, length:].any() and not out.timestamps[row, length:].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_and_times(make_network: MakeNetwork, make_sound: MakeSound, family: str) -> None:
    encoder = AudioEncoder(make_network(**FAMILIES[family]))
    pool, step = encoder.config.pool, 0.02 * encoder.config.pool
    for samples in LENGTHS:
        out = encoder.encode([make_sound(samples)])
        expected = max(1, -(-samples // 320) // pool)
        if family == "voxtral":
            expected = -(-samples // 24_320) * 76
        assert out.features.shape == (1, expected, 30)
        assert out.lengths.tolist() == [expected] == [encoder.count(samples)]
        assert out.timestamps is not None
        np.testing.assert_allclose(out.timestamps[0].numpy(), np.arange(expected) * step, rtol=1e-6)


def test_seams_of_local_features_cannot_be_seen(make_network: MakeNetwork, make_sound: MakeSound) -> None:
    """Without attention and positions, windows must give what one window over the whole sound gives."""
    short, sound = make_network(layers=0), make_sound(24_320 * 3 + 1_111)
    whole = WhisperEncoder(type(short.config)(mel_bins=80, width=30, layers=0, heads=5, mlp_size=37)).eval()
    weights = {name: weight for name, weight in short.state_dict().items() if "positions" not in name}
    whole.load_state_dict(weights, strict=False)
    short.embed_positions.weight.data.zero_()
    whole.embed_positions.weight.data.zero_()
    for trim in (False, True):
        ours = AudioEncoder(short, trim=trim).encode([sound]).features
        once = AudioEncoder(whole, trim=trim).encode([sound]).features
        assert ours.shape == once.shape == (1, 232, 30)
        torch.testing.assert_close(ours, once, rtol=0, atol=1e-5)


def test_a_tone_keeps_its_time_across_seams(make_network: MakeNetwork) -> None:
    """Windows of 1.52 s that keep up to 1.32 s: the tone moves over the seam in steps of 20 ms."""
    network = make_network(layers=0)
    encoder = AudioEncoder(network)
    quiet = np.random.default_rng(1).standard_normal(48_000).astype(np.float32) * 1e-3
    tone = np.sin(np.arange(1_600) * 0.3).astype(np.float32) * np.hanning(1_600).astype(np.float32)
    loud = np.zeros_like(quiet)
    loud[40_000:41_600] = tone  # the same loudest point in all, so the same floor
    before = encoder.encode([AudioData(quiet + loud)]).features[0]
    for place in range(18_000, 24_000, 320):
        moved = quiet + loud
        moved[place : place + 1_600] += tone
        out = encoder.encode([AudioData(moved)])
        change = (out.features[0] - before).norm(dim=-1)
        assert out.timestamps is not None
        heard = float((change * out.timestamps[0]).sum() / change.sum())
        assert abs(heard - (place + 800) / 16_000) < 0.02


def test_nothing_is_cut_at_one_window(make_network: MakeNetwork, make_sound: MakeSound) -> None:
    encoder, sound = AudioEncoder(make_network()), make_sound(24_320 * 5)
    changed = sound.samples.copy()
    changed[-800:] = 0
    ours, theirs = encoder.encode([sound]).features, encoder.encode([AudioData(changed)]).features
    assert (ours[0, -1] - theirs[0, -1]).abs().max() > 0.01


def test_arrays_of_any_layout(make_network: MakeNetwork, make_sound: MakeSound) -> None:
    encoder, samples = AudioEncoder(make_network()), make_sound(5_000).samples
    expected = encoder.encode([AudioData(samples[::2].copy()), AudioData(samples[::-1].copy())]).features
    frozen = samples[::-1].copy()
    frozen.flags.writeable = False
    for views in ([samples[::2], samples[::-1]], [samples[::2], frozen]):
        found = encoder.encode([AudioData(view) for view in views]).features
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not frozen.flags.writeable


@pytest.mark.parametrize("level", [0.0, 1e-38, 1e6, 3e38])
def test_features_are_numbers_however_loud(make_network: MakeNetwork, level: float) -> None:
    square = np.full(4_000, level, np.float32) * np.sign(np.sin(np.arange(4_000) / 7)).astype(np.float32)
    assert AudioEncoder(make_network()).encode([AudioData(square)]).features.isfinite().all()


def test_refuses_what_is_no_sound(make_network: MakeNetwork, make_sound: MakeSound) -> None:
    encoder = AudioEncoder(make_network())
    with pytest.raises(InvalidInputError, match="empty batch"):
        encoder.encode([])
    with pytest.raises(InvalidInputError, match="ImageData"):
        encoder.encode([make_sound(10), ImageData(np.zeros((1, 1, 3), np.uint8))])
    with pytest.raises(InvalidInputError, match="windows_at_once"):
        AudioEncoder(encoder.network, windows_at_once=0)


def test_refuses_spectrograms_of_another_shape(make_network: MakeNetwork) -> None:
    network = make_network()
    for shape in ((1, 81, 152), (1, 80, 153), (1, 80, 0), (80, 152)):
        with pytest.raises(InvalidInputError, match="expected"):
            network(torch.zeros(shape))


def test_gradients_flow_in_training_only(make_network: MakeNetwork, make_sound: MakeSound) -> None:
    network, sound = make_network(), make_sound(3_000)
    encoder = AudioEncoder(network)
    assert not encoder.encode([sound]).features.requires_grad
    network.train()
    encoder.encode([sound]).features.square().sum().backward()
    assert network.conv1.weight.grad is not None and network.conv1.weight.grad.abs().sum() > 0
    assert network.embed_positions.weight.grad is None
    with torch.no_grad():
        assert not encoder.encode([sound]).features.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_have_the_networks_dtype(make_network: MakeNetwork, make_sound: MakeSound, dtype: torch.dtype) -> None:
    out = AudioEncoder(make_network().to(dtype)).encode([make_sound(30_000)])
    assert out.features.dtype == dtype and out.features.isfinite().all()


def test_tiny_en_hears_a_tone_at_its_time_beside_a_seam(tiny_en: Path) -> None:
    """The trained encoder, windows of 30 s, the seam at 29 s."""
    encoder = load_audio_encoder(tiny_en, trim=True)
    quiet = np.random.default_rng(1).standard_normal(16_000 * 33).astype(np.float32) * 1e-3
    quiet[:1_600] += np.sin(np.arange(1_600) * 0.3).astype(np.float32)
    before = encoder.encode([AudioData(quiet)])
    for seconds in (28.7, 29.1):
        moved = quiet.copy()
        place = int(seconds * 16_000)
        moved[place : place + 4_800] += np.sin(np.arange(4_800) * 0.3).astype(np.float32)
        out = encoder.encode([AudioData(moved)])
        assert out.timestamps is not None and out.lengths.tolist() == [1_650]
        change = (out.features[0] - before.features[0]).norm(dim=-1)
        # Fifteen features are the tone's length. Single ones change as much far away, where Whisper keeps notes.
        stretch = int(change.unfold(0, 15, 1).mean(dim=-1).argmax())
        assert abs(float(out.timestamps[0, stretch]) - seconds) < 0.1


def test_trimming_is_near_but_not_the_same(tiny_en: Path, speech: NDArray[np.float32]) -> None:
    encoder = load_audio_encoder(tiny_en)
    sound = AudioData(speech)
    padded = encoder.encode([sound])
    trimmed = AudioEncoder(encoder.network, trim=True).encode([sound])
    assert trimmed.features.shape == padded.features.shape == (1, 165, 384)
    cosine = torch.nn.functional.cosine_similarity(padded.features[0], trimmed.features[0], dim=-1)
    assert 0.96 < float(cosine.mean()) < 0.99
    assert float(cosine.median()) > 0.98
