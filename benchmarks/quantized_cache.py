"""What a cache in fewer bits costs and saves: perplexity, divergence, memory and speed beside the exact one.

    python -m benchmarks.quantized_cache [--tokens 4096] [--rounds 3]

`nano` reads a real text (the project's licence, then the shipped story) 256 tokens at a time, so that all but the first
are predicted from what was cached.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sensorium import sdk
from sensorium.fusion.cache_options import CacheOptions, CachePrecision
from sensorium.fusion.decoder import Decoder
from sensorium.mobile_export.proof import figures
from sensorium.mobile_export.texts import EVALUATION, text

from .measure import alternately, print_table, ratio

_PART, _NEW = 256, 32
_PRECISIONS: tuple[CachePrecision, ...] = ("exact", "int8", "int4")


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = sdk.load("nano", dtype="float32", device="cpu")
    decoder: Decoder = model.engine.decoder  # type: ignore[attr-defined]
    licence = (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8")
    tokens = model.encode(licence + text(EVALUATION))[: arguments.tokens]
    logits, caches = {}, {}
    for precision in _PRECISIONS:
        caches[precision] = decoder.new_cache(options=CacheOptions(precision=precision))
        parts = torch.tensor([tokens]).split(_PART, dim=1)
        with torch.inference_mode():
            logits[precision] = np.concatenate([decoder(part, cache=caches[precision])[0] for part in parts])

    def decode(precision: CachePrecision) -> None:
        cache = caches[precision].copy()
        with torch.inference_mode():
            for token in range(_NEW):
                decoder(torch.tensor([[token + 5]]), cache=cache, logits="last")

    best = alternately({name: lambda name=name: decode(name) for name in _PRECISIONS}, rounds=arguments.rounds)
    rows = []
    for name in _PRECISIONS:
        found = figures(logits["exact"], logits[name], tokens)
        memory = f"{caches[name].nbytes() / 1e6:.1f} MB"
        told = (f"{found['perplexity']:.3f}", f"{found['kl']:.5f}", f"{found['agreement']:.1%}", memory)
        rows.append((name, *told, ratio(best["exact"], best[name])))
    print(f"{len(tokens)} tokens\n")
    print_table(("cache", "perplexity", "divergence, nats", "same next token", "memory", "decoding speed"), rows)


if __name__ == "__main__":
    main()
