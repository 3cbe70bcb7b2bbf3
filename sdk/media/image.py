"""Images of strangers to pixels, through Pillow: upright, in sRGB, on white, within bounds."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import InvalidInputError, SensoriumError, UnsupportedInputError
from ...encoders.media import ImageData
from .limits import LIMITS, Limits
from .source import Blob

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_pixels", "damaged", "decode_image", "open_image", "pixels_of"]

# The class of each format, called directly: what `PIL.Image.open` adds is a guess of the format, and a bound on
# pixels that is the whole program's.
_READERS = {
    "jpeg": ("JpegImagePlugin", "JpegImageFile"),
    "png": ("PngImagePlugin", "PngImageFile"),
    "gif": ("GifImagePlugin", "GifImageFile"),
    "webp": ("WebPImagePlugin", "WebPImageFile"),
    "bmp": ("BmpImagePlugin", "BmpImageFile"),
    "tiff": ("TiffImagePlugin", "TiffImageFile"),
    "avif": ("AvifImagePlugin", "AvifImageFile"),
}
# A progressive JPEG refines the whole image with each scan. Usual are 10, and a small file can hold thousands.
_MOST_SCANS = 16  # of an image as large as the limit; a smaller one may have more
_MOST_PARTS = 100_000  # segments of a JPEG, chunks of a PNG; readers take time for each
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # not a byte of a scan, not a restart inside one
_LARGEST_PROFILE = 4 << 20  # bytes; those of printers hold big tables


def decode_image(blob: Blob, kind: str, limits: Limits = LIMITS) -> ImageData:
    """The picture in a file; of an animation or a file of several pages, the first.

    Args:
        blob: the file.
        kind: its format, as sniffed.
        limits: bounds; the size is known before a pixel is decoded.

    Raises:
        InvalidInputError: a damaged or truncated file, or one beyond a limit.
        UnsupportedInputError: a format or pixel format that is not read.
    """
    image = open_image(blob, kind, limits)
    with image:
        try:
            image.load()
            return ImageData(pixels_of(image))
        except SensoriumError:
            raise
        except Exception as error:  # a decoder may raise anything
            raise damaged(blob.name, error) from error


def open_image(blob: Blob, kind: str, limits: Limits = LIMITS) -> Image:
    """The image with its header read and its size checked, nothing decoded.

    Raises:
        InvalidInputError, UnsupportedInputError: as `decode_image`.
    """
    data = blob.read(limits)
    scans = _check_frame(blob.name, data, kind, limits)
    try:
        reader = _reader(kind)
    except (KeyError, ImportError) as error:
        hint = "convert it to JPEG or PNG; a plugin of Pillow that is imported before is used"
        raise UnsupportedInputError(
            f"This build reads no {kind.upper()} images.", given=blob.name, hint=hint
        ) from error
    try:
        image = reader(io.BytesIO(data), "")
    except Exception as error:  # a decoder may raise anything
        raise damaged(blob.name, error) from error
    check_pixels(blob.name, image.width, image.height, limits)
    if scans * image.width * image.height > _MOST_SCANS * limits.image_pixels:
        raise InvalidInputError(f"{blob.name} is drawn over and over.", given=f"{scans} scans", hint="save it again")
    return image


def check_pixels(name: str, width: int, height: int, limits: Limits = LIMITS) -> None:
    """Raises InvalidInputError for a size that is none, or beyond the limits."""
    if width < 1 or height < 1:
        raise InvalidInputError(f"{name} has no pixels.", given=f"{width} × {height}")
    if max(width, height) > limits.image_side or width * height > limits.image_pixels:
        raise InvalidInputError(
            f"{name} has too many pixels.",
            given=f"{width} × {height} = {width * height}",
            expected=f"at most {limits.image_pixels}, no side longer than {limits.image_side}",
            hint="make it smaller, or raise Limits.image_pixels",
        )


def damaged(name: str, error: Exception) -> InvalidInputError:
    """The error for a file that its decoder does not understand."""
    given = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, MemoryError):
        return InvalidInputError(f"There is not enough memory to decode {name}.", given=given)
    return InvalidInputError(f"{name} is damaged or truncated.", given=given, expected="a whole file")


def pixels_of(image: Image) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, 3] of any Pillow image: upright, in sRGB, transparency on white, 16 bits scaled to 8.

    Raises:
        UnsupportedInputError: numbers whose range cannot be known.
    """
    from PIL import Image as pillow

    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        return _from_numbers(image)
    if image.has_transparency_data:
        plain = image.convert("L" if image.mode in ("L", "LA") else "RGB")
        white = pillow.new("RGB", image.size, "white")
        white.paste(_in_srgb(plain, image.info).convert("RGB"), mask=image.convert("RGBA").getchannel("A"))
        return np.array(white)
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P":
        image = image.convert("RGB")
    return np.array(_in_srgb(image, image.info).convert("RGB"))  # a copy: Pillow's own cannot be written to


def _check_frame(name: str, data: bytes, kind: str, limits: Limits) -> int:
    """Refuses what a reader would take memory or time for before it can be asked; how often the image is drawn."""
    if kind == "webp":
        check_pixels(name, *_webp_size(data), limits)
        return 1
    parts, scans = {"jpeg": _jpeg_parts, "png": _png_parts}.get(kind, lambda _: (1, 1))(data)
    if parts >= _MOST_PARTS:
        raise InvalidInputError(f"{name} has too many parts.", given=f"{parts} or more", hint="save it again")
    return scans


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height: of the canvas, of a lossless or of a lossy picture."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _jpeg_parts(data: bytes) -> tuple[int, int]:
    """Segments and scans of a JPEG; what follows its end, such as a film, is not looked at."""
    at, scans = 2, 0
    for parts in range(_MOST_PARTS):
        found = _MARKER.search(data, at)
        if found is None or found[1] == b"\xd9":
            return parts, scans
        scans += found[1] == b"\xda"
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return _MOST_PARTS, scans


def _png_parts(data: bytes) -> tuple[int, int]:
    """Chunks of a PNG, which is drawn once."""
    at = 8
    for parts in range(_MOST_PARTS):
        if at >= len(data):
            return parts, 1
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return _MOST_PARTS, 1


def _reader(kind: str) -> Callable[[io.BytesIO, str], Image]:
    """The class that reads a format: Pillow's, or one that a plugin such as pillow-heif has registered with it."""
    if kind in _READERS:
        module, name = _READERS[kind]
        return getattr(importlib.import_module(f"PIL.{module}"), name)
    from PIL import Image as pillow

    return pillow.OPEN[kind.upper()][0]


def _upright(image: Image) -> Image:
    """Turned as its EXIF data say; ones that are damaged say nothing."""
    from PIL import Image as pillow

    orientation = None
    with contextlib.suppress(Exception):  # parsing damaged EXIF data raises whatever it likes
        orientation = image.getexif().get(0x0112)
    turns = {
        2: pillow.Transpose.FLIP_LEFT_RIGHT,
        3: pillow.Transpose.ROTATE_180,
        4: pillow.Transpose.FLIP_TOP_BOTTOM,
        5: pillow.Transpose.TRANSPOSE,
        6: pillow.Transpose.ROTATE_270,
        7: pillow.Transpose.TRANSVERSE,
        8: pillow.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _from_numbers(image: Image) -> NDArray[np.uint8]:
    """Grey of 16 bits, whole numbers of 32, or fractions from 0 to 1."""
    numbers = np.asarray(image)
    if image.mode == "F":
        right, expected, scale = bool(((numbers >= 0) & (numbers <= 1)).all()), "numbers from 0 to 1", 255.0
    else:
        right, expected, scale = numbers.min() >= 0 and numbers.max() <= 65535, "whole numbers to 65535", 255 / 65535
    if not right:
        raise UnsupportedInputError(
            "An image's pixels are numbers of an unknown range.",
            given=f"{numbers.min()} to {numbers.max()}",
            expected=expected,
            hint="scale them, and give the image as an array",
        )
    grey = np.rint(numbers.astype(np.float64) * scale).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _in_srgb(image: Image, info: Any) -> Image:
    """Through the image's colour profile, if it has one that is valid and fits; else as it is."""
    from PIL import ImageCms

    profile = info.get("icc_profile")
    if image.mode == "LAB":
        source: Any = ImageCms.createProfile("LAB")
    elif not isinstance(profile, bytes) or not 128 < len(profile) <= _LARGEST_PROFILE:
        return image
    else:
        source = io.BytesIO(profile)
    # A broken profile is common, and every viewer shows the image without it.
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        source = ImageCms.getOpenProfile(source) if isinstance(source, io.BytesIO) else source
        space = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}.get(image.mode)
        found = getattr(source, "profile", source)
        if found.xcolor_space == space and "sRGB" not in (found.profile_description or ""):
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return converted or image
    return image
