"""Caches whose old positions lie in a file: the exact cache's logits, and nothing left behind."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sensorium.encoders.errors import EngineError, InvalidInputError
from sensorium.fusion.cache import KeyValueCache
from sensorium.fusion.cache_options import CacheOptions
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.offloaded_cache import OffloadedCache, OffloadedLayer
from torch import Tensor

Build = Callable[[DecoderConfig], Decoder]
EXACT = 1e-10
PLAIN = DecoderConfig(
    family="sensorium",
    vocabulary_size=37,
    hidden_size=18,
    layers=2,
    heads=6,
    kv_heads=2,
    head_size=10,
    mlp_size=22,
    context_length=8192,
    rope=Rope(dimensions=8),
)
LONG = 4997  # more than an extent of 4,096 positions


def text(length: int, seed: int = 1) -> Tensor:
    return torch.randint(37, (1, length), generator=torch.Generator().manual_seed(seed))


def offloaded(decoder: Decoder, directory: Path) -> OffloadedCache:
    cache = decoder.new_cache(options=CacheOptions(offload=directory))
    assert isinstance(cache, OffloadedCache)
    return cache


def read(decoder: Decoder, cache: KeyValueCache, tokens: Tensor, parts: Sequence[int]) -> Tensor:
    """The logits [T, V] of one row that is read in parts of these lengths."""
    return torch.cat([decoder(part, cache=cache)[0] for part in tokens.split(list(parts), dim=1)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, [1100, 1, 1, 893, 2500, 1, 1, 500]),
        ({"layer_attention": ("sliding", "full"), "window": 33}, [2100, 1, 1, 2395, 1, 1, 499]),
        ({"attention_softcap": 3.0}, [700, 1, 296]),
    ],
    ids=["full", "window", "soft cap"],
)
def test_it_is_exact(
    dtype: torch.dtype, changes: dict[str, Any], parts: list[int], random_decoder: Build, tmp_path: Path
) -> None:
    decoder, tokens = random_decoder(replace(PLAIN, **changes)).to(dtype), text(sum(parts))
    cache = offloaded(decoder, tmp_path)
    expected = read(decoder, decoder.new_cache(), tokens, parts).double()
    found = read(decoder, cache, tokens, parts).double()
    bound = EXACT if dtype == torch.float64 else 0.02
    assert (found - expected).norm() <= bound * expected.norm()
    full = [layer for layer in cache.layers if isinstance(layer, OffloadedLayer)]
    assert [layer.closed for layer in full] == [(sum(parts) // 256 - 1) * 256] * len(full)


def test_going_back_and_copies(random_decoder: Build, tmp_path: Path) -> None:
    decoder, tokens = random_decoder(PLAIN), text(LONG)
    expected = decoder(tokens)[0]
    cache = offloaded(decoder, tmp_path)
    read(decoder, cache, tokens, [LONG])
    twin = cache.copy()
    for length in (4900, 4500, 4096, 300, 0):  # in memory, in the second extent, between both, in the first group, all
        cache.truncate([length])
        found = read(decoder, cache, tokens[:, length:], [LONG - length])
        torch.testing.assert_close(found, expected[length:], rtol=EXACT, atol=EXACT)
    cache.truncate([0])
    read(decoder, cache, text(LONG, 9), [LONG])  # another text over the first one's space
    more = read(decoder, twin, text(1), [1])
    torch.testing.assert_close(
        more, decoder(torch.cat((tokens, text(1)), dim=1), logits="last")[0], rtol=EXACT, atol=EXACT
    )


def test_memory_holds_the_newest_alone(random_decoder: Build, tmp_path: Path) -> None:
    decoder = random_decoder(PLAIN)
    cache, exact = offloaded(decoder, tmp_path), decoder.new_cache()
    for held in (cache, exact):
        read(decoder, held, text(LONG), [LONG])
    assert cache.nbytes() <= exact.nbytes() * 512 / LONG
    assert cache.offloaded() >= exact.nbytes() * 18 * 256 // (5120 + 512)


def open_files(directory: Path) -> int:
    """Files of this process that lie in a directory, those without a name too."""
    links = [os.readlink(link.path) for link in os.scandir("/proc/self/fd") if os.path.islink(link.path)]
    return sum(str(directory) in link for link in links)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's list of open files")
def test_nothing_is_left(random_decoder: Build, tmp_path: Path) -> None:
    """Not after use, not after an error, and while it is in use there is no name either."""
    decoder = random_decoder(PLAIN)

    def fails() -> None:
        cache = offloaded(decoder, tmp_path)
        read(decoder, cache, text(900), [900])
        assert open_files(tmp_path) == 1
        assert list(tmp_path.iterdir()) == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    gc.collect()
    assert open_files(tmp_path) == 0


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow over `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told(random_decoder: Build, tmp_path: Path) -> None:
    decoder = random_decoder(PLAIN)
    cache = offloaded(decoder, tmp_path)
    with largest_file(100_000), pytest.raises(EngineError, match="cannot be written") as caught:
        read(decoder, cache, text(2000), [2000])
    assert "another directory" in str(caught.value)
    read(decoder, offloaded(decoder, tmp_path), text(700), [700])  # the next text works


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, torch\n"
        "from sensorium.fusion.offloaded_cache import _File\n"
        "file = _File(sys.argv[1])\n"
        "file.write(file.take(4000), torch.zeros(1000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_what_it_cannot_be(random_decoder: Build, tmp_path: Path) -> None:
    decoder = random_decoder(PLAIN)
    with pytest.raises(InvalidInputError, match="one row"):
        decoder.new_cache(2, options=CacheOptions(offload=tmp_path))
    with pytest.raises(InvalidInputError, match="directory"):
        CacheOptions(offload=tmp_path / "nothing")
