"""Long texts in a small decoder: memory and time as they grow, old positions in a file, and two processes beside one.

    python -m benchmarks.long_texts growth [--most 131072]
    python -m benchmarks.long_texts offload [--length 32768] [--directory /var/tmp]
    python -m benchmarks.long_texts ring [--length 16384] [--rounds 2]

Texts are read 2,048 positions at a time, in float32, each length in a process of its own. ``held`` is the most memory
of the process beyond what it took after reading one part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from sensorium.fusion import parallel
from sensorium.fusion.cache import KeyValueCache
from sensorium.fusion.cache_options import CacheOptions
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.offloaded_cache import OffloadedCache

from .measure import in_own_process, peak_memory, print_table, ratio, seconds

_PART, _NEW = 2048, 16  # positions
_MODULE = "benchmarks.long_texts"


def main() -> None:
    """Prints one table, or, for what is run in a process of its own, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("growth", "offload", "ring", "read", "rank"))
    parser.add_argument("--most", type=int, default=131_072)
    parser.add_argument("--length", type=int)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--directory", default="/var/tmp")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--store")
    arguments = parser.parse_args()
    if arguments.what == "growth":
        _growth(arguments.most)
    elif arguments.what == "offload":
        _offload(arguments.length or 32_768, arguments.directory)
    elif arguments.what == "ring":
        _ring(arguments.length or 16_384, arguments.rounds)
    elif arguments.what == "read":
        _read_alone(arguments.length, arguments.heads, arguments.directory)
    else:
        _rank(arguments.rank, arguments.store, arguments.length, arguments.rounds)


def _growth(most: int) -> None:
    rows, length = [], 8192
    while length <= most:
        found = in_own_process(_MODULE, "read", "--length", str(length), "--heads", "1", "--directory", "")
        held = found["held"] / length
        rows.append((f"{length:,}", f"{found['held'] / 1e6:.0f} MB", f"{held:.0f}", f"{found['took']:.1f} s"))
        print(rows[-1], flush=True)
        length *= 2
    print("\nTwo layers with one head of 64; keys and values take 1,024 bytes a position.\n")
    print_table(("positions", "held", "bytes a position", "time"), rows)


def _offload(length: int, directory: str) -> None:
    rows, times = [], {}
    for name, where in (("in memory", ""), ("in a file", directory)):
        found = in_own_process(_MODULE, "read", "--length", str(length), "--directory", where)
        times[name] = found
        sizes = [f"{found[size] / 1e6:.0f} MB" for size in ("cache", "file", "held", "peak")]
        rows.append((name, *sizes, f"{found['took']:.1f} s", f"{_NEW / found['decoding']:.1f}"))
        print(rows[-1], flush=True)
    print(f"\n{length:,} positions, two layers with eight heads of 64.\n")
    header = ("keys and values", "cache in memory", "file", "held", "peak of the process", "reading")
    print_table((*header, "tokens a second"), rows)


def _ring(length: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", _MODULE, "rank", "--store", f"{folder}/store", "--length", str(length)]
        command += ["--rounds", str(rounds)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True, env=environment)
            for rank in range(2)
        ]
        outs = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        raise SystemExit("a rank failed")
    found = json.loads(outs[0].splitlines()[-1])
    rows = [(name, f"{took:.2f} s", ratio(found["one process"], took)) for name, took in found.items()]
    print(f"{length:,} positions, two layers with eight heads of 64, one thread a process, {os.cpu_count()} cores\n")
    print_table(("", "reading", "speed"), rows)


def _decoder(heads: int) -> Decoder:
    config = DecoderConfig(
        family="sensorium",
        vocabulary_size=256,
        hidden_size=128,
        layers=2,
        heads=heads,
        kv_heads=heads,
        head_size=64,
        mlp_size=256,
        context_length=1 << 20,
        rope=Rope(dimensions=64),
        tied_head=True,
    )
    torch.manual_seed(1)
    return Decoder(config).eval().requires_grad_(False)


@torch.inference_mode()
def _read(decoder: Decoder, cache: KeyValueCache, length: int, part: int = _PART) -> None:
    draw = torch.Generator().manual_seed(2)
    for first in range(0, length, part):
        tokens = torch.randint(256, (1, min(part, length - first)), generator=draw)
        decoder(tokens, cache=cache, logits="last")


def _read_alone(length: int, heads: int, directory: str) -> None:
    """Prints what one text takes: bytes, and seconds for reading and for the next tokens."""
    torch.set_num_threads(1)
    decoder, options = _decoder(heads), CacheOptions(offload=directory or None)
    _read(decoder, decoder.new_cache(options=options), _PART)
    before, cache = peak_memory(), decoder.new_cache(options=options)
    took = seconds(lambda: _read(decoder, cache, length))
    decoding = seconds(lambda: _read(decoder, cache, _NEW, part=1))
    found = {"took": took, "decoding": decoding, "cache": cache.nbytes(), "peak": peak_memory()}
    file = cache.offloaded() if isinstance(cache, OffloadedCache) else 0
    print(json.dumps(found | {"file": file, "held": found["peak"] - before}))


def _rank(rank: int, store: str, length: int, rounds: int) -> None:
    """Prints the best seconds of reading a text alone, while the other rank waits, and together."""
    torch.set_num_threads(1)
    timeout = timedelta(seconds=900)
    dist.init_process_group("gloo", init_method=f"file://{Path(store)}", rank=rank, world_size=2, timeout=timeout)
    decoder = _decoder(8)
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, ranks in (("one process", 1), ("two processes", 2)):
            dist.barrier()
            with parallel(patience=60.0) if ranks == 2 else nullcontext():
                work = lambda ranks=ranks: _read(decoder, decoder.new_cache(), length, _PART * ranks)  # noqa: E731
                took = seconds(work) if rank < ranks else 0.0
            best[name] = min(took, best.get(name, took))
    dist.barrier()
    dist.destroy_process_group()
    print(json.dumps(best))


if __name__ == "__main__":
    main()
