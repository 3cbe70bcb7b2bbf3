"""One rank of a group that shares a decoder's texts; run by test_context_parallel.py as a process of its own.

python shared_worker.py STORE RANK RANKS WORKS

Works are ``what@ranks``: one start of all processes serves groups of several sizes. Each returns the largest difference
from the same decoder alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sensorium.encoders.errors import SensoriumError
from sensorium.fusion import parallel, shared_cache
from sensorium.fusion.config import DecoderConfig, MixtureOfExperts, Rope, RopeScaling
from sensorium.fusion.context_parallel import ContextParallel
from sensorium.fusion.decoder import Decoder
from sensorium.sdk.options import GenerationOptions
from sensorium.sdk.torch_engine import TorchEngine
from torch import Tensor

GROUP: dist.ProcessGroup | None = None  # in which this rank works at the moment
PLAIN = DecoderConfig(
    family="sensorium",
    vocabulary_size=37,
    hidden_size=18,
    layers=3,
    heads=6,
    kv_heads=2,
    head_size=10,
    mlp_size=22,
    context_length=1024,
    rope=Rope(dimensions=8),
    tied_head=True,
)
# Past 16 positions the frequencies change, and what was cached before is stale.
LONGROPE = RopeScaling(
    kind="longrope",
    factor=8.0,
    original_length=16,
    short_factors=(1.0, 1.2, 1.5, 2.0),
    long_factors=(1.0, 2.5, 5.0, 11.0),
)
CONFIGS = {
    "full": replace(PLAIN, qk_norm=True, logit_softcap=3.0),
    "windows": replace(PLAIN, layers=4, layer_attention=("sliding", "full", "chunked", "sliding"), window=7),
    "soft cap": replace(PLAIN, attention_softcap=1.5, norm_order="sandwich", kv_heads=6, tied_head=False),
    "learned": replace(PLAIN, positions="learned", rope=None, norm="layer", norm_bias=True),
    "experts": replace(PLAIN, experts=MixtureOfExperts(experts=5, active=2)),
    "longrope": replace(PLAIN, rope=Rope(dimensions=8, scaling=LONGROPE)),
    "axes": replace(PLAIN, rope=Rope(dimensions=8, sections=(1, 2, 1))),
}
TOKENS = torch.randint(0, 37, (2, 53), generator=torch.Generator().manual_seed(3))


def decoders(names: Iterable[str] = CONFIGS) -> Iterator[Decoder]:
    """One of each configuration, in float64, with the same weights on each rank."""
    for config in (CONFIGS[name] for name in names):
        torch.manual_seed(5)
        decoder = Decoder(config).double().eval()
        for parameter in decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        yield decoder


def difference(given: Tensor, expected: Tensor) -> float:
    assert given.shape == expected.shape, (given.shape, expected.shape)
    if not given.numel():
        return 0.0
    return float((given - expected).abs().max() / expected.abs().max().clamp(min=1e-3))


@torch.no_grad()
def forward() -> float:
    """Logits of all positions, of the last, of some; of a text shorter than the group; with other positions."""
    worst = 0.0
    for decoder in decoders():
        for length in (53, 1, 3):
            tokens = TOKENS[:, :length]
            places = torch.stack((torch.arange(length), torch.arange(length).flip(0)))
            if decoder.config.rope and decoder.config.rope.sections:
                places = torch.stack((places, places // 2, places.flip(0) % 5))
            chosen = (tokens % 3 == 1).logical_or(torch.arange(length) == 0)
            whole, moved = decoder(tokens), decoder(tokens, positions=places)
            with parallel(GROUP) as ranks:
                pairs = [
                    (decoder(tokens), ranks.shard(whole)),
                    (decoder(embeddings=decoder.embed(tokens)), ranks.shard(whole)),
                    (ranks.gather(decoder(tokens), length), whole),
                    (decoder(tokens, logits="last"), whole[:, -1:]),
                    (decoder(tokens, logits=chosen), ranks.shard(whole)[ranks.shard(chosen)]),
                    (decoder(tokens, positions=places), ranks.shard(moved)),
                ]
            worst = max(worst, *(difference(*pair) for pair in pairs))
    return worst


def training() -> float:
    """A loss over all positions, and one over the last, with the gradients of all weights."""
    worst = 0.0
    inputs, labels = TOKENS[:, :-1], TOKENS[:, 1:]
    for decoder in decoders():
        losses, gradients = [], []
        for ranks in (None, "shared"):
            decoder.zero_grad()
            if ranks is None:
                loss = F.cross_entropy(decoder(inputs).flatten(0, 1), labels.flatten())
                loss = loss + decoder(inputs, logits="last").square().mean()
                loss.backward()
            else:
                with parallel(GROUP, layout="contiguous" if decoder.config.window else "zigzag") as ranks:
                    loss = _shared_loss(decoder, ranks, inputs, labels)
                    loss.backward()
                    ranks.reduce_gradients(decoder.parameters())
            losses.append(loss.detach())
            gradients.append([parameter.grad for parameter in decoder.parameters()])
        worst = max(worst, difference(losses[1], losses[0]))
        worst = max(worst, *(difference(*pair) for pair in zip(*reversed(gradients), strict=True)))
    return worst


def _shared_loss(decoder: Decoder, ranks: ContextParallel, inputs: Tensor, labels: Tensor) -> Tensor:
    own = F.cross_entropy(decoder(inputs).flatten(0, 1), ranks.shard(labels).flatten(), reduction="sum")
    return ranks.total(own) / labels.numel() + decoder(inputs, logits="last").square().mean()


@torch.no_grad()
def decoding() -> float:
    """A prompt in parts, then token by token over the ends of blocks, a copy, and a way back."""
    worst = 0.0
    for decoder in decoders():
        if decoder.config.rope is not None and decoder.config.rope.scaling is not None:
            continue  # the engine's work
        whole = decoder(TOKENS[:1])
        with parallel(GROUP) as ranks, patch.object(shared_cache, "_BLOCK", 4), patch.object(shared_cache, "_SLOTS", 3):
            cache, at = decoder.new_cache(), 0
            for count in (23, 2, 1, 1, 6, *[1] * 15):
                given = decoder(TOKENS[:1, at : at + count], cache=cache, logits="last")
                at += count
                worst = max(worst, difference(given[:, 0], whole[:, at - 1]))
            twin = cache.copy()
            for _ in range(2):
                rest = ranks.gather(decoder(TOKENS[:1, at:], cache=cache), 53 - at)
                worst = max(worst, difference(rest, whole[:, at:]))
                cache = twin
            if decoder.config.window is None:
                cache.truncate([9])
                rest = ranks.gather(decoder(TOKENS[:1, 9:], cache=cache), 44)
                worst = max(worst, difference(rest, whole[:, 9:]))
            held = torch.tensor([float(cache.nbytes())])
            assert cache.lengths == [53] and held > 0
    return worst


def engine() -> float:
    """Several prompts, several answers to each, drawn at random from one seed; logits of a text."""
    import test_context_parallel as test

    wrong = 0.0
    for decoder in decoders(("windows", "longrope")):
        runner = TorchEngine(decoder)
        options = GenerationOptions(max_new_tokens=13, temperature=0.8, seed=3, best_of=2)
        prompts = [TOKENS[0, :31].tolist(), [8, 9, 3, 1, 2]]
        alone = test.answers(runner, prompts, options), runner.logits(prompts[0])
        with parallel(GROUP):
            shared = test.answers(runner, prompts, options), runner.logits(prompts[0])
        wrong += alone[0] != shared[0]
        wrong += float(abs(alone[1] - shared[1]).max()) > 1e-5
    return wrong


def refusals() -> list[str]:
    """What is said to ranks that were given different texts, and to caches in a wrong place."""
    decoder, other = next(decoders()), Decoder(replace(PLAIN, positions="relative", rope=None)).double()
    rank = dist.get_rank(GROUP)
    local = decoder.new_cache()
    said = []
    with parallel(GROUP):
        shared = decoder.new_cache()
        attempts: list[Callable[[], Any]] = [
            lambda: decoder(TOKENS[:1] if rank else TOKENS[1:]),
            lambda: decoder(TOKENS[:, : 9 + rank]),
            lambda: decoder(TOKENS[:1], cache=local),
            lambda: decoder.new_cache(2),
            lambda: shared.select([0, 0]),
            lambda: other(TOKENS),
        ]
        said += [_said(attempt) for attempt in attempts]
    said.append(_said(lambda: decoder(TOKENS[:1], cache=shared)))
    return said


def _said(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except SensoriumError as error:
        return str(error)
    return "nothing"


WORKS: dict[str, Callable[[], Any]] = {work.__name__: work for work in (forward, training, decoding, engine, refusals)}


def main() -> None:
    """Prints one JSON object."""
    global GROUP
    store, rank, ranks, works = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
    torch.set_num_threads(1)
    timeout = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timeout)
    groups = {size: dist.new_group(range(size)) for size in range(2, ranks + 1)}
    found = {}
    for work in works:
        name, size = work.split("@")
        if rank < int(size):
            GROUP = groups[int(size)]
            found[work] = WORKS[name]()
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
