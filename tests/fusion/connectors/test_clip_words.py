"""What happens in a clip: from probabilities of pairs of frames to events with their times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensorium.encoders.media import VideoData
from sensorium.encoders.video import MotionFeature
from sensorium.fusion.connectors.clip_choice import COUNTS, EVENTS, Event, count_of, events_of
from sensorium.fusion.connectors.clip_heads import ClipEvents, ClipHeads, pair_channels

TIMES = [0.0, 0.7, 1.1, 2.3, 3.0, 4.5]


def likely(*events: str, sure: float = 0.9) -> NDArray[np.float32]:
    """Probabilities of pairs in which these events are likeliest."""
    rows = np.full((len(events), len(EVENTS)), (1 - sure) / (len(EVENTS) - 1), np.float32)
    for row, event in enumerate(events):
        rows[row, EVENTS.index(event)] = sure
    return rows


def told(probabilities: NDArray[np.float32]) -> list[tuple[float, str]]:
    found = events_of(probabilities, TIMES[: len(probabilities) + 1])
    return [(event.seconds, EVENTS[int(event.probabilities.argmax())]) for event in found]


def test_neighbouring_pairs_of_one_kind_are_one_event() -> None:
    rows = likely("still", "moving left", "moving left", "still", "moving left")
    assert told(rows) == [(0.7, "moving left"), (3.0, "moving left")]


@pytest.mark.parametrize("event", ["appearing", "disappearing", "scene change"])
def test_what_is_sudden_has_the_time_of_the_first_frame_after_it(event: str) -> None:
    assert told(likely("still", "still", event, "still")) == [(2.3, event)]


def test_nothing_is_told_of_still_or_doubtful_pairs() -> None:
    assert told(likely("still", "still")) == []
    assert told(likely("moving up", sure=0.55)) == []


def test_where_more_happens_than_is_told_the_longest_stay() -> None:
    kinds = ["moving up", "moving down"] * 3 + ["moving left"] * 2 + ["moving up"]
    times = np.arange(len(kinds) + 1).tolist()
    found = events_of(likely(*kinds), times)
    assert len(found) == 6 and [event.seconds for event in found] == sorted(event.seconds for event in found)
    assert any(EVENTS[int(event.probabilities.argmax())] == "moving left" for event in found)


def counted(*sure: tuple[int, float]) -> NDArray[np.float32]:
    """Probabilities of frames in which so many things are so likely, and all else is equally likely."""
    rows = np.zeros((len(sure), len(COUNTS)), np.float32)
    for row, (count, share) in enumerate(sure):
        rows[row] = (1 - share) / (len(COUNTS) - 1)
        rows[row, count] = share
    return rows


def counted_in_a_clip(*sure: tuple[int, float], **events: float) -> tuple[str, float]:
    happened = [Event(at, likely(name.replace("_", " "))[0]) for name, at in events.items()]
    found = count_of(counted(*sure), TIMES[: len(sure)], sorted(happened, key=lambda event: event.seconds))
    assert float(found.sum()) == pytest.approx(1)
    return COUNTS[int(found.argmax())], float(found.max())


def test_frames_without_what_appears_or_vanishes_count_one_more() -> None:
    frames = ((2, 0.9), (2, 0.8), (3, 0.7))
    assert counted_in_a_clip(*frames, appearing=1.1)[0] == "three things"
    assert counted_in_a_clip(*frames[::-1], disappearing=0.7)[0] == "three things"
    # One comes, another goes: there are never more than three at once.
    assert counted_in_a_clip(*frames, (2, 0.9), appearing=1.1, disappearing=2.3)[0] == "three things"


def test_all_frames_count_but_for_what_moves_in_front() -> None:
    frames = ((1, 0.9), (1, 0.9), (1, 0.9), (2, 0.9))
    assert counted_in_a_clip(*frames)[0] == "one thing"
    alone, sure = counted_in_a_clip((2, 0.9), (2, 0.9), *frames, moving_left=0.0)
    assert (alone, sure) == ("two things", pytest.approx(0.9))


def test_where_no_frame_can_tell_the_clip_cannot() -> None:
    assert counted_in_a_clip((5, 1.0), (5, 1.0), appearing=0.7) == ("things", 1.0)
    assert counted_in_a_clip((4, 1.0), appearing=0.7) == ("four things", 1.0)


@torch.inference_mode()
def test_heads_read_pairs_of_any_size_of_frame() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (4, 61, 83, 3), dtype=np.uint8)
    clip = VideoData(frames, np.array(TIMES[:4]), 3.0)
    channels = pair_channels(clip, MotionFeature())
    assert channels.shape == (3, 13, 32, 32) and bool(channels.isfinite().all())
    heads = ClipHeads(24, width=6).eval()
    # The area means are those of torch's own kernel.
    plain = torch.nn.functional.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255, size=32, mode="area")
    torch.testing.assert_close(channels[:, :1], plain[:-1].mean(1, keepdim=True), rtol=0, atol=1e-6)
    expected = heads.event_logits(channels).softmax(-1)
    assert expected.shape == (3, len(EVENTS))
    seconds = torch.from_numpy(clip.timestamps).diff().float()
    torch.testing.assert_close(ClipEvents(heads)(torch.from_numpy(frames), seconds), expected, rtol=1e-4, atol=1e-5)
    regions = torch.randn(2, 25, 24)
    counts = heads.count_logits(regions)
    assert counts.shape == (2, len(COUNTS))
    assert not torch.allclose(counts[0], counts[1])
