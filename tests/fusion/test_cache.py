"""Key/value caches: what they hold, how they grow, and that nothing done to them changes a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sensorium import sdk
from sensorium.fusion.cache import KeyValueCache, LayerCache
from sensorium.fusion.config import DecoderConfig
from sensorium.fusion.decoder import Decoder
from torch import Tensor

Build = Callable[[DecoderConfig], Decoder]
EXACT = 1e-12


def difference(given: Tensor, expected: Tensor) -> float:
    assert given.shape == expected.shape
    return float((given - expected).abs().max() / expected.abs().max())


def numbered(first: int, count: int, rows: int = 1) -> Tensor:
    """Keys [rows, 2, count, 3] that hold their own positions."""
    return torch.arange(first, first + count).double()[None, None, :, None].expand(rows, 2, count, 3)


def held(buffer: Tensor) -> list[int]:
    """The positions in the slots of the first row of a buffer of `numbered` keys."""
    return buffer[0, 0, :, 0].long().tolist()


@pytest.fixture(scope="module")
def decoder(small_config: DecoderConfig, random_decoder: Build) -> Decoder:
    return random_decoder(small_config)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 37, (3, 41), generator=torch.Generator().manual_seed(3))


def filled(decoder: Decoder, tokens: Tensor) -> KeyValueCache:
    """The cache of one row of tokens [T]."""
    cache = decoder.new_cache()
    decoder(tokens[None], cache=cache)
    return cache


# What a layer holds


def test_a_full_layer_grows_in_blocks_and_keeps_everything() -> None:
    layer = LayerCache("full", None)
    sizes, length = [], 0
    for count in (1, 200, 55, 1, 700):
        keys, values, start = layer.extend(numbered(length, count), numbered(length, count) * 2, length)
        length += count
        sizes.append(layer.slots)
        assert start == 0
        assert held(keys) == list(range(length))
        assert torch.equal(values, keys * 2)
    assert sizes == [256, 256, 256, 512, 1024]
    assert layer.nbytes() == 2 * 2 * 1024 * 3 * 8


def test_growth_is_geometric() -> None:
    """Else n tokens would be copied n / 256 times each."""
    layer, changes = LayerCache("full", None), 0
    for length in range(6_000):
        before = layer.slots
        layer.append(numbered(length, 1), numbered(length, 1), [length])
        changes += layer.slots != before
    assert changes <= 13
    assert layer.slots <= 6_000 * 5 // 4 + 256


@pytest.mark.parametrize("kind", ["sliding", "chunked"])
@pytest.mark.parametrize("chunks", [[1] * 30, [3, 1, 1, 9, 1, 7, 2, 6], [7, 7, 14, 2], [30]], ids=str)
def test_a_windowed_layer_shows_what_its_mask_lets_be_seen(kind: str, chunks: list[int]) -> None:
    layer, length = LayerCache(kind, 7), 0  # type: ignore[arg-type]
    for count in chunks:
        keys, values, start = layer.extend(numbered(length, count), numbered(length, count) * 2, length)
        first = length - length % 7 if kind == "chunked" else max(0, length - 6)
        length += count
        assert start == first
        assert held(keys) == list(range(first, length))
        assert torch.equal(values, keys * 2)
        assert layer.slots <= 7


def test_single_positions_ring_through_the_window() -> None:
    layer = LayerCache("sliding", 5)
    pictures = []
    for length in range(8):
        keys, _ = layer.append(numbered(length, 1), numbered(length, 1), [length])
        pictures.append(held(keys))
    assert pictures == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [5, 1, 2, 3, 4],
        [5, 6, 2, 3, 4],
        [5, 6, 7, 3, 4],
    ]


def test_chunks_begin_anew() -> None:
    layer = LayerCache("chunked", 3)
    shown = [held(layer.append(numbered(n, 1), numbered(n, 1), [n])[0]) for n in range(7)]
    assert shown == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5], [6]]


def test_rows_of_different_length_write_their_own_slots() -> None:
    layer = LayerCache("full", None)
    layer.extend(numbered(0, 4), numbered(0, 4), 0)
    layer.select(torch.tensor([0, 0]))
    keys, values = layer.append(torch.full((2, 2, 1, 3), 9.0).double(), numbered(0, 1, 2), [2, 4])
    assert held(keys) == [0, 1, 9, 3, 0]
    assert held(keys[1:]) == [0, 1, 2, 3, 9]
    assert values.shape == keys.shape


def test_memory_is_taken_with_use_and_never_beyond_the_window(decoder: Decoder, tokens: Tensor) -> None:
    cache = decoder.new_cache()
    assert cache.nbytes() == 0
    decoder(tokens[:1], cache=cache)
    assert [layer.slots for layer in cache.layers] == [256, 7, 7, 7, 256]
    assert cache.nbytes() == (2 * 256 + 3 * 7) * 2 * (2 * 10) * 8
    assert cache.lengths == [41]


# What is done to a cache changes no result


def test_join_and_select_decode_as_if_alone(decoder: Decoder, tokens: Tensor) -> None:
    lengths = (3, 17, 8)
    caches = [filled(decoder, row[:length]) for row, length in zip(tokens, lengths, strict=True)]
    joined = KeyValueCache.join(caches)
    assert joined.lengths == [3, 17, 8]
    assert all(cache.nbytes() == 0 for cache in caches)  # they were emptied, not copied
    rows = [0, 1, 2]
    for step in range(20):
        if step == 9:
            joined.select([2, 1])
            rows = [2, 1]
        if step == 14:
            joined.select([1, 0, 1])
            rows = [1, 2, 1]
        new = torch.stack([tokens[row, lengths[row] + step] for row in rows])[:, None]
        out = decoder(new, cache=joined)
        for place, row in enumerate(rows):
            whole = decoder(tokens[row : row + 1, : lengths[row] + step + 1], logits="last")[0]
            assert difference(out[place], whole) <= EXACT


@pytest.mark.parametrize("positions", ["learned", "relative", "bucketed"])
def test_ragged_rows_with_other_positions(
    positions: str, small_config: DecoderConfig, random_decoder: Build, tokens: Tensor
) -> None:
    decoder = random_decoder(replace(small_config, positions=positions, rope=None))  # type: ignore[arg-type]
    cache = decoder.new_cache()
    parts = [decoder(part, cache=cache) for part in tokens[:1].split([9, 4, *[1] * 28], dim=1)]
    assert difference(torch.cat(parts, 1), decoder(tokens[:1])) <= EXACT
    lengths = (3, 17, 8)
    caches = [filled(decoder, row[:length]) for row, length in zip(tokens, lengths, strict=True)]
    joined = KeyValueCache.join(caches)
    for step in range(12):
        new = torch.stack([row[length + step] for row, length in zip(tokens, lengths, strict=True)])[:, None]
        out = decoder(new, cache=joined)
        for place, length in enumerate(lengths):
            whole = decoder(tokens[place : place + 1, : length + step + 1], logits="last")[0]
            assert difference(out[place], whole) <= EXACT


def test_a_joined_row_does_not_see_what_an_earlier_one_left(decoder: Decoder, tokens: Tensor) -> None:
    """Slots behind a row's end may hold anything finite: here the tokens that were taken back."""
    cache = filled(decoder, tokens[0, :7])
    cache.truncate([2])
    joined = KeyValueCache.join([cache, filled(decoder, tokens[1, :11])])
    out = decoder(torch.tensor([[5], [6]]), cache=joined)
    whole = decoder(torch.cat((tokens[0, :2], torch.tensor([5])))[None], logits="last")[0]
    assert difference(out[0], whole) <= EXACT


def test_truncation_goes_back_exactly(decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :7])
    assert cache.can_truncate([3])
    cache.truncate([3])
    assert cache.lengths == [3]
    again = decoder(tokens[1:2, :30], cache=cache)
    whole = decoder(torch.cat((tokens[0, :3], tokens[1, :30]))[None])[:, 3:]
    assert difference(again, whole) <= EXACT


def test_truncation_to_nothing_starts_anew(decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :5])
    cache.truncate([0])
    assert difference(decoder(tokens[1:2], cache=cache), decoder(tokens[1:2])) <= EXACT


def test_a_window_that_was_overwritten_cannot_be_truncated(decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :8])
    assert not cache.can_truncate([7])
    assert cache.can_truncate([8])
    with pytest.raises(sdk.InvalidInputError, match="prefill"):
        cache.truncate([7])
    assert cache.lengths == [8]


@pytest.mark.parametrize("lengths", [[9], [-1], [3, 3], []])
def test_truncation_only_shrinks(lengths: list[int], decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :5])
    with pytest.raises(sdk.InvalidInputError):
        cache.truncate(lengths)
    assert cache.lengths == [5]


def test_a_full_cache_truncates_however_long(
    small_config: DecoderConfig, random_decoder: Build, tokens: Tensor
) -> None:
    decoder = random_decoder(replace(small_config, layer_attention=(), window=None))
    cache = filled(decoder, tokens[0])
    cache.truncate([11])
    whole = decoder(torch.cat((tokens[0, :11], tokens[1, :4]))[None])[:, 11:]
    assert difference(decoder(tokens[1:2, :4], cache=cache), whole) <= EXACT


def test_a_copy_is_another_cache(decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :9])
    twin = cache.copy()
    expected = decoder(tokens[:1, 9:12], cache=cache)
    decoder(tokens[1:2, :20], cache=cache)
    assert twin.lengths == [9]
    assert torch.equal(decoder(tokens[:1, 9:12], cache=twin), expected)


@pytest.mark.parametrize("lengths", [(0, 9), (9, 0), (0, 0, 4), (0, 0)], ids=str)
def test_caches_that_were_not_used_yet_join(lengths: tuple[int, ...], decoder: Decoder, tokens: Tensor) -> None:
    caches = [filled(decoder, tokens[0, :length]) if length else decoder.new_cache() for length in lengths]
    joined = KeyValueCache.join(caches)
    assert joined.lengths == list(lengths)
    for step in range(9):
        out = decoder(tokens[1, step].expand(len(lengths), 1), cache=joined)
        for place, length in enumerate(lengths):
            whole = torch.cat((tokens[0, :length], tokens[1, : step + 1]))[None]
            assert difference(out[place], decoder(whole, logits="last")[0]) <= EXACT


def test_rows_of_several_caches_join(decoder: Decoder, tokens: Tensor) -> None:
    pair = KeyValueCache.join([filled(decoder, tokens[0, :5]), filled(decoder, tokens[1, :8])])
    joined = KeyValueCache.join([filled(decoder, tokens[2, :2]), pair, decoder.new_cache()])
    assert joined.lengths == [2, 5, 8, 0]
    out = decoder(torch.tensor([[7]] * 4), cache=joined)
    for place, (row, length) in enumerate(((2, 2), (0, 5), (1, 8), (0, 0))):
        whole = torch.cat((tokens[row, :length], torch.tensor([7])))[None]
        assert difference(out[place], decoder(whole, logits="last")[0]) <= EXACT


def test_nothing_cannot_be_joined(decoder: Decoder) -> None:
    with pytest.raises(sdk.InvalidInputError, match="at least one"):
        KeyValueCache.join([])


def test_a_joined_single_cache_is_itself(decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :9])
    assert KeyValueCache.join([cache]) is cache


# What is refused


@pytest.mark.parametrize("rows", [[], [1], [-1], [0, 5]])
def test_rows_that_are_not_there_cannot_be_selected(rows: list[int], decoder: Decoder, tokens: Tensor) -> None:
    cache = filled(decoder, tokens[0, :5])
    with pytest.raises(sdk.InvalidInputError, match="rows"):
        cache.select(rows)
    assert cache.rows == 1


def test_several_rows_bring_one_position_each(decoder: Decoder, tokens: Tensor) -> None:
    cache = decoder.new_cache(rows=3)
    with pytest.raises(sdk.InvalidInputError, match="join"):
        decoder(tokens[:, :2], cache=cache)
    with pytest.raises(sdk.InvalidInputError, match="join"):
        decoder(tokens[:2, :1], cache=cache)
    assert cache.lengths == [0, 0, 0]
    assert difference(decoder(tokens[:, :1], cache=cache), decoder(tokens[:, :1])) <= EXACT


@pytest.mark.parametrize(
    "positions",
    [torch.zeros(1, 40, dtype=torch.long), torch.zeros(41, dtype=torch.long), torch.zeros(1, 41)],
    ids=lambda positions: f"{positions.dtype}{list(positions.shape)}",
)
def test_positions_are_one_whole_number_a_token(positions: Tensor, decoder: Decoder, tokens: Tensor) -> None:
    with pytest.raises(sdk.InvalidInputError, match="whole number"):
        decoder(tokens[:1], positions=positions)


def test_positions_count_from_zero(decoder: Decoder, tokens: Tensor) -> None:
    """A negative one would be taken from the end of the rotary table."""
    with pytest.raises(sdk.InvalidInputError, match="-1"):
        decoder(tokens[:1], positions=torch.arange(-1, 40)[None])


def test_learned_positions_end(small_config: DecoderConfig, random_decoder: Build, tokens: Tensor) -> None:
    decoder = random_decoder(replace(small_config, positions="learned", rope=None, context_length=13))
    cache = filled(decoder, tokens[0, :12])
    decoder(tokens[:1, 12:13], cache=cache)
    with pytest.raises(sdk.ContextLengthError) as caught:
        decoder(tokens[:1, 13:14], cache=cache)
    assert (caught.value.tokens, caught.value.limit) == (14, 13)
    assert cache.lengths == [13]
    with pytest.raises(sdk.ContextLengthError):
        decoder(tokens[:, :14])
