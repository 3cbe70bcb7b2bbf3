"""Clips: the right frames at true times, turned upright, within bounds."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as pillow
from sensorium.encoders.media import VideoData
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk.media import Limits, Sampling, Video, sound_track, video
from sensorium.sdk.media.sampling import choose, fitted

HERE = Limits(isolate="none")  # what is tested is decoding, not the helper


def clip_of(source: Any, **options: Any) -> VideoData:
    return Video(source, **{"limits": HERE, **options}).data


def numbers_in(clip: VideoData) -> NDArray[np.int64]:
    """Which frame each one is, by its shade: see `clips`. OpenCV shows video levels 16 to 235 as 0 to 255."""
    shades = clip.frames.reshape(len(clip.frames), -1).mean(axis=1)
    return np.rint((shades * 219 / 255 + 16 - 20) / 2).astype(np.int64)


@pytest.mark.parametrize("name", ["even.mp4", "even.webm", "even.avi", "even.mov"])
def test_frames_are_those_of_their_times(name: str, clips: dict[str, Path]) -> None:
    clip = clip_of(clips[name])
    assert clip.frames.shape == (8, 48, 64, 3)
    assert np.abs(clip.timestamps - (np.arange(8) * 0.5 + 0.24)).max() < 0.021
    assert clip.duration == pytest.approx(4, abs=1e-3)
    assert np.abs(numbers_in(clip) - clip.timestamps * 25).max() <= 1.2


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.webm"])
@pytest.mark.parametrize("frames", [1, 7, 64])
def test_times_of_a_variable_rate_are_those_that_pyav_reads(name: str, frames: int, clips: dict[str, Path]) -> None:
    import av

    with av.open(str(clips[name])) as container:
        (track,) = container.streams.video
        start = track.start_time or 0
        times = [float((frame.pts - start) * track.time_base) for frame in container.decode(track)]
    clip = clip_of(clips[name], frames=frames)
    assert len(clip.timestamps) == min(frames, len(times))
    assert all(min(abs(time - stamp) for time in times) < 1e-6 for stamp in clip.timestamps)
    if frames == 64:
        assert np.abs(clip.timestamps - times).max() < 1e-6
        assert {0.04, 0.28} <= set(np.diff(clip.timestamps).round(6))
    assert np.abs(numbers_in(clip) - clip.timestamps * 25).max() <= 1.2


def test_how_many_frames(clips: dict[str, Path]) -> None:
    source = clips["even.mp4"]
    assert len(clip_of(source, frames=3).frames) == 3
    assert len(clip_of(source, fps=5).frames) == 20
    assert len(clip_of(source, fps=5, frames=6).frames) == 6
    assert len(clip_of(source, fps=0.1).frames) == 1
    with pytest.raises(InvalidInputError, match="100 frames"):
        clip_of(source, fps=25)
    assert len(clip_of(source, fps=25, limits=Limits(isolate="none", video_frames=100)).frames) == 100
    with pytest.raises(InvalidInputError, match=r"5000 frames[\s\S]*at most 64"):
        Video(source, frames=5000)


def test_of_each_stretch_the_frame_in_its_middle() -> None:
    starts = [0.0, 5.0, 8.0, 11.0, 24.0]
    assert choose(starts, 29.0, Sampling(frames=2)) == [1, 3]
    assert choose(starts, 29.0, Sampling(frames=1)) == [3]
    assert choose(starts, 29.0, Sampling(frames=5)) == [0, 1, 2, 3, 4]
    assert choose([0.0], 0.04, Sampling()) == [0]
    assert choose(list(np.arange(100) / 25), 4.0, Sampling()) == [6, 18, 31, 43, 56, 68, 81, 93]
    assert fitted(1920, 1080, 768) == (768, 432)
    assert fitted(3, 60000, 768) == (1, 768)
    assert fitted(20, 10, 768) == (20, 10)


@pytest.fixture(scope="module")
def corners(ffmpeg: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 96 × 64 that is red in its upper left corner, green right of it and blue below."""
    folder = tmp_path_factory.mktemp("corners")
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pillow.fromarray(picture).save(folder / "corners.png")
    quality = ("-c:v", "libx264", "-crf", "5", "-pix_fmt", "yuv420p")
    ffmpeg("-loop", "1", "-t", "0.5", "-r", "10", "-i", folder / "corners.png", *quality, folder / "corners.mp4")
    return folder / "corners.mp4"


def quarters(frame: NDArray[np.uint8]) -> str:
    """Of which colours the four quarters are, by rows: ``rgb0``."""
    height, width = frame.shape[:2]
    places = ((height // 4, width // 4), (height // 4, -width // 4), (-height // 4, width // 4))
    shades = [frame[place].astype(int) for place in (*places, (-height // 4, -width // 4))]
    return "".join("rgb"[int(shade.argmax())] if shade.max() > 128 else "0" for shade in shades)


@pytest.mark.parametrize(("degrees", "expected"), [(0, "rgb0"), (90, "g0rb"), (180, "0bgr"), (270, "br0g")])
def test_rotation_is_applied_once(
    degrees: int, expected: str, corners: Path, ffmpeg: Callable[..., None], tmp_path: Path
) -> None:
    """Degrees against the clock, as ffmpeg counts them."""
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(degrees), "-i", corners, "-c", "copy", path)
    clip = clip_of(path)
    assert clip.frames.shape[1:3] == ((64, 96) if degrees % 180 == 0 else (96, 64))
    assert quarters(clip.frames[0]) == expected
    # As ffmpeg itself turns it.
    ffmpeg("-i", path, "-frames:v", "1", tmp_path / "oracle.png")
    assert quarters(np.asarray(pillow.open(tmp_path / "oracle.png").convert("RGB"))) == expected


def test_large_frames_are_made_smaller(corners: Path, ffmpeg: Callable[..., None], tmp_path: Path) -> None:
    clip = clip_of(corners, limits=Limits(isolate="none", frame_side=48))
    assert clip.frames.shape[1:] == (32, 48, 3)
    assert quarters(clip.frames[0]) == "rgb0"
    with pytest.raises(InvalidInputError, match="too many pixels"):
        clip_of(corners, limits=Limits(isolate="none", image_pixels=96 * 64 - 1))


def test_pixels_that_are_not_square(corners: Path, ffmpeg: Callable[..., None], tmp_path: Path) -> None:
    ffmpeg("-i", corners, "-vf", "setsar=2/1", tmp_path / "wide.mp4")
    clip = clip_of(tmp_path / "wide.mp4")
    assert clip.frames.shape[1:] == (64, 192, 3)
    assert quarters(clip.frames[0]) == "rgb0"


def test_a_size_that_changes_in_the_middle(corners: Path, ffmpeg: Callable[..., None], tmp_path: Path) -> None:
    """Two streams of two sizes, one behind the other in one track: all frames have the track's size."""
    first, second, both = (tmp_path / f"{name}.h264" for name in ("first", "second", "both"))
    ffmpeg("-i", corners, "-c:v", "libx264", "-bf", "0", first)
    ffmpeg("-i", corners, "-vf", "scale=32:48", "-c:v", "libx264", "-bf", "0", second)
    both.write_bytes(first.read_bytes() + second.read_bytes())
    ffmpeg("-f", "h264", "-r", "10", "-i", both, "-c", "copy", tmp_path / "both.mp4")
    clip = clip_of(tmp_path / "both.mp4", frames=10)
    assert clip.frames.shape == (10, 64, 96, 3)
    assert quarters(clip.frames[0]) == "rgb0"
    assert np.abs(clip.timestamps - np.arange(10) / 10).max() < 1e-6


def test_long_stretches_are_jumped_over(
    ffmpeg: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With jumps and without them the same frames come at the same times, at an even rate and at another."""
    shades = "nullsrc=size=32x32:rate=25:duration=60,geq=lum='16+mod(N,200)':cb=128:cr=128"
    uneven = shades + ",select='not(mod(n,5))+between(n,300,700)'"
    for name, graph in (("even.mp4", shades), ("uneven.mp4", uneven), ("uneven.webm", uneven)):
        codec = (
            ("libvpx", "-deadline", "realtime", "-cpu-used", "8") if name.endswith("webm") else ("libx264", "-bf", "2")
        )
        ffmpeg("-f", "lavfi", "-i", graph, "-fps_mode", "vfr", "-c:v", *codec, "-g", "40", tmp_path / name)
        grabbed: list[int] = []
        grab = video._Reader._grab
        monkeypatch.setattr(video._Reader, "_grab", lambda self: grabbed.append(1) or grab(self))  # noqa: B023
        jumping = clip_of(tmp_path / name, frames=6)
        count = len(grabbed)
        with monkeypatch.context() as patch:
            patch.setattr(video, "_WORTH_A_JUMP", 10**9)
            plain = clip_of(tmp_path / name, frames=6)
        monkeypatch.undo()
        assert np.array_equal(jumping.timestamps, plain.timestamps)
        assert np.array_equal(jumping.frames, plain.frames)
        if name == "even.mp4":
            assert count < 300 < len(grabbed) - count


def test_sound_belongs_to_a_clip(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clip = clip_of(clips["even.mp4"])
    assert clip.sound is not None
    assert clip.sound.duration == pytest.approx(4, abs=0.1)
    assert clip_of(clips["even.mp4"], sound=False).sound is None
    assert clip_of(clips["uneven.mp4"]).sound is None
    monkeypatch.setattr(video, "has_pyav", lambda: False)
    assert clip_of(clips["even.mp4"]).sound is None


def test_pictures_and_sound_keep_their_distance(ffmpeg: Callable[..., None], tmp_path: Path) -> None:
    """Pictures that begin two seconds after the sound do so here, too."""
    picture, sine = "color=size=16x16:rate=10:duration=3", "sine=frequency=440:duration=5"
    for name, codec in (("late.mp4", ("libx264", "-c:a", "aac")), ("late.webm", ("libvpx", "-c:a", "libopus"))):
        inputs = ("-itsoffset", "2", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sine)
        ffmpeg(*inputs, "-c:v", *codec, tmp_path / name)
        clip = clip_of(tmp_path / name, frames=30)
        assert clip.timestamps[0] == pytest.approx(2, abs=0.05)
        assert clip.timestamps[-1] == pytest.approx(4.9, abs=0.05)
        assert clip.duration == pytest.approx(5, abs=0.05)
        assert clip.sound is not None and clip.sound.duration == pytest.approx(5, abs=0.1)


def test_damaged_sound_is_told_with_the_way_out(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise InvalidInputError("The sound is damaged.", given="x")

    monkeypatch.setattr(video, "decode_track", fails)
    with pytest.raises(InvalidInputError, match="sound=False"):
        clip_of(clips["even.mp4"])
    assert sound_track.has_pyav()


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile '{path}'\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:4,\n{path}\n#EXT-X-ENDLIST\n",
        "<?xml version='1.0'?><MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>",
    ],
)
def test_a_playlist_named_mp4_opens_nothing(content: str, clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text(content.format(path=clips["even.mp4"]))
    with pytest.raises(UnsupportedInputError, match="playlist"):
        clip_of(path)
    # And not if it passed for one either, as one that changes between two looks would.
    with pytest.raises(InvalidInputError):
        video._opened(path, "clip.mp4")


def test_what_is_no_clip(clips: dict[str, Path], image_bytes: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a clip[\s\S]*sdk.Image"):
        clip_of(image_bytes(np.zeros((4, 4, 3), np.uint8), "PNG"))
    with pytest.raises(InvalidInputError, match=r"is not a clip[\s\S]*sdk.Audio"):
        clip_of(clips["sound.m4a"])
    with pytest.raises(InvalidInputError, match="its own times"):
        Video(clips["even.mp4"], timestamps=[0, 1])


@pytest.mark.parametrize("name", ["even.mp4", "even.webm", "even.avi", "even.mov"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.98])
def test_a_truncated_clip_is_an_error(name: str, kept: float, clips: dict[str, Path]) -> None:
    data = clips[name].read_bytes()
    with pytest.raises(InvalidInputError):
        clip_of(data[: int(len(data) * kept)])


def test_claims_of_a_header_are_not_believed(clips: dict[str, Path]) -> None:
    data = bytearray(clips["uneven.mp4"].read_bytes())
    for box, scale, length in ((b"mvhd", 12, 16), (b"mdhd", 12, 16)):
        at = data.index(box) + 4
        units = struct.unpack(">I", data[at + scale : at + scale + 4])[0]
        data[at + length : at + length + 4] = struct.pack(">I", min(0xFFFFFFFF, 10**9 * units))
    clip = clip_of(bytes(data))
    assert clip.duration == pytest.approx(4, abs=0.3)
    # Times of frames that really are that far apart are too long.
    at = data.index(b"stts") + 4
    data[at + 12 : at + 16] = struct.pack(">I", 0x7FFFFFFF)
    with pytest.raises(InvalidInputError, match=r"too long|damaged|not rise"):
        clip_of(bytes(data))


def test_limits_of_length(clips: dict[str, Path]) -> None:
    for limits, word in (
        ({"video_seconds": 3.9}, "too long"),
        ({"video_scan": 99}, "too many frames"),
        ({"decode_seconds": 1e-9}, "took too long"),
        ({"audio_seconds": 3}, "too long"),
        ({"path_bytes": 1000}, "too large"),
    ):
        with pytest.raises(InvalidInputError, match=word):
            clip_of(clips["even.mp4"], limits=Limits(isolate="none", **limits))


def animated(count: int, kind: str, milliseconds: list[int] | int, image_bytes: Any) -> bytes:
    frames = [pillow.new("RGB", (8, 6), (20 + 9 * number, 0, 250)) for number in range(count)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return image_bytes(frames[0], kind, save_all=True, append_images=frames[1:], duration=milliseconds, **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animations_have_true_times(kind: str, image_bytes: Any) -> None:
    data = animated(5, kind, [100, 300, 50, 1000, 70], image_bytes)
    clip = clip_of(data, frames=5)
    assert clip.timestamps.tolist() == pytest.approx([0, 0.1, 0.4, 0.45, 1.45])
    assert clip.duration == pytest.approx(1.52)
    assert clip.frames[:, 3, 3, 0].tolist() == pytest.approx([20, 29, 38, 47, 56], abs=2)
    clip = clip_of(data, frames=2)  # in the middle of 0 to 0.76, and of 0.76 to 1.52
    assert clip.timestamps.tolist() == pytest.approx([0.1, 0.45])


def test_animations_without_times_and_with_transparency(image_bytes: Any) -> None:
    clip = clip_of(animated(3, "GIF", 0, image_bytes), frames=3)
    assert clip.timestamps.tolist() == pytest.approx([0, 0.1, 0.2])
    frames = []
    for column in range(3):
        frame = pillow.new("RGBA", (8, 6), (0, 0, 0, 0))
        frame.paste((200, 0, 0, 255), (column, 0, column + 1, 6))
        frames.append(frame)
    data = image_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2, duration=100)
    clip = clip_of(data, frames=3)
    for column, frame in enumerate(clip.frames):
        assert frame[0].tolist() == [[200, 0, 0] if x == column else [255, 255, 255] for x in range(8)]


def test_an_animation_is_bounded_before_it_is_drawn(image_bytes: Any) -> None:
    data = animated(20, "GIF", 40, image_bytes)
    for limits, word in (
        ({"animation_pixels": 19 * 48}, "too many frames"),
        ({"image_pixels": 47}, "too many pixels"),
        ({"decode_seconds": 1e-9}, "took too long"),
    ):
        with pytest.raises(InvalidInputError, match=word):
            clip_of(data, limits=Limits(isolate="none", **limits))
    clip = clip_of(data, limits=Limits(isolate="none", animation_pixels=20 * 48, frame_side=4))
    assert clip.frames.shape[1:3] == (3, 4)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_a_truncated_animation_is_an_error(kind: str, image_bytes: Any) -> None:
    data = animated(9, kind, 40, image_bytes)
    with pytest.raises(InvalidInputError):
        clip_of(data[: int(len(data) * 0.8)], frames=9)
