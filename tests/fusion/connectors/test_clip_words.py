"""What happens in a clip: from probabilities of pairs of frames to events with their times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sensorium.encoders.media import VideoData
from sensorium.encoders.video import MotionFeature
from sensorium.fusion.connectors.clip_choice import COUNTS, EVENTS, events_of
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
