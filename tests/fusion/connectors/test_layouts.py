"""How media show in prompts."""

from __future__ import annotations

import pytest
from sensorium.fusion.connectors.layouts import clip_layout, clock, picture_layout, speech_layout


@pytest.mark.parametrize(
    ("seconds", "whole", "tenths"),
    [(0, "0:00", "0:00.0"), (0.3, "0:00", "0:00.3"), (59.97, "1:00", "1:00.0"), (3599.96, "60:00", "60:00.0")],
)
def test_a_clock_rounds_the_time_as_a_whole(seconds: float, whole: str, tenths: str) -> None:
    assert (clock(seconds), clock(seconds, decimals=1)) == (whole, tenths)


def test_layouts_hold_a_place_for_each_word() -> None:
    assert picture_layout(3, "<x>") == "(An image that shows:<x><x><x>)"
    assert speech_layout([], "<x>", marked=True) == "(a sound without speech)"
    assert speech_layout([(0.0, 2), (4.6, 1)], "<x>", marked=True) == 'The speech says: " [0:00] <x><x> [0:05] <x>"'
    assert speech_layout([(0.0, 2), (4.6, 1)], "<x>", marked=False) == 'The speech says: "<x><x><x>"'
    assert clip_layout(1, [(0.0, 2), (1.5, 1)], "<x>") == "(A clip that shows<x>: [0:00.0]<x><x> [0:01.5]<x>)"
