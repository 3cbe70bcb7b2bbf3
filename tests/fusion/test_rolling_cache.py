"""Attention sinks with a rolling window, against the paper's definition written plainly, token by token in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from sensorium.encoders.errors import InvalidInputError, UnsupportedInputError
from sensorium.fusion.cache import KeyValueCache
from sensorium.fusion.cache_options import CacheOptions, Rolling
from sensorium.fusion.config import DecoderConfig, Rope, RopeScaling
from sensorium.fusion.decoder import Block, Decoder
from sensorium.fusion.rolling_cache import RollingLayer
from torch import Tensor

Build = Callable[[DecoderConfig], Decoder]
EXACT = 1e-10
PLAIN = DecoderConfig(
    family="sensorium",
    vocabulary_size=37,
    hidden_size=18,
    layers=3,
    heads=6,
    kv_heads=2,
    head_size=10,
    mlp_size=22,
    context_length=64,
    rope=Rope(dimensions=8),
)
SIZES = [Rolling(3, 7), Rolling(0, 5), Rolling(1, 13), Rolling(5, 1)]
CONFIGS = {
    "plain": PLAIN,
    "soft cap": replace(PLAIN, attention_softcap=3.0),
    "layers without positions": replace(PLAIN, layers_without_rope=frozenset({1})),
    "no positions": replace(PLAIN, positions="none", rope=None),
    "a smaller and a larger window": replace(PLAIN, layer_attention=("full", "sliding", "full"), window=4),
    "a window larger than the cache": replace(PLAIN, layer_attention=("sliding", "full", "full"), window=40),
    "normalised heads": replace(PLAIN, qk_norm=True),
}


class PlainStream:
    """What `transformers` once had as SinkCache: keys before rotation in a list, of which the oldest but the sinks
    goes; all are rotated by their place in the list each time."""

    def __init__(self, decoder: Decoder, rolling: Rolling) -> None:
        self.decoder, self.config = decoder, decoder.config
        self.lists: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(self.config.layers)]
        self.sizes = []
        for layer in range(self.config.layers):
            window = self.config.layer_window(layer)
            own = window is not None and window <= rolling.size
            self.sizes.append((0, window) if own else (rolling.sinks, rolling.window))

    def feed(self, token: int) -> Tensor:
        """The logits [V] after one more token."""
        body: Any = self.decoder.model
        x = body.embed_tokens.weight[token]
        for layer, block in enumerate(body.layers):
            x = x + self._attended(layer, block, block.input_layernorm(x))
            x = x + block.mlp(block.post_attention_layernorm(x))
        head: Any = self.decoder.lm_head
        return head.weight @ body.norm(x)

    def _attended(self, layer: int, block: Block, x: Tensor) -> Tensor:
        attn, config = block.self_attn, self.config
        query, key, value = (
            (projection.weight @ x).view(-1, config.head_size) for projection in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        if attn.q_norm is not None and attn.k_norm is not None:
            query, key = attn.q_norm(query), attn.k_norm(key)
        held = self.lists[layer]
        held.append((key, value))
        sinks, window = self.sizes[layer]
        if len(held) > sinks + window:
            del held[sinks]
        rope = config.layer_rope(layer)
        places = torch.arange(len(held))
        keys, values = (torch.stack(part, dim=1) for part in zip(*held, strict=True))  # [Hkv, n, d]
        share = config.heads // config.kv_heads
        keys = self._rotated(keys, places, rope).repeat_interleave(share, dim=0)
        turned = self._rotated(query[:, None], places[-1:], rope)
        scores = (turned @ keys.mT) * config.scale
        if config.attention_softcap is not None:
            scores = config.attention_softcap * torch.tanh(scores / config.attention_softcap)
        return attn.o_proj.weight @ (scores.softmax(-1) @ values.repeat_interleave(share, dim=0)).flatten()

    @staticmethod
    def _rotated(heads: Tensor, places: Tensor, rope: Rope | None) -> Tensor:
        """Pairs are complex numbers that are multiplied with others of length one."""
        if rope is None:
            return heads
        pairs = torch.arange(0, rope.dimensions, 2, dtype=torch.float64) / rope.dimensions
        turns = torch.polar(torch.ones(1, dtype=torch.float64), places[:, None] * rope.theta**-pairs)
        real, imaginary, rest = heads.split([len(pairs), len(pairs), heads.shape[-1] - rope.dimensions], dim=-1)
        turned = torch.complex(real, imaginary) * turns
        return torch.cat((turned.real, turned.imag, rest), dim=-1)


@pytest.fixture(autouse=True)
def _exact_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Angles in float64; those of models are rounded to float32, at other places in another way."""

    def frequencies(rope: Rope, **_: Any) -> Tensor:
        return rope.theta ** (-torch.arange(0, rope.dimensions, 2, dtype=torch.float64) / rope.dimensions)

    monkeypatch.setattr("sensorium.fusion.rope.inverse_frequencies", frequencies)


def text(length: int, seed: int = 1) -> Tensor:
    return torch.randint(37, (1, length), generator=torch.Generator().manual_seed(seed))


def rolling_cache(decoder: Decoder, rolling: Rolling, rows: int = 1) -> KeyValueCache:
    return decoder.new_cache(rows, options=CacheOptions(rolling=rolling))


def read(decoder: Decoder, cache: KeyValueCache, tokens: Tensor, parts: Sequence[int]) -> Tensor:
    """The logits [T, V] of one row that is read in parts of these lengths."""
    return torch.cat([decoder(part, cache=cache)[0] for part in tokens.split(list(parts), dim=1)])


def plain(decoder: Decoder, rolling: Rolling, tokens: Tensor) -> Tensor:
    stream = PlainStream(decoder, rolling)
    return torch.stack([stream.feed(int(token)) for token in tokens[0]])


@pytest.mark.parametrize("rolling", SIZES, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_the_paper_defines(name: str, rolling: Rolling, random_decoder: Build) -> None:
    """Token by token, at once, and in parts that begin and end everywhere; a text four times as long as the cache."""
    decoder, tokens = random_decoder(CONFIGS[name]), text(41)
    expected = plain(decoder, rolling, tokens)
    for parts in ([1] * 41, [41], [2, 1, 5, 11, 1, 1, 3, 17], [4, 4, 1, 1, 30, 1], [13, 28]):
        found = read(decoder, rolling_cache(decoder, rolling), tokens, parts)
        assert (found - expected).abs().max() <= EXACT * expected.abs().max(), parts


def test_the_picture_of_the_module() -> None:
    layer, slots = RollingLayer(Rolling(2, 4)), torch.arange(6)
    held = {layer.slot(position): position for position in (0, 1, 5, 6, 7, 8)}
    assert [held[slot] for slot in range(6)] == [0, 1, 6, 7, 8, 5]
    assert layer._places(slots, 9).tolist() == [0, 1, 3, 4, 5, 2]


def test_short_texts_are_exact(random_decoder: Build) -> None:
    decoder, tokens = random_decoder(PLAIN), text(10)
    found = read(decoder, rolling_cache(decoder, Rolling(3, 7)), tokens, [6, 1, 1, 1, 1])
    torch.testing.assert_close(found, decoder(tokens)[0], rtol=EXACT, atol=EXACT)


def test_what_left_the_window_is_forgotten(random_decoder: Build) -> None:
    """In one layer a position that no query sees leaves no trace."""
    decoder, tokens = random_decoder(replace(PLAIN, layers=1, layer_attention=())), text(40)
    changed = tokens.clone()
    changed[0, 3:30] = (changed[0, 3:30] + 5) % 37
    one, other = (read(decoder, rolling_cache(decoder, Rolling(3, 7)), each, [40])[-1] for each in (tokens, changed))
    torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)
    changed[0, 2] = (changed[0, 2] + 5) % 37  # a sink
    assert (read(decoder, rolling_cache(decoder, Rolling(3, 7)), changed, [40])[-1] - one).abs().max() > 1e-3


def test_rows_of_different_lengths_decode_together(random_decoder: Build) -> None:
    """One row is short of the sinks, one of the window, one has gone round."""
    decoder, rolling = random_decoder(CONFIGS["a smaller and a larger window"]), Rolling(3, 7)
    texts = [text(2 + 21, 4), text(8 + 21, 5), text(31 + 21, 6)]
    caches = []
    for tokens in texts:
        caches.append(rolling_cache(decoder, rolling))
        read(decoder, caches[-1], tokens[:, :-21], [tokens.shape[1] - 21])
    joined = KeyValueCache.join(caches)
    expected = [plain(decoder, rolling, tokens)[-21:] for tokens in texts]
    for step in range(21):
        found = decoder(torch.cat([tokens[:, step - 21, None] for tokens in texts]), cache=joined)[:, 0]
        wanted = torch.stack([row[step] for row in expected])
        assert (found - wanted).abs().max() <= EXACT * wanted.abs().max(), step
    joined.select([2, 0, 2])
    assert joined.lengths == [52, 23, 52]
    found = decoder(torch.tensor([[5], [6], [7]]), cache=joined)[:, 0]
    for row, (before, token) in enumerate(((texts[2], 5), (texts[0], 6), (texts[2], 7))):
        wanted = plain(decoder, rolling, torch.cat((before, torch.tensor([[token]])), dim=1))[-1]
        assert (found[row] - wanted).abs().max() <= EXACT * wanted.abs().max()


def test_memory_stays_the_same_however_long_the_text(random_decoder: Build) -> None:
    decoder = random_decoder(PLAIN)
    cache = rolling_cache(decoder, Rolling(3, 7))
    read(decoder, cache, text(10), [10])
    size = cache.nbytes()
    assert size == 3 * 2 * 2 * 10 * 10 * 8  # layers, keys and values, heads, slots, head size, bytes
    read(decoder, cache, text(1000), [500, 1, 1, 498])
    assert cache.nbytes() == size and cache.lengths == [1010]


def test_going_back(random_decoder: Build) -> None:
    decoder, rolling, tokens = random_decoder(PLAIN), Rolling(3, 7), text(30)
    cache = rolling_cache(decoder, rolling)
    read(decoder, cache, tokens[:, :10], [10])
    twin = cache.copy()
    cache.truncate([4])
    found = read(decoder, cache, tokens[:, 4:], [13, 13])
    torch.testing.assert_close(found, plain(decoder, rolling, tokens)[4:], rtol=EXACT, atol=EXACT)
    assert not cache.can_truncate([29]) and cache.can_truncate([30])
    with pytest.raises(InvalidInputError, match="overwritten"):
        cache.truncate([12])
    found = read(decoder, twin, tokens[:, 10:], [1] * 20)  # the copy has stayed
    torch.testing.assert_close(found, plain(decoder, rolling, tokens)[10:], rtol=EXACT, atol=EXACT)


def test_pictures_are_seen_both_ways(random_decoder: Build) -> None:
    """Positions of a span see each other; with a window as large as the text the result is exact."""
    decoder, tokens = random_decoder(PLAIN), text(24)
    expected = decoder(tokens, bidirectional=((4, 9),))
    found = decoder(tokens, bidirectional=((4, 9),), cache=rolling_cache(decoder, Rolling(2, 30)))
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def test_frequencies_that_change_with_the_length_follow_the_cache(random_decoder: Build) -> None:
    """A text of any length uses no more positions than the cache has."""
    scaling = RopeScaling(
        kind="longrope", factor=4.0, original_length=16, short_factors=(1.0,) * 4, long_factors=(3.0,) * 4
    )
    decoder = random_decoder(replace(PLAIN, rope=Rope(dimensions=8, scaling=scaling)))
    cache = rolling_cache(decoder, Rolling(3, 7))
    found = read(decoder, cache, text(60), [50, 1, 1, 8])
    assert len(decoder.model.layers) == 3 and torch.isfinite(found).all()
    tables: Any = decoder._layer_tables
    assert {key[2] for key in tables[0]._tables} == {0}  # short factors alone


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"positions": "learned", "rope": None}, "learned"),
        ({"positions": "relative", "rope": None}, "relative"),
        ({"layer_attention": ("full", "chunked", "full"), "window": 5}, "chunked"),
        ({"context_length": 9}, "at most 9"),
    ],
)
def test_models_that_it_does_not_fit(changes: dict[str, Any], match: str, random_decoder: Build) -> None:
    with pytest.raises((UnsupportedInputError, InvalidInputError), match=match):
        rolling_cache(random_decoder(replace(PLAIN, **changes)), Rolling(3, 7))


@pytest.mark.parametrize("given", [(-1, 5), (2, 0), (1.5, 3), (True, 3)])
def test_sizes_are_whole_numbers(given: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInputError, match="rolling window"):
        Rolling(*given)


def test_positions_are_its_own(random_decoder: Build) -> None:
    decoder = random_decoder(PLAIN)
    with pytest.raises(UnsupportedInputError, match="counts positions itself"):
        decoder(text(5), positions=torch.arange(5)[None], cache=rolling_cache(decoder, Rolling(3, 7)))
