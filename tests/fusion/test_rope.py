"""Rotary frequencies against `transformers`' own, and the rotation against complex numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sensorium.fusion.config import Rope, RopeScaling
from sensorium.fusion.families.reading import rope, write_rope
from sensorium.fusion.rope import RotaryTable, apply_rope, attention_factor, inverse_frequencies
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HEAD, CONTEXT = 26, 4096
FACTORS = {"short_factor": [1.0 + n / 9 for n in range(13)], "long_factor": [2.0 + n / 3 for n in range(13)]}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 256},
    "yarn with bounds": {
        "rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 256, "beta_fast": 20.0,
        "beta_slow": 2.0, "mscale": 1.0, "mscale_all_dim": 0.7,
    },
    "yarn not truncated": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "truncate": False,
    },
    "yarn with a factor": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512, "attention_factor": 1.3,
    },
    "yarn with a small base": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048, "rope_theta": 20.0,
    },
    "yarn that shrinks": {"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 512},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "longrope": {"rope_type": "longrope", "factor": 16.0, "original_max_position_embeddings": 256, **FACTORS},
    "longrope from the lengths": {"rope_type": "longrope", "original_max_position_embeddings": 512, **FACTORS},
    "longrope with a factor": {
        "rope_type": "longrope", "original_max_position_embeddings": 512, "attention_factor": 1.1, **FACTORS,
    },
}  # fmt: skip


def config(scaling: dict[str, Any]) -> LlamaConfig:
    parameters = {"rope_theta": 50_000.0, **scaling}
    return LlamaConfig(
        hidden_size=78, num_attention_heads=3, head_dim=HEAD, max_position_embeddings=CONTEXT,
        rope_parameters=parameters,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [1, 255, 256, 257, 4096, 4097, 20_000])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_equal_transformers(name: str, length: int) -> None:
    scaling = SCALINGS[name]
    theirs = config(scaling)
    expected, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](theirs, None, seq_len=length)
    ours = rope(theirs.to_dict(), HEAD)
    given = inverse_frequencies(ours, length=length, context_length=CONTEXT)
    assert given.dtype == torch.float32
    assert given.shape == (HEAD // 2,)
    assert torch.allclose(given, expected, rtol=3e-7, atol=0)
    assert attention_factor(ours.scaling) == pytest.approx(factor, rel=1e-12)


def test_the_plain_frequencies_are_powers_of_the_base() -> None:
    given = inverse_frequencies(Rope(theta=50_000.0, dimensions=10))
    assert torch.allclose(given.double(), 50_000.0 ** (-torch.arange(5).double() / 5), rtol=2e-6, atol=0)


def test_fixed_ntk_keeps_the_fastest_and_stretches_the_slowest() -> None:
    plain = inverse_frequencies(Rope(theta=10_000.0, dimensions=26))
    given = inverse_frequencies(Rope(theta=10_000.0, dimensions=26, scaling=RopeScaling(kind="ntk", factor=4.0)))
    assert given[0] == plain[0]
    assert float(plain[-1] / given[-1]) == pytest.approx(4.0, rel=1e-5)
    assert torch.all(given[1:] < plain[1:])


@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_are_written_as_they_were_read(name: str) -> None:
    raw = {"max_position_embeddings": CONTEXT, "rope_parameters": {"rope_theta": 7_000.0, **SCALINGS[name]}}
    read = rope(raw, HEAD)
    assert rope({"max_position_embeddings": CONTEXT, **write_rope(read, HEAD)}, HEAD) == read


@pytest.mark.parametrize("spelling", ["rope_type", "type"])
def test_the_older_spelling_reads_the_same(spelling: str) -> None:
    scaling = {spelling: "linear", "factor": 4.0}
    new = rope({"max_position_embeddings": 64, "rope_parameters": {"rope_theta": 7_000.0, **scaling}}, HEAD)
    old = rope({"max_position_embeddings": 64, "rope_theta": 7_000.0, "rope_scaling": scaling}, HEAD)
    assert (
        new == old == Rope(theta=7e3, dimensions=26, scaling=RopeScaling(kind="linear", factor=4, original_length=64))
    )


def test_without_a_factor_it_is_the_ratio_of_the_lengths() -> None:
    scaling = {"rope_type": "yarn", "original_max_position_embeddings": 256}
    read = rope({"max_position_embeddings": CONTEXT, "rope_scaling": scaling}, HEAD).scaling
    assert read is not None
    assert (read.factor, read.original_length) == (16.0, 256)


def test_part_of_a_head_is_rotated() -> None:
    given = rope({"rope_theta": 7_000.0, "partial_rotary_factor": 0.5, "max_position_embeddings": 64}, 20)
    assert given == Rope(theta=7_000.0, dimensions=10)
    assert rope({"max_position_embeddings": 64, **write_rope(given, 20)}, 20) == given


@pytest.mark.parametrize("dimensions", [14, 8])
def test_rotation_turns_pairs_of_halves_as_complex_numbers(dimensions: int) -> None:
    x = torch.randn(2, 5, 3, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = RotaryTable(Rope(dimensions=dimensions), 64)
    turned = apply_rope(x, *table.slice(7, 12, x))
    half = dimensions // 2
    angles = torch.arange(7, 12).double()[:, None] * inverse_frequencies(table.rope).double()
    pairs = (
        torch.complex(x[..., :half], x[..., half:dimensions]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    )
    expected = torch.cat((pairs.real, pairs.imag, x[..., dimensions:]), -1)
    assert float((turned - expected).abs().max()) <= 1e-6  # angles are float32
    assert torch.equal(turned[..., dimensions:], x[..., dimensions:])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6)


def test_a_table_grows_and_stays_the_same() -> None:
    like, table = torch.zeros(1), RotaryTable(Rope(dimensions=6), 64)
    before = [part.clone() for part in table.slice(0, 500, like)]
    table.slice(1_400, 1_700, like)
    assert all(torch.equal(old, new) for old, new in zip(before, table.slice(0, 500, like), strict=True))
    fresh = RotaryTable(Rope(dimensions=6), 64).slice(1_400, 1_700, like)
    assert all(torch.equal(old, new) for old, new in zip(fresh, table.slice(1_400, 1_700, like), strict=True))


def test_given_positions_equal_consecutive_ones() -> None:
    like, table = torch.zeros(1), RotaryTable(Rope(dimensions=6), 64)
    positions = torch.tensor([[3, 4, 5], [0, 1, 2]])
    for given, first, second in zip(
        table.at(positions, [6, 3], like), table.slice(3, 6, like), table.slice(0, 3, like), strict=True
    ):
        assert torch.equal(given, torch.cat((first, second)))


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rows_of_different_regimes_have_their_own_frequencies(kind: str) -> None:
    factors = {"short_factors": (1.0, 1.1, 1.2), "long_factors": (2.0, 3.0, 4.0)} if kind == "longrope" else {}
    scaling = RopeScaling(kind=kind, factor=4.0, original_length=16, **factors)  # type: ignore[arg-type]
    table, like = RotaryTable(Rope(dimensions=6, scaling=scaling), 16), torch.zeros(1)
    assert table.regime(9) == table.regime(16) != table.regime(17)
    together = table.at(torch.tensor([[8], [30]]), [9, 31], like)
    for part, short, long in zip(together, table.slice(8, 9, like), table.slice(30, 31, like), strict=True):
        assert torch.equal(part, torch.cat((short, long)))
        assert not torch.equal(table.slice(8, 31, like)[0][:, :1], short)


def test_a_dynamic_base_keeps_few_tables() -> None:
    table = RotaryTable(Rope(dimensions=6, scaling=RopeScaling(kind="dynamic", factor=4.0, original_length=16)), 16)
    like = torch.zeros(1)
    for length in range(17, 117):
        table.slice(length - 1, length, like)
    assert len(table._tables) <= 8


def test_the_temperature_is_on_both_queries_and_keys() -> None:
    scaling = RopeScaling(kind="yarn", factor=math.e, original_length=16)
    cos, sin = RotaryTable(Rope(dimensions=6, scaling=scaling), 16).slice(0, 9, torch.zeros(1, dtype=torch.float64))
    assert torch.allclose(cos**2 + sin**2, torch.tensor(1.1**2, dtype=torch.float64), rtol=1e-6)


def test_tables_take_the_dtype_of_the_model_from_float32_angles() -> None:
    table = RotaryTable(Rope(dimensions=6), 64)
    wide = table.slice(0, 40, torch.zeros(1))
    narrow = table.slice(0, 40, torch.zeros(1, dtype=torch.bfloat16))
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(wide, narrow, strict=True))
