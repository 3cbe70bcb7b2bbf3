"""A rolling window past a model's context: perplexity on a long English text, memory, and speed.

    python -m benchmarks.rolling_cache [--tokens 12288] [--window 1020]

`nano`, made for 8,192 positions, reads what Python's own help says about the language (``pydoc_data.topics``, which
every Python brings), 256 tokens at a time. Perplexity is told for the part within the context and the part past it:
with four sinks, with none, and with everything, which the model was not made for.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from sensorium import sdk
from sensorium.fusion.cache import KeyValueCache
from sensorium.fusion.cache_options import CacheOptions, Rolling
from sensorium.fusion.decoder import Decoder

from .measure import alternately, print_table, ratio, seconds

_PART, _NEW = 256, 32  # tokens


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=12_288)
    parser.add_argument("--window", type=int, default=1020)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = sdk.load("nano", dtype="float32", device="cpu")
    decoder: Decoder = model.engine.decoder  # type: ignore[attr-defined]
    tokens = torch.tensor([model.tokenizer.encode("\n".join(topics.values()))[: arguments.tokens]])
    kinds: dict[str, Rolling | None] = {
        f"{sinks} sinks, window {arguments.window + 4 - sinks}": Rolling(sinks, arguments.window + 4 - sinks)
        for sinks in (4, 0)
    }
    rows = []
    with torch.inference_mode():
        for name, rolling in (kinds | {"everything": None}).items():
            cache = decoder.new_cache(options=CacheOptions(rolling=rolling))
            losses: list[float] = []
            took = seconds(lambda cache=cache, losses=losses: losses.extend(_losses(decoder, cache, tokens)))
            rows.append(
                (name, *_perplexities(losses, decoder.config.context_length), _megabytes(cache), f"{took:.0f} s")
            )
            print(rows[-1], flush=True)
        print(f"\n{tokens.shape[1]} tokens\n")
        header = ("cache", "perplexity within the context", "past it", "its last quarter", "memory", "time")
        print_table(header, rows)
        _print_speed(decoder, tokens, kinds, arguments.rounds)


def _losses(decoder: Decoder, cache: KeyValueCache, tokens: torch.Tensor) -> Iterator[float]:
    """The loss, in nats, of each token but the first."""
    targets = torch.cat((tokens[0, 1:], tokens[0, :1]))
    for part, wanted in zip(tokens.split(_PART, dim=1), targets.split(_PART), strict=True):
        yield from F.cross_entropy(decoder(part, cache=cache)[0].float(), wanted, reduction="none").tolist()


def _perplexities(losses: Sequence[float], context: int) -> tuple[str, str, str]:
    losses = losses[:-1]  # what follows the last token is not known
    parts = losses[:context], losses[context:], losses[-len(losses) // 4 :]
    return tuple(f"{math.exp(sum(part) / len(part)):.2f}" if part else "" for part in parts)  # type: ignore[return-value]


def _megabytes(cache: KeyValueCache) -> str:
    return f"{cache.nbytes() / 1e6:.1f} MB"


def _print_speed(decoder: Decoder, tokens: torch.Tensor, kinds: dict[str, Rolling | None], rounds: int) -> None:
    """Decoding with a full window beside an exact cache of as many positions."""
    name, rolling = next(iter(kinds.items()))
    assert rolling is not None, "the first kind has sinks"
    caches = {
        name: decoder.new_cache(options=CacheOptions(rolling=rolling)),
        f"exact, {rolling.size} positions": decoder.new_cache(),
    }
    for cache, length in zip(caches.values(), (rolling.size * 3 // 2, rolling.size), strict=True):
        decoder(tokens[:, :length], cache=cache, logits="last")

    def decode(cache: KeyValueCache) -> None:
        twin = cache.copy()
        for token in range(_NEW):
            decoder(torch.tensor([[token + 5]]), cache=twin, logits="last")

    best = alternately({kind: lambda cache=cache: decode(cache) for kind, cache in caches.items()}, rounds=rounds)
    exact = list(best.values())[-1]
    print()
    rows = [(kind, f"{_NEW / took:.1f}", ratio(exact, took)) for kind, took in best.items()]
    print_table(("cache", "tokens a second", "beside exact"), rows)


if __name__ == "__main__":
    main()
