"""How long sounds are cut: nothing lost, nothing twice, and every kept feature in the middle of its context."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from sensorium.encoders.audio import AudioConfig
from sensorium.encoders.audio.windows import Window, feature_count, plan_windows


def picture(samples: int, config: AudioConfig, *, trim: bool = False) -> str:
    total = -(-samples // 320)
    rows = ["".join(str(number % 10) for number in range(total))]
    for window in plan_windows(samples, config, trim=trim):
        marks = [" "] * window.first
        for place in range(window.first, window.first + window.length):
            marks.append("■" if window.begin <= place < window.end else "·" if place < total else "-")
        rows.append("".join(marks))
    return "\n".join(rows)


SMALL = AudioConfig(positions=10, overlap=2)


def test_the_picture_of_the_docstring() -> None:
    assert picture(19 * 320, SMALL) == (
        "0123456789012345678\n"
        "■■■■■■■■··\n"
        "      ··■■■■■■··\n"
        "            ··■■■■■---"
    )  # fmt: skip
    assert picture(19 * 320, SMALL, trim=True).splitlines()[-1] == "            ··■■■■■"


def test_one_window_for_a_short_sound() -> None:
    assert plan_windows(1, SMALL) == [Window(0, 10, 0, 1)]
    assert plan_windows(3_200, SMALL) == [Window(0, 10, 0, 10)]
    assert plan_windows(321, SMALL, trim=True) == [Window(0, 2, 0, 2)]
    assert len(plan_windows(3_201, SMALL)) == 2


def test_padding_is_kept_where_a_model_was_trained_with_it() -> None:
    config = AudioConfig(positions=10, overlap=0, keep_padding=True)
    assert plan_windows(3_201, config) == [Window(0, 10, 0, 10), Window(10, 10, 10, 20)]
    assert feature_count(1, config) == 10


@settings(max_examples=300, deadline=None)
@given(
    samples=st.integers(1, 40_000),
    positions=st.integers(1, 30),
    overlap=st.integers(0, 14),
    pool=st.integers(1, 3),
    trim=st.booleans(),
)
def test_every_feature_exactly_once_and_with_context(
    samples: int, positions: int, overlap: int, pool: int, trim: bool
) -> None:
    overlap = min(overlap, (positions - 1) // 2) * pool
    config = AudioConfig(positions=positions * pool, overlap=overlap, pool=pool)
    windows = plan_windows(samples, config, trim=trim)
    total = -(-samples // 320)
    kept = [place for window in windows for place in range(window.begin, window.end)]
    assert kept == list(range(total))
    for window in windows:
        assert 1 <= window.length <= config.positions and window.length % pool == 0
        assert window.first <= window.begin < window.end <= window.first + window.length
        assert window is windows[0] or window.begin - window.first >= overlap
        assert window is windows[-1] or window.first + window.length - window.end >= overlap
        assert window.first % pool == window.begin % pool == 0
    assert feature_count(samples, config, trim=trim) == max(1, total // pool)
