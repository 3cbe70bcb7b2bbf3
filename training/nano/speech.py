"""Synthetic speech of given sentences in many voices, with noise and rooms.

    python -m sensorium.training.nano.speech SENTENCES.txt OUT --count 12000

Voices: flite (Debian ``flite``: awb, rms, slt, kal16) and eSpeak NG (``espeak-ng``). Every utterance draws its voice,
speed, pitch, room and noise from a seed of its own, so any of them can be made again alone.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...encoders.media import SAMPLE_RATE

__all__ = ["main", "spoken"]

_FLITE = ("awb", "rms", "slt", "kal16")
_ESPEAK = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-us+f3", "en-us+m3", "en-gb+f4", "en-us+f5", "en-gb+m7")


def spoken(sentence: str, seed: int) -> NDArray[np.float32]:
    """One utterance, float32 [samples] at `SAMPLE_RATE`, peak about 0.5."""
    draw = random.Random(seed)
    samples = _flite(sentence, draw) if draw.random() < 0.75 else _espeak(sentence, draw)
    noise = np.random.default_rng(seed)
    if draw.random() < 0.3:
        samples = _in_a_room(samples, draw.uniform(0.05, 0.35), noise)
    pause = [noise.normal(0, 1e-4, int(SAMPLE_RATE * draw.uniform(0.05, 0.5))) for _ in range(2)]
    samples = np.concatenate((pause[0], samples / (np.abs(samples).max() + 1e-6) * 0.5, pause[1]))
    if draw.random() < 0.5:
        samples = samples + noise.normal(0, 0.5 * 10 ** draw.uniform(-2.5, -1.3), len(samples))
    return (samples * draw.uniform(0.3, 1.5)).astype(np.float32)


def _flite(sentence: str, draw: random.Random) -> NDArray[np.float64]:
    stretch = f"duration_stretch={draw.uniform(0.8, 1.25):.2f}"
    voice = draw.choice(_FLITE)
    shift = [] if voice == "kal16" else ["--setf", f"f0_shift={draw.uniform(0.85, 1.2):.2f}"]
    return _run(["flite", "-voice", voice, "--setf", stretch, *shift, "-t", sentence, "-o"])


def _espeak(sentence: str, draw: random.Random) -> NDArray[np.float64]:
    voice, speed, pitch = draw.choice(_ESPEAK), str(draw.randint(130, 200)), str(draw.randint(30, 70))
    return _run(["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, sentence, "-w"])


def _run(command: list[str]) -> NDArray[np.float64]:
    import soundfile
    import soxr

    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, file.name], check=True, capture_output=True)
        samples, rate = soundfile.read(file.name, dtype="float64")
    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), dtype=np.float64)


def _in_a_room(samples: NDArray[np.float64], seconds: float, noise: np.random.Generator) -> NDArray[np.float64]:
    """Convolved with a decaying noise, the simplest room there is."""
    length = int(SAMPLE_RATE * seconds)
    tail = noise.normal(0, 1, length) * np.exp(-6 * np.arange(length) / length)
    tail[0] = 8.0
    size = 1 << (len(samples) + length).bit_length()
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples) + length]


def main() -> None:
    """Writes ``speech.npy`` (int16, all utterances after one another) and ``lengths.npy``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=12_000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sentences = arguments.sentences.read_text(encoding="utf-8").splitlines()[: arguments.count]
    lengths = []
    with ThreadPoolExecutor(2) as pool, (arguments.out / "speech.raw").open("wb") as out:
        for samples in pool.map(spoken, sentences, range(len(sentences))):
            out.write((samples.clip(-1, 1) * 32767).astype(np.int16).tobytes())
            lengths.append(len(samples))
    np.save(arguments.out / "lengths.npy", np.array(lengths))


if __name__ == "__main__":
    main()
