"""Motion of things in drawn clips: where to, how fast, and what only changed."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from sensorium.encoders.errors import InvalidInputError
from sensorium.encoders.media import VideoData
from sensorium.encoders.video import MotionFeature, dominant_motion
from sensorium.encoders.video.motion import CHANNELS
from torch import Tensor

from .conftest import Scene

MOTION = MotionFeature()
ANGLES = range(0, 360, 45)
STILL = Scene(speed=0.0)


def degrees_off(found: Tensor, scene: Scene) -> float:
    x, y = found.double().tolist()
    turn = complex(x, y) / complex(*scene.direction)
    return abs(np.degrees(np.angle(turn))) if turn else 180.0


@pytest.mark.parametrize("ground", ["plain", "cloudy", "tiled"])
@pytest.mark.parametrize("speed", [0.02, 0.1, 0.4])
def test_direction_and_speed(ground: str, speed: float) -> None:
    shapes = itertools.cycle(["square", "circle"])
    for number, angle in enumerate(ANGLES):
        # Odd angles between the eight directions, and a rate at which a fast thing crosses a fifth of the frame.
        scene = Scene(
            angle + 10 * (number % 3 - 1), speed, rate=2 + 3 * (number % 2), ground=ground, shape=next(shapes), frames=2
        )
        found = dominant_motion(MOTION.of_clip(dataclasses.replace(scene, seed=number).clip()))[0]
        assert degrees_off(found, scene) < 15, (angle, found)
        assert float(found.norm()) == pytest.approx(speed, rel=0.3), angle


@pytest.mark.parametrize(("noise", "light"), [(4.0, 0.0), (0.0, 0.03), (3.0, -0.04)])
def test_noise_and_changing_light_do_not_turn_it(noise: float, light: float) -> None:
    for number, angle in enumerate(ANGLES):
        scene = Scene(angle, 0.15, noise=noise, light=light, seed=number, frames=2)
        found = dominant_motion(MOTION.of_clip(scene.clip()))[0]
        assert degrees_off(found, scene) < 15, (angle, found)
        assert float(found.norm()) == pytest.approx(0.15, rel=0.3), angle


def test_a_step_larger_than_the_thing_is_found() -> None:
    scene = Scene(30, 0.38, rate=1.0, frames=2, width=0.15)
    found = dominant_motion(MOTION.of_clip(scene.clip()))[0]
    np.testing.assert_allclose(found, scene.direction * 0.38, atol=0.02)


def test_a_camera_that_pans_moves_every_cell() -> None:
    wide = Scene(speed=0.0, size=(130, 220), width=0.01, frames=1, ground="tiled", seed=4).clip().frames[0]
    frames = np.stack([wide[20 - 4 * f : 104 - 4 * f, 30 + 9 * f : 138 + 9 * f] for f in range(2)])
    motion = MOTION.of_clip(VideoData(frames, np.array([0.0, 0.5]), 1.0))[0]
    moved = motion[..., 2] > 0.5
    assert moved.float().mean() > 0.5
    expected = torch.tensor([-9 / 108 / 0.5, 4 / 84 / 0.5]).expand_as(motion[moved][:, :2])
    torch.testing.assert_close(motion[moved][:, :2], expected, rtol=0, atol=0.02)


def test_two_things_have_a_motion_each() -> None:
    above = Scene(0, 0.3, start=(0.2, 0.25), width=0.18, ground="plain").clip()
    below = Scene(180, 0.3, start=(0.8, 0.75), width=0.18, ground="plain").clip()
    frames = np.concatenate([above.frames[:, :42], below.frames[:, 42:]], axis=1)
    motion = MOTION.of_clip(VideoData(frames, above.timestamps, 1.0))
    for part, speed in ((motion[:, :4], 0.3), (motion[:, 4:], -0.3)):
        np.testing.assert_allclose(dominant_motion(part), [[speed, 0.0]] * 2, atol=0.03)


@pytest.mark.parametrize("ground", ["plain", "cloudy", "tiled"])
def test_still_scenes_have_no_motion(ground: str) -> None:
    still = dataclasses.replace(STILL, ground=ground)
    assert not MOTION.of_clip(still.clip()).any()
    for noise, light in ((5.0, 0.0), (0.0, 0.05), (3.0, -0.05)):
        motion = MOTION.of_clip(dataclasses.replace(still, noise=noise, light=light).clip())
        assert not motion[..., :3].any(), (noise, light)
        assert motion[..., 3].max() < 0.005, (noise, light)


@pytest.mark.parametrize("ground", ["plain", "cloudy", "tiled"])
@pytest.mark.parametrize("width", [0.12, 0.3])
def test_what_appears_or_vanishes_changes_but_does_not_move(ground: str, width: float) -> None:
    clip = dataclasses.replace(STILL, ground=ground, width=width, appears=True, frames=2).clip()
    for frames in (clip.frames, clip.frames[::-1].copy()):
        motion = MOTION.of_clip(VideoData(frames, clip.timestamps, clip.duration))[0]
        assert not motion[..., :3].any()
        assert torch.equal(motion[..., 3], motion[..., 4])
        middle = motion[3:5, 3:5, 3]
        assert middle.min() > 0.02
        share = motion[2:6, 2:6, 3].sum() / motion[..., 3].sum()
        assert share > 0.9  # the change is where the thing is


def test_motion_explains_the_change_that_it_makes() -> None:
    motion = MOTION.of_clip(Scene(90, 0.2, ground="plain").clip())
    assert motion[..., 4].sum() < 0.2 * motion[..., 3].sum()
    assert ((motion[..., 2] >= 0) & (motion[..., 2] <= 1)).all()
    assert not motion[..., :2][motion[..., 2] == 0].any()


def test_colours_of_equal_lightness_are_seen_to_move() -> None:
    frames = np.empty((2, 80, 100, 3), np.uint8)
    frames[:] = (200, 50, 120)
    for number, left in enumerate((20, 30)):
        frames[number, 30:50, left : left + 20] = (50, 200, 120)
    found = dominant_motion(MOTION.of_clip(VideoData(frames, np.array([0.0, 0.5]), 1.0)))[0]
    np.testing.assert_allclose(found, [0.2, 0.0], atol=0.02)


def test_uneven_times_and_pairs_beyond_one_pass() -> None:
    """Speed is by the true time between frames, and passes of a few pairs each change nothing."""
    scene = Scene(0, 0.1, frames=7, start=(0.3, 0.5))
    clip = scene.clip()
    slow = clip.timestamps * np.linspace(1, 2, 7)
    fast, stretched = MOTION.of_clip(clip), MOTION.of_clip(VideoData(clip.frames, slow, 9.0))
    assert fast.shape == (6, 8, 8, len(CHANNELS))
    ratio = torch.from_numpy(np.diff(clip.timestamps) / np.diff(slow)).float()
    torch.testing.assert_close(stretched[..., :2], fast[..., :2] * ratio[:, None, None, None], rtol=1e-4, atol=1e-6)
    assert torch.equal(stretched[..., 2:], fast[..., 2:])
    last = MOTION.of_clip(VideoData(clip.frames[5:], clip.timestamps[5:], 9.0))
    torch.testing.assert_close(last[0], fast[5], rtol=1e-4, atol=1e-5)


def test_turning_the_frames_turns_the_motion() -> None:
    scene = Scene(20, 0.2, size=(96, 96), ground="cloudy", frames=2)
    clip = scene.clip()
    mirrored = VideoData(clip.frames[:, :, ::-1].copy(), clip.timestamps, 1.0)
    found, other = dominant_motion(MOTION.of_clip(clip))[0], dominant_motion(MOTION.of_clip(mirrored))[0]
    np.testing.assert_allclose(other, found * torch.tensor([-1.0, 1.0]), atol=0.01)


def test_one_frame_has_no_motion_and_tiny_frames_have_some() -> None:
    assert MOTION.of_clip(Scene(frames=1).clip()).shape == (0, 8, 8, 5)
    tiny = VideoData(np.zeros((2, 1, 3, 3), np.uint8), np.array([0.0, 1.0]), 2.0)
    assert not MOTION.of_clip(tiny).any()
    assert MotionFeature(5).of_clip(Scene().clip()).shape == (2, 5, 5, 5)


def test_wrong_arguments_are_refused() -> None:
    frames = torch.zeros(3, 8, 9, 3, dtype=torch.uint8)
    with pytest.raises(InvalidInputError, match="float32"):
        MOTION(frames.float(), torch.arange(3))
    with pytest.raises(InvalidInputError, match="no frames"):
        MOTION(frames[..., :2], torch.arange(3))
    with pytest.raises(InvalidInputError, match="one timestamp"):
        MOTION(frames, torch.arange(2))
    with pytest.raises(InvalidInputError, match="grid = 0"):
        MotionFeature(0)


def test_it_exports_to_a_graph() -> None:
    clip = Scene(45, 0.2, size=(40, 52), frames=3).clip()
    inputs = (torch.from_numpy(clip.frames), torch.from_numpy(clip.timestamps))
    program = torch.export.export(MOTION, inputs)
    torch.testing.assert_close(program.module()(*inputs), MOTION(*inputs))
