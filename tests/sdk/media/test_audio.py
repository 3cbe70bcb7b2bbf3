"""Sounds: the right samples from every rate, number of channels and format, and an error from everything else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk.media import Audio, Limits, sound_track

from .conftest import tone


def samples_of(data: bytes | Path, **limits: Any) -> NDArray[np.float32]:
    return Audio(data, limits=Limits(**limits)).data.samples


def loudest(samples: NDArray[np.float32]) -> float:
    """The frequency, in hertz, of which there is most."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * 16000 / len(samples)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_every_rate_becomes_16_khz(rate: int, sound_bytes: Any) -> None:
    found = samples_of(sound_bytes(tone(440, 1.5, rate), rate, "WAV", "FLOAT"))
    assert found.dtype == np.float32
    assert abs(len(found) - 24000) <= 1
    expected = tone(440, 1.5, 16000)
    inner = slice(800, 23200)  # the filter rings at both ends
    assert np.abs(found[inner] - expected[inner]).max() < 2e-3


def test_what_16_khz_cannot_hold_is_filtered_out(sound_bytes: Any) -> None:
    found = samples_of(sound_bytes(tone(12_000, 1, 48_000), 48_000, "WAV", "FLOAT"))
    assert np.abs(found[500:-500]).max() < 1e-3  # and not heard as 4 kHz


def test_blocks_leave_no_seams(sound_bytes: Any) -> None:
    import soxr

    noise = (np.random.default_rng(3).standard_normal(200_000) * 0.1).astype(np.float32)
    expected = soxr.resample(noise, 44100, 16000, quality="HQ")
    found = samples_of(sound_bytes(noise, 44100, "WAV", "FLOAT"))
    assert abs(len(found) - len(expected)) <= 1
    length = min(len(found), len(expected))
    assert np.abs(found[:length] - expected[:length]).max() < 1e-5


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 32])
def test_channels_are_averaged(channels: int, sound_bytes: Any) -> None:
    rows = np.random.default_rng(channels).uniform(-0.9, 0.9, (501, channels)).astype(np.float32)
    found = samples_of(sound_bytes(rows, 16000, "WAV", "FLOAT"))
    assert np.abs(found - rows.mean(axis=1, dtype=np.float64)).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 8e-3),
        ("WAV", "PCM_16", 4e-5),
        ("WAV", "PCM_24", 2e-7),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ULAW", 2e-2),
        ("WAV", "IMA_ADPCM", 5e-2),
        ("RF64", "PCM_16", 4e-5),
        ("AIFF", "PCM_16", 4e-5),
        ("FLAC", "PCM_16", 4e-5),
        ("FLAC", "PCM_24", 2e-7),
        ("OGG", "VORBIS", 2e-2),
        ("MP3", None, 2e-2),
    ],
)
def test_every_format(kind: str, subtype: str | None, tolerance: float, sound_bytes: Any) -> None:
    wave = tone(440, 1, 16000)
    found = samples_of(sound_bytes(wave, 16000, kind, subtype))
    assert abs(len(found) - len(wave)) <= (1100 if kind in ("MP3",) or subtype == "IMA_ADPCM" else 0)
    inner = slice(1200, 14000)
    assert np.abs(found[inner] - wave[inner]).max() <= tolerance


def test_opus(sound_bytes: Any) -> None:
    found = samples_of(sound_bytes(tone(440, 1, 48000), 48000, "OGG", "OPUS"))
    assert abs(len(found) - 16000) <= 200
    assert loudest(found) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("name", ["sound.m4a", "sound.weba", "sound.aac", "even.mp4", "even.webm"])
def test_the_sound_of_containers(name: str, clips: dict[str, Path]) -> None:
    found = samples_of(clips[name], isolate="none")
    assert len(found) == pytest.approx(64000, abs=1600)
    assert loudest(found) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(found[2000:-2000] ** 2)) == pytest.approx(0.125 / np.sqrt(2), rel=0.05)


def test_containers_without_pyav(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_track, "has_pyav", lambda: False)
    with pytest.raises(UnsupportedInputError, match=r"needs PyAV[\s\S]*video-sound"):
        samples_of(clips["sound.m4a"], isolate="none")


def test_a_clip_without_sound(clips: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match="has no sound"):
        samples_of(clips["uneven.mp4"])


def test_pauses_stay_where_they_are(ffmpeg: Callable[..., None], tmp_path: Path) -> None:
    """A track that begins late, with a hole in it, as a browser records one that was muted."""
    path = tmp_path / "late.mkv"
    sine = "sine=frequency=1000:sample_rate=16000:duration=3,aselect='not(between(t,1,2))'"
    picture = "color=size=16x16:rate=10:duration=5"
    tracks = ("-map", "0:v", "-map", "1:a", "-c:v", "libvpx", "-c:a", "pcm_s16le")
    ffmpeg("-f", "lavfi", "-i", picture, "-itsoffset", "1", "-f", "lavfi", "-i", sine, *tracks, path)
    found = samples_of(path, isolate="none")
    loud = [np.abs(found[int(t * 16000) : int((t + 0.1) * 16000)]).max() > 0.05 for t in (0.5, 1.5, 2.5, 3.5)]
    assert loud == [False, True, False, True]
    assert len(found) == pytest.approx(64000, abs=1000)


def wav(samples: bytes, *, channels: int = 1, rate: int = 16000, bits: int = 16, **claims: int) -> bytes:
    """A WAV file whose header says what it is told to say; claims: kind of the samples, size of the data."""
    kind, size = claims.get("kind", 1), claims.get("size", len(samples))
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", kind, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    data = b"data" + struct.pack("<I", size) + samples
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_the_hand_made_header_is_right() -> None:
    assert len(samples_of(wav(bytes(2000)))) == 1000


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (wav(b""), "no sound"),
        (wav(bytes(2000), size=0), "no sound"),
        (wav(bytes(2000), size=0xFFFFFFFF), "false"),
        (wav(bytes(2000), size=0xFFFFFF00), "false"),
        (wav(bytes(2000), size=2001), "truncated"),
        (wav(bytes(12800), channels=64), "channels"),
        (wav(bytes(2000), channels=0), "damaged"),
        (wav(bytes(2000), rate=0), "damaged|rate"),
        (wav(bytes(2000), rate=100), "rate"),
        (wav(bytes(2000), rate=0x7FFFFFFF), "rate"),
        (wav(struct.pack("<4f", 0, float("nan"), 0, 0), bits=32, kind=3), "no numbers"),
        (wav(struct.pack("<4f", 0, float("inf"), 0, 0), bits=32, kind=3), "no numbers"),
        (wav(bytes(2000), kind=0x1234), "damaged"),
        (wav(bytes(2000))[:40], "without samples|damaged|truncated"),
        (b"RIFF\x24\0\0\0WAVE", "without samples"),
        (b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff", "false"),
    ],
)
def test_damaged_waves(data: bytes, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        samples_of(data)


def test_the_header_is_checked_before_anything_is_read(sound_bytes: Any) -> None:
    data = sound_bytes(np.zeros(16000 * 3, np.int16), 16000, "FLAC")
    with pytest.raises(InvalidInputError, match=r"3\.0 s of sound"):
        samples_of(data, audio_seconds=2.5)
    assert len(samples_of(data, audio_seconds=3)) == 48000


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", None), ("OGG", "VORBIS"), ("WAV", None), ("AIFF", None)])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_a_truncated_sound_is_an_error(kind: str, subtype: str | None, kept: float, sound_bytes: Any) -> None:
    noise = np.random.default_rng(7).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    data = sound_bytes(noise, 16000, kind, subtype)
    with pytest.raises(InvalidInputError):
        samples_of(data[: int(len(data) * kept)])


def test_a_truncated_mp3_is_a_shorter_one_or_an_error(sound_bytes: Any) -> None:
    data = sound_bytes(tone(440, 2, 16000), 16000, "MP3")
    try:
        found = samples_of(data[: len(data) // 2])
    except InvalidInputError:
        return
    assert len(found) < 32000


def test_a_cue_sheet_or_raw_samples_are_no_sound() -> None:
    for data in (b"REM GENRE x\nFILE y.wav WAVE", np.random.default_rng(1).bytes(5000)):
        with pytest.raises(InvalidInputError, match="is not a sound"):
            samples_of(data)


def test_a_name_is_not_believed(tmp_path: Path, sound_bytes: Any) -> None:
    path = tmp_path / "x.raw"  # which libsndfile would not open by its name
    path.write_bytes(sound_bytes(tone(440, 1, 16000), 16000, "FLAC"))
    assert len(samples_of(path)) == 16000
    assert soundfile.info(path.rename(tmp_path / "x.flac")).frames == 16000


def test_a_rate_beside_a_file_is_refused(sound_bytes: Any) -> None:
    with pytest.raises(InvalidInputError, match="its own rate"):
        Audio(sound_bytes(np.zeros(100), 8000), rate=16000)
