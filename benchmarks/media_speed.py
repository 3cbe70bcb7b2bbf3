"""Pictures a second, the real-time factor of speech, and the time from nothing to an answer about a picture.

    python -m benchmarks.media_speed [--rounds 5]

Encoders run the same random weights in the sizes of CLIP's ViT-B/32 and Whisper tiny, beside `transformers`' processor
and model, from pixels and samples to features, in turns on the same threads. The cold start is `nano` on a photo.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .measure import alternately, in_own_process, peak_memory, print_table, ratio

_PICTURES, _SECONDS = 16, 30
_RATE = 16_000


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        print(json.dumps(_cold()))
        return
    rows = []
    for what, unit, amount, runs in (
        (f"{_PICTURES} pictures of 640 x 427, ViT-B/32", "pictures/s", _PICTURES, _picture_runs()),
        (f"{_SECONDS} s of sound, Whisper tiny", "times real time", _SECONDS, _sound_runs()),
    ):
        best = alternately(runs, rounds=arguments.rounds)
        speeds = {name: amount / taken for name, taken in best.items()}
        told = [f"{speeds[name]:.1f} {unit}" for name in ("ours", "theirs")]
        rows.append((what, *told, ratio(speeds["ours"], speeds["theirs"])))
    print_table(("encoder, float32", "Sensorium", "transformers", "ratio"), rows)
    print()
    runs = [in_own_process("benchmarks.media_speed", "--cold") for _ in range(arguments.rounds)]
    best_run = min(runs, key=lambda run: run["seconds"])
    rows = [
        ("process start to the answer's first token", f"{best_run['seconds']:.2f} s"),
        ("of it, the question", f"{best_run['question']:.2f} s"),
        ("peak memory", f"{best_run['peak'] / 1e6:.0f} MB"),
    ]
    print_table(("nano, a photo of 451 x 300", "best"), rows)


def _picture_runs() -> dict[str, Callable[[], object]]:
    import torch
    import transformers
    from sensorium import sdk
    from sensorium.encoders.image import load_image_encoder

    draw = np.random.default_rng(3)
    pictures = [draw.integers(0, 256, (427, 640, 3), dtype=np.uint8) for _ in range(_PICTURES)]
    with tempfile.TemporaryDirectory() as folder:
        transformers.CLIPVisionModel(transformers.CLIPVisionConfig()).save_pretrained(folder)
        processor = transformers.CLIPImageProcessor()
        processor.save_pretrained(folder)
        model: Any = transformers.CLIPVisionModel.from_pretrained(folder).eval()
        encoder = load_image_encoder(Path(folder))

    def theirs() -> object:
        with torch.inference_mode():
            return model(**processor(pictures, return_tensors="pt")).last_hidden_state

    data = [sdk.Image(picture).data for picture in pictures]
    return {"ours": lambda: encoder.encode(data), "theirs": theirs}


def _sound_runs() -> dict[str, Callable[[], object]]:
    import torch
    import transformers
    from sensorium import sdk
    from sensorium.encoders.audio import load_audio_encoder

    samples = np.random.default_rng(4).normal(0, 0.1, _SECONDS * _RATE).astype(np.float32)
    sizes = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
    with tempfile.TemporaryDirectory() as folder:
        config = transformers.WhisperConfig(**sizes, decoder_layers=1, decoder_attention_heads=6)
        transformers.WhisperModel(config).save_pretrained(folder)
        processor = transformers.WhisperFeatureExtractor()
        processor.save_pretrained(folder)
        model: Any = transformers.WhisperModel.from_pretrained(folder).eval().encoder
        encoder = load_audio_encoder(folder)

    def theirs() -> object:
        with torch.inference_mode():
            features = processor(samples, sampling_rate=_RATE, return_tensors="pt").input_features
            return model(features).last_hidden_state

    data = [sdk.Audio(samples, rate=_RATE).data]
    return {"ours": lambda: encoder.encode(data), "theirs": theirs}


def _cold() -> dict[str, object]:
    """One question about a photo in a fresh process, up to its first token."""
    import skimage
    from sensorium import sdk

    photo = Path(skimage.__file__).parent / "data" / "chelsea.png"
    model = sdk.load("nano")
    begun = time.perf_counter()
    text = model.ask("What is in this picture?", sdk.Image(photo), max_new_tokens=1).text
    return {"text": text, "question": time.perf_counter() - begun, "peak": peak_memory()}


if __name__ == "__main__":
    main()
