"""The log-mel spectrogram against transformers' WhisperFeatureExtractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensorium.encoders.audio import LogMel
from sensorium.encoders.audio.preprocess import mel_filters
from sensorium.encoders.errors import InvalidInputError
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import WhisperFeatureExtractor

LENGTHS = (1, 159, 160, 400, 16_000 * 7 + 13, 16_000 * 30, 16_000 * 31 + 7)


def sound(kind: str, samples: int) -> NDArray[np.float32]:
    time = np.arange(samples) / 16_000
    if kind == "noise":
        made = np.random.default_rng(samples).standard_normal(samples) * 0.1
    else:  # rising and fading: eighty decibels in one sound
        made = np.sin(2 * np.pi * (100 + 200 * time) * time) * np.exp(-time)
    return made.astype(np.float32)


def theirs(extractor: WhisperFeatureExtractor, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    long = {"padding": "longest", "pad_to_multiple_of": 160, "truncation": False} if len(samples) > 480_000 else {}
    return extractor(samples, sampling_rate=16_000, **long)["input_features"][0]


@pytest.mark.parametrize("bins", [80, 128])
def test_filters_are_slaneys(bins: int) -> None:
    expected = WhisperFeatureExtractor(feature_size=bins).mel_filters
    np.testing.assert_allclose(mel_filters(bins).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", LENGTHS)
def test_equals_the_feature_extractor(bins: int, samples: int) -> None:
    extractor, transform = WhisperFeatureExtractor(feature_size=bins), LogMel(bins)
    for kind in ("noise", "chirp"):
        made = sound(kind, samples)
        expected = theirs(extractor, made)
        ours = transform.of_sound(torch.from_numpy(made), expected.shape[1])
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-4)


def test_digital_silence_is_flat() -> None:
    silent = np.zeros(1000, np.float32)
    expected = theirs(WhisperFeatureExtractor(), silent)
    np.testing.assert_allclose(LogMel().of_sound(torch.zeros(1000), 3000).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("fft", [True, False])
def test_in_double_precision_nothing_is_left(fft: bool) -> None:
    made = sound("chirp", 16_000)
    expected = WhisperFeatureExtractor()._np_extract_fbank_features(made[None].astype(np.float64), "cpu")[0]
    ours = LogMel(fft=fft, dtype=torch.float64)(torch.from_numpy(made)[None].double())[0]
    # Theirs rounds to float32 at the end.
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=3e-7)


def test_fixed_bases_equal_the_fft_for_batches_of_any_length() -> None:
    for samples in (201, 399, 400, 4_813):
        batch = torch.from_numpy(np.stack([sound("noise", samples), sound("chirp", samples)]))
        fast, fixed = LogMel()(batch), LogMel(fft=False)(batch)
        assert fast.shape == (2, 80, samples // 160)
        torch.testing.assert_close(fixed, fast, rtol=0, atol=1e-4)
        for row, alone in zip(fast, batch, strict=True):
            torch.testing.assert_close(row, LogMel()(alone[None])[0])


def test_fixed_bases_use_only_what_every_runtime_has() -> None:
    seen: set[str] = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.add(str(func))
            return func(*args, **(kwargs or {}))

    with Record():
        LogMel(fft=False)(torch.randn(2, 1600))
    assert any("mm" in name for name in seen)
    assert not [name for name in seen if any(word in name for word in ("fft", "unfold", "complex"))]


def test_long_sounds_are_pieced_together_seamlessly() -> None:
    made = torch.from_numpy(sound("noise", 16_000 * 61 + 5))
    whole = LogMel().of_sound(made, 6_200)
    padded = torch.nn.functional.pad(made, (0, 6_200 * 160 - len(made)))
    torch.testing.assert_close(whole, LogMel()(padded[None])[0], rtol=0, atol=1e-5)


def test_a_sound_is_never_cut() -> None:
    with pytest.raises(InvalidInputError, match="at least 3"):
        LogMel().of_sound(torch.zeros(321), 2)
    with pytest.raises(InvalidInputError, match="at least 2"):
        LogMel().of_sound(torch.zeros(1), 1)
