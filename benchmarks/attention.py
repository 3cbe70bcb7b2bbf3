"""Our attention beside PyTorch's own operator, in turns in one process.

    python -m benchmarks.attention [--length 8192] [--rounds 3] [--chunk 4096] [--window 1024] [--dtype bfloat16]
    python -m benchmarks.attention --decode [--length 32768] [--rounds 5]

Nine query heads share three key/value heads of size 64, as in SmolLM2-135M. ``--decode`` is one query over a cache.
Processors without bfloat16 products take very long over the plain loop in it; ``--plain 0`` leaves the loop out.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from sensorium.fusion.attention import MaskSpec, attention, chunked_attention, decode_attention
from torch import Tensor

from .measure import alternately, print_table, ratio


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decode", action="store_true")
    parser.add_argument("--length", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=4096)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--plain", type=int, default=512, help="positions in a chunk of the plain loop")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    dtypes = [getattr(torch, name) for name in arguments.dtype]
    length = arguments.length or (32_768 if arguments.decode else 8192)
    rows = []
    if arguments.decode:
        for dtype in dtypes:
            rows += _decoding_rows(dtype, length, arguments.rounds)
        print_table(("dtype", f"one query over {length}", "ours, ms", "theirs, ms", "speed ours / theirs"), rows)
        return
    for dtype in dtypes:
        rows += _rows(dtype, length, arguments)
    header = ("dtype", f"{length} positions", "seconds", "speed beside F.sdpa", "GFLOP/s", "of matrix products")
    print_table(header, rows)


@torch.inference_mode()
def _rows(dtype: torch.dtype, length: int, arguments: argparse.Namespace) -> list[tuple[object, ...]]:
    chunk, window, plain = arguments.chunk, arguments.window, arguments.plain
    query, key, value = (torch.randn(1, heads, length, 64).to(dtype) for heads in (9, 3, 3))
    square = torch.randn(1024, 1024).to(dtype)
    products = 8
    works = {
        "F.sdpa causal": lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True),
        f"causal in chunks of {chunk}": lambda: chunked_attention(query, key, value, MaskSpec(), chunk=chunk),
        f"window {window}, 4 sinks": lambda: attention(query, key, value, MaskSpec(window=window, sinks=4)),
        "matrix products": lambda: [square @ square for _ in range(products)],
    }
    if plain:
        works[f"a plain loop over chunks of {plain}"] = lambda: _plain_loop(query, key, value, plain)
    best = alternately(works, rounds=arguments.rounds)
    theirs = best["F.sdpa causal"]
    ceiling = products * 2 * 1024**3 / best.pop("matrix products")
    pairs = dict.fromkeys(best, length * (length + 1) // 2)
    pairs[f"window {window}, 4 sinks"] = sum(
        min(at + 1, window) + min(max(at + 1 - window, 0), 4) for at in range(length)
    )
    name = str(dtype).removeprefix("torch.")
    rows = []
    for what, took in best.items():
        speed = pairs[what] * 9 * 64 * 4 / took
        rows.append((name, what, f"{took:.3f}", ratio(theirs, took), f"{speed / 1e9:.0f}", f"{speed / ceiling:.0%}"))
    return rows


def _plain_loop(query: Tensor, key: Tensor, value: Tensor, chunk: int) -> Tensor:
    """What one writes by hand to bound memory: a chunk of queries over a chunk of keys, with a running softmax."""
    out = []
    grouped = query.unflatten(1, (key.shape[1], -1))  # [B, Hkv, G, T, d]
    for first in range(0, query.shape[2], chunk):
        part = grouped[:, :, :, first : first + chunk]
        total, most = 0.0, torch.full((*part.shape[:4], 1), -torch.inf)
        sums = torch.zeros_like(most)
        for start in range(0, first + part.shape[3], chunk):
            keys, values = (half[:, :, None, start : start + chunk] for half in (key, value))
            scores = (part @ keys.mT).float() * 64**-0.5
            if start == first:
                scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
            larger = torch.maximum(most, scores.amax(-1, keepdim=True))
            weights, kept = (scores - larger).exp(), (most - larger).exp()
            total = total * kept + (weights.to(value.dtype) @ values).float()
            sums, most = sums * kept + weights.sum(-1, keepdim=True), larger
        out.append((total / sums).to(query.dtype))
    return torch.cat(out, 3).flatten(1, 2)


@torch.inference_mode()
def _decoding_rows(dtype: torch.dtype, length: int, rounds: int) -> list[tuple[object, ...]]:
    """Beside the operator as one calls it, and given the queries that share a key as rows of one."""
    query, key, value = (
        torch.randn(1, heads, count, 64).to(dtype) for heads, count in ((9, 1), (3, length), (3, length))
    )
    folded = query.reshape(1, 3, 3, 64)
    works = {
        "ours": lambda: decode_attention(query, key, value),
        "F.sdpa, enable_gqa": lambda: F.scaled_dot_product_attention(query, key, value, enable_gqa=True),
        "F.sdpa, queries folded": lambda: F.scaled_dot_product_attention(folded, key, value),
    }
    best = alternately(
        {name: lambda work=work: [work() for _ in range(10)] for name, work in works.items()}, rounds=rounds
    )
    ours = best.pop("ours") / 10
    name = str(dtype).removeprefix("torch.")
    return [
        (name, what, f"{ours * 1e3:.2f}", f"{took * 100:.2f}", ratio(took / 10, ours)) for what, took in best.items()
    ]


if __name__ == "__main__":
    main()
