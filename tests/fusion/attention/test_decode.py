"""One new position over a cache, against attention's definition for each row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sensorium.fusion.attention import MaskSpec, attention, decode, decode_attention, reference_attention
from sensorium.fusion.attention.decode import _LONG
from torch import Tensor

EXACT = {torch.float64: 1e-12, torch.float32: 5e-6}
OPTIONS: list[dict[str, Any]] = [{}, {"scale": 0.21}, {"softcap": 1.7}, {"softcap": 2.3, "scale": 0.4}]


def projections(heads: int, kv_heads: int, slots: int, dtype: torch.dtype, gain: float = 1.0) -> tuple[Tensor, ...]:
    """q [3, H, 1, 10], k and v [3, Hkv, S, 10]."""
    generator = torch.Generator().manual_seed(slots)
    query, key, value = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((3, heads, 1, 10), (3, kv_heads, slots, 10), (3, kv_heads, slots, 10))
    )
    return query * gain, key, value


def difference(given: Tensor, expected: Tensor) -> float:
    assert given.shape == expected.shape
    return float((given.double() - expected.double()).abs().max() / expected.abs().max())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (6, 2), (9, 3), (5, 1)])
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("slots", [1, 2, 37, 257])
def test_rows_of_one_length(heads: int, kv_heads: int, dtype: torch.dtype, slots: int, options: dict[str, Any]) -> None:
    parts = projections(heads, kv_heads, slots, dtype)
    expected = reference_attention(*parts, MaskSpec(), **options)
    given = decode_attention(*parts, **options)
    assert given.dtype == dtype
    assert difference(given, expected) <= EXACT[dtype]
    assert difference(given, attention(*parts, MaskSpec(), **options)) <= EXACT[dtype]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", EXACT)
def test_ragged_rows_see_their_own_slots(dtype: torch.dtype, options: dict[str, Any]) -> None:
    query, key, value = projections(6, 2, 41, dtype)
    lengths = (1, 41, 17)
    visible = torch.arange(41) < torch.tensor(lengths)[:, None]
    given = decode_attention(query, key, value, visible=visible, **options)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone = reference_attention(query[one], key[one, :, :length], value[one, :, :length], MaskSpec(), **options)
        assert difference(given[one], alone) <= EXACT[dtype]


@pytest.mark.parametrize("options", [{}, {"softcap": 1.7}], ids=str)
def test_hidden_slots_may_hold_anything_finite(options: dict[str, Any]) -> None:
    query, key, value = projections(6, 2, 13, torch.float64)
    visible = torch.arange(13) < torch.tensor((4, 13, 7))[:, None]
    changed = [torch.where(visible[:, None, :, None], part, 1e6) for part in (key, value)]
    given = decode_attention(query, *changed, visible=visible, **options)
    assert torch.equal(given, decode_attention(query, key, value, visible=visible, **options))


def test_the_order_of_slots_does_not_count() -> None:
    """A window that was written round and round is not in order."""
    query, key, value = projections(6, 2, 19, torch.float64)
    turned = decode_attention(query, key.roll(8, 2), value.roll(8, 2))
    assert difference(turned, decode_attention(query, key, value)) <= 1e-12


@pytest.mark.parametrize("layout", ["sliced", "transposed"])
def test_buffers_need_not_be_contiguous(layout: str) -> None:
    query, key, value = projections(6, 2, 19, torch.float64)
    if layout == "sliced":
        others = [torch.cat((part, torch.full_like(part, 7.0)), 2)[:, :, :19] for part in (key, value)]
    else:
        others = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in (key, value)]
    assert not any(part.is_contiguous() for part in others)
    assert difference(decode_attention(query, *others), decode_attention(query, key, value)) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gain", [1.0, 4.0])
@pytest.mark.parametrize("slots", [257, _LONG + 3])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("products", [False, True])
def test_short_floats_are_as_good_as_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, gain: float, slots: int, ragged: bool, products: bool
) -> None:
    """Products in the short type, softmax in float32; the fused kernel is several times better."""
    monkeypatch.setattr(decode, "_products_win", lambda device: products)
    query, key, value = projections(6, 2, slots, dtype, gain)
    visible = torch.arange(slots) < torch.tensor((slots, 5, slots - 9))[:, None] if ragged else None
    hidden = torch.zeros(3, slots, dtype=torch.bool) if visible is None else ~visible

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        wide = torch.promote_types(query.dtype, torch.float32)
        keys, values = (part.repeat_interleave(3, 1) for part in (key, value))
        scores = (query @ keys.mT).to(wide) * 10**-0.5
        return scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1).to(query.dtype) @ values

    expected = plain(query.double(), key.double(), value.double())
    given = difference(decode_attention(query, key, value, visible=visible), expected)
    bound = difference(plain(query, key, value), expected)
    assert given <= 1.1 * bound <= 0.05
    if slots <= _LONG or not products:
        assert given <= 2 * torch.finfo(dtype).eps
