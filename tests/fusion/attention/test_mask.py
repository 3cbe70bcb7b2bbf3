"""The mask rule against the pictures in its documentation, and its bounds."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from sensorium.encoders.errors import InvalidInputError
from sensorium.fusion.attention import MaskSpec

PICTURES: dict[str, tuple[dict[str, Any], str]] = {
    "causal": ({}, "x...... xx..... xxx.... xxxx... xxxxx.. xxxxxx. xxxxxxx"),
    "window=3": ({"window": 3}, "x...... xx..... xxx.... .xxx... ..xxx.. ...xxx. ....xxx"),
    "window=3, sinks=1": (
        {"window": 3, "sinks": 1},
        "x...... xx..... xxx.... xxxx... x.xxx.. x..xxx. x...xxx",
    ),
    "chunk=3": ({"chunk": 3}, "x...... xx..... xxx.... ...x... ...xx.. ...xxx. ......x"),
    "documents=(2, 5)": ({"documents": (2, 5)}, "x...... xx..... ..x.... ..xx... ..xxx.. .....x. .....xx"),
    "bidirectional=((2, 5),)": (
        {"bidirectional": ((2, 5),)},
        "x...... xx..... xxxxx.. xxxxx.. xxxxx.. xxxxxx. xxxxxxx",
    ),
}
COMBINED: dict[str, tuple[dict[str, Any], str]] = {
    "not causal": ({"causal": False}, " ".join(["xxxxxxx"] * 7)),
    "window=1": ({"window": 1}, "x...... .x..... ..x.... ...x... ....x.. .....x. ......x"),
    "chunk=1": ({"chunk": 1}, "x...... .x..... ..x.... ...x... ....x.. .....x. ......x"),
    "sinks without a window hide nothing": ({"sinks": 2}, PICTURES["causal"][1]),
    "window=2, chunk=3": ({"window": 2, "chunk": 3}, "x...... xx..... .xx.... ...x... ...xx.. ....xx. ......x"),
    "documents that see all of themselves": (
        {"causal": False, "documents": (2, 5)},
        "xx..... xx..... ..xxx.. ..xxx.. ..xxx.. .....xx .....xx",
    ),
    "sinks and chunks count from the document's beginning": (
        {"window": 1, "sinks": 1, "chunk": 3, "documents": (2,)},
        "x...... xx..... ..x.... ..xx... ..x.x.. .....x. ......x",
    ),
    "a window hides what is earlier in a span, not what is later": (
        {"window": 2, "bidirectional": ((1, 5), (5, 7))},
        "x...... xxxxx.. .xxxx.. ..xxx.. ...xx.. ....xxx .....xx",
    ),
    "sinks do not cross chunks": (
        {"window": 2, "sinks": 1, "chunk": 4},
        "x...... xx..... xxx.... x.xx... ....x.. ....xx. .....xx",
    ),
}


def picture(mask: MaskSpec, length: int = 7) -> str:
    positions = torch.arange(length)
    rows = mask.dense(positions, positions).tolist()
    return " ".join("".join("x" if seen else "." for seen in row) for row in rows)


@pytest.mark.parametrize("name", [*PICTURES, *COMBINED])
def test_masks_look_like_their_pictures(name: str) -> None:
    fields, expected = (PICTURES | COMBINED)[name]
    assert picture(MaskSpec(**fields)) == expected


def test_the_documentation_shows_the_same_pictures() -> None:
    assert MaskSpec.__doc__ is not None
    lines = [line.split() for line in MaskSpec.__doc__.splitlines() if re.fullmatch(r"(\s+[x.]{7}){6}", line)]
    assert [" ".join(column) for column in zip(*lines, strict=True)] == [text for _, text in PICTURES.values()]


SIZES = [None, 1, 2, 3, 5, 7, 11]


@pytest.mark.parametrize("window", SIZES)
@pytest.mark.parametrize("chunk", SIZES)
def test_the_first_key_is_the_first_that_is_seen(window: int | None, chunk: int | None) -> None:
    mask = MaskSpec(window=window, chunk=chunk)
    positions = torch.arange(23)
    seen = mask.dense(positions, positions)
    assert [mask.first_key(query) for query in range(23)] == seen.int().argmax(1).tolist()
    assert bool(seen.diagonal().all())  # every query sees itself, so no row of scores is empty


@pytest.mark.parametrize("fields", [{"window": 3, "sinks": 2}, {"window": 5, "sinks": 1, "chunk": 7}])
def test_the_first_key_leaves_sinks_aside(fields: dict[str, Any]) -> None:
    positions = torch.arange(23)
    mask, without = MaskSpec(**fields), MaskSpec(**fields | {"sinks": 0})
    assert [mask.first_key(query) for query in range(23)] == [without.first_key(query) for query in range(23)]
    more = mask.dense(positions, positions) & ~without.dense(positions, positions)
    assert bool(more.any())
    assert bool((more.nonzero()[:, 1] < fields["sinks"]).all())


def test_without_causality_everything_is_seen_from_the_first_key() -> None:
    mask = MaskSpec(causal=False)
    assert mask.first_key(19) == 0
    assert mask.dense(torch.arange(3), torch.arange(5)).tolist() == [[True] * 5] * 3


def test_positions_need_not_begin_at_zero_or_follow_each_other() -> None:
    queries, keys = torch.tensor([19, 8]), torch.tensor([2, 8, 17, 19, 20])
    assert MaskSpec().dense(queries, keys).int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert MaskSpec(window=3).dense(queries, keys).int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
    assert MaskSpec(chunk=10).dense(queries, keys).int().tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    "fields",
    [
        {"window": 0},
        {"window": -1},
        {"chunk": 0},
        {"sinks": -1},
        {"causal": False, "window": 3},
        {"causal": False, "sinks": 1},
        {"causal": False, "chunk": 3},
        {"documents": (0, 3)},
        {"documents": (5, 3)},
        {"documents": (3, 3)},
        {"causal": False, "bidirectional": ((1, 3),)},
        {"bidirectional": ((3, 3),)},
        {"bidirectional": ((-1, 3),)},
        {"bidirectional": ((3, 5), (4, 6))},
        {"bidirectional": ((5, 7), (2, 3))},
        {"documents": (4,), "bidirectional": ((3, 5),)},
    ],
    ids=str,
)
def test_masks_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        MaskSpec(**fields)
    assert all(name in str(caught.value) for name in fields if name != "causal")


def test_the_last_key_is_the_last_that_is_seen() -> None:
    positions = torch.arange(23)
    for spans in ((), ((0, 1), (4, 9), (9, 12), (20, 23))):
        mask = MaskSpec(window=3, bidirectional=spans)
        seen = mask.dense(positions, positions).int()
        assert [mask.last_key(query) for query in range(23)] == (22 - seen.flip(1).argmax(1)).tolist()
