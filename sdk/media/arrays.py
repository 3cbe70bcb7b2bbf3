"""Arrays of numpy and torch, and images of Pillow, to media: a wrong range or order of axes is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import InvalidInputError, SensoriumError
from ...encoders.media import AudioData, ImageData, VideoData
from .image import check_pixels, damaged, pixels_of
from .limits import LIMITS, Limits
from .samples import SampleSink, check_shape, unit_floats

__all__ = ["Array", "audio_from_array", "image_from_object", "is_array", "is_pillow", "video_from_frames"]

#: A numpy array or a torch tensor.
Array: TypeAlias = Any

_BESIDE = 1e-3  # how far outside of 0 to 1 resizing may bring a fraction
_BLOCK = 1 << 20  # samples


def is_array(value: object) -> bool:
    """Whether `value` is a numpy array or a torch tensor; torch is not imported for that."""
    return isinstance(value, np.ndarray) or (_made_by(value, "torch") and hasattr(value, "detach"))


def is_pillow(value: object) -> bool:
    """Whether `value` is an image of Pillow's; Pillow is not imported for that."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def image_from_object(value: Any, limits: Limits = LIMITS) -> ImageData:
    """A picture from numbers, or from an image of Pillow's.

    Args:
        value: uint8 or other whole numbers from 0 to 255, uint16, floats from 0 to 1, or booleans; [H, W],
            [H, W, 1], [H, W, 3] or [H, W, 4], the last with transparency, which is put on white; also [C, H, W] where
            that is no [H, W, C]. Torch tensors that could be both are read as [C, H, W], numpy arrays as [H, W, C].
        limits: bounds.

    Raises:
        InvalidInputError: another shape, numbers out of range, or a size beyond a limit.
    """
    if is_pillow(value):
        check_pixels("The image", value.width, value.height, limits)
        try:
            return ImageData(pixels_of(value))
        except SensoriumError:
            raise
        except Exception as error:  # one that was opened from a damaged file, and not yet loaded
            raise damaged("The image", error) from error
    array = _channels_last(_numpy(value), prefers_first=not isinstance(value, np.ndarray))
    check_pixels("The image", array.shape[1], array.shape[0], limits)
    return ImageData(_rgb(array))


def audio_from_array(value: Array, rate: float | None, limits: Limits = LIMITS) -> AudioData:
    """A sound from samples.

    Args:
        value: floats of about -1 to 1, int16, int32 or uint8; [N] or [channels, N].
        rate: samples a second.
        limits: bounds.

    Raises:
        InvalidInputError: no rate, another shape, no samples, ones that are no numbers, or a sound beyond a limit.
    """
    samples = _numpy(value)
    if not isinstance(rate, int | float) or isinstance(rate, bool) or rate != int(rate):
        expected = "samples a second: Audio(samples, rate=44100)"
        raise InvalidInputError("Samples need their rate.", given=rate, expected=expected)
    if samples.ndim not in (1, 2):
        expected = "[samples] or [channels, samples]"
        raise InvalidInputError("These are no samples.", given=list(samples.shape), expected=expected)
    samples = np.atleast_2d(samples)
    if samples.shape[0] > limits.audio_channels >= samples.shape[1] > 0:
        hint = "transpose it: [channels, samples]"
        raise InvalidInputError("The axes of a sound are the wrong way round.", given=list(samples.shape), hint=hint)
    check_shape("The sound", samples.shape[0], rate, samples.shape[1] / max(rate, 1), limits)
    sink = SampleSink("The sound", int(rate), limits)
    for start in range(0, samples.shape[1], _BLOCK):
        sink.push(unit_floats(samples[:, start : start + _BLOCK]))
    return sink.finish()


def video_from_frames(
    value: Array | Sequence[Any], fps: float | None, timestamps: Sequence[float] | None, limits: Limits = LIMITS
) -> VideoData:
    """A clip from pictures, all of which are kept.

    Args:
        value: [F, H, W, 3] (or another form of frames that `image_from_object` takes), or a list of images, which may
            be `sdk.Image`.
        fps: frames a second; or
        timestamps: seconds from the clip's beginning, rising, one for each frame.
        limits: bounds.

    Raises:
        InvalidInputError: neither or both of `fps` and `timestamps`, pictures of several sizes, more frames than the
            limit.
    """
    frames = _frame_list(value)
    if not 0 < len(frames) <= limits.video_frames:
        hint = "choose some of them, frames[::10] with a tenth of the rate, or raise Limits.video_frames"
        expected = f"1 to {limits.video_frames}"
        raise InvalidInputError("A clip has too many frames, or none.", given=len(frames), expected=expected, hint=hint)
    stamps, duration = _stamps(len(frames), fps, timestamps)
    pictures = [_picture(frame, limits) for frame in frames]
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise InvalidInputError("The frames of a clip have different sizes.", given=sorted(sizes)[:4])
    return VideoData(np.stack(pictures), stamps, duration)


def _picture(frame: Any, limits: Limits) -> NDArray[np.uint8]:
    if is_array(frame) or is_pillow(frame):
        return image_from_object(frame, limits).pixels
    return frame.data.pixels  # of an `Image`, which decodes itself


def _frame_list(value: Any) -> Sequence[Any]:
    if not is_array(value):
        return value
    if len(value.shape) != 4:
        expected = "[frames, height, width, 3]"
        raise InvalidInputError("These are no frames.", given=list(value.shape), expected=expected)
    return [value[number] for number in range(value.shape[0])]


def _stamps(count: int, fps: float | None, timestamps: Sequence[float] | None) -> tuple[NDArray[np.float64], float]:
    """When each frame is shown, and for how long all of them are."""
    if (fps is None) == (timestamps is None):
        given = "neither" if fps is None else "both"
        raise InvalidInputError("Frames need their times.", given=given, expected="fps=… or timestamps=[…]")
    if fps is not None:
        return np.arange(count) / fps, count / fps
    stamps = np.asarray(timestamps, np.float64).reshape(-1)
    if len(stamps) != count:
        raise InvalidInputError("Each frame needs one timestamp.", given=f"{len(stamps)} for {count} frames")
    last = float(np.median(np.diff(stamps))) if count > 1 else 0.0
    return stamps, float(stamps[-1]) + last


def _made_by(value: object, package: str) -> bool:
    return type(value).__module__.split(".")[0] == package


def _numpy(value: Any) -> NDArray[Any]:
    """An array on the CPU, in a type that numpy has."""
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    return (value.float() if str(value.dtype) in ("torch.bfloat16", "torch.float16") else value).numpy()


def _channels_last(array: NDArray[Any], *, prefers_first: bool) -> NDArray[Any]:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        expected = "[height, width], [height, width, 1, 3 or 4] or [1, 3 or 4, height, width]"
        raise _unusable("image", list(array.shape), expected)
    first, last = (array.shape[axis] in (1, 3, 4) for axis in (0, 2))
    if first and (prefers_first or not last):
        return array.transpose(1, 2, 0)
    if not last:
        raise _unusable("image", list(array.shape), "1, 3 or 4 channels")
    return array


def _rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W, 1, 3 or 4] in any range to uint8 [H, W, 3], transparency on white."""
    if array.size == 0:
        raise _unusable("image", list(array.shape), "some pixels")
    levels = _levels(array)
    if levels.shape[2] == 4:
        alpha = levels[..., 3:] / 255.0
        levels = np.rint(levels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def _levels(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.rint(array * (255 / 65535)).astype(np.uint8)
    expected = "uint8, uint16, whole numbers from 0 to 255, or floats from 0 to 1"
    if array.dtype.kind not in "iuf":
        raise _unusable("image", array.dtype, expected)
    least, most = array.min(), array.max()
    if array.dtype.kind != "f" and least >= 0 and most <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and least >= -_BESIDE and most <= 1 + _BESIDE:  # false for NaN
        return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    raise _unusable("image", f"{array.dtype} from {least} to {most}", expected)


def _unusable(what: str, given: object, expected: str) -> InvalidInputError:
    return InvalidInputError(f"This is no {what}.", given=given, expected=expected)
