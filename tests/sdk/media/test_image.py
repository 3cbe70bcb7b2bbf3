"""Images: the right pixels from every mode and format, and an error from everything else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as pillow
from PIL import ImageCms
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk.media import Image, Limits
from sensorium.sdk.media.image import open_image
from sensorium.sdk.media.source import Blob

Pixels = NDArray[np.uint8]


def decoded(data: bytes, **limits: Any) -> Pixels:
    return Image(data, limits=Limits(**limits)).data.pixels


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_same_pixels(kind: str, image_bytes: Any, pixels: Pixels) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decoded(image_bytes(pixels, kind, **options)), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_formats_give_nearly_the_same_pixels(kind: str, image_bytes: Any, pixels: Pixels) -> None:
    found = decoded(image_bytes(pixels, kind, quality=95))
    assert np.abs(found.astype(int) - pixels).mean() < 5
    assert found.flags.writeable and found.flags.c_contiguous


# What a camera that was held so writes for an upright picture: from it, how to get back.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(kind: str, orientation: int, image_bytes: Any, pixels: Pixels) -> None:
    exif = pillow.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    found = decoded(image_bytes(stored, kind, exif=exif, **options))
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).max() <= (4 if kind == "JPEG" else 0)


def test_damaged_exif_is_passed_over(image_bytes: Any, pixels: Pixels) -> None:
    data = image_bytes(pixels, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(decoded(data), pixels)


def test_transparency_is_put_on_white(image_bytes: Any) -> None:
    rgba = np.zeros((3, 5, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[..., 3] = [0, 64, 128, 192, 255]
    found = decoded(image_bytes(rgba, "PNG"))
    alpha = rgba[..., 3:] / 255
    assert np.abs(found - (rgba[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1
    grey = np.stack([np.full((3, 5), 100, np.uint8), rgba[..., 3]], axis=2)
    found = decoded(image_bytes(pillow.merge("LA", _bands(grey)), "PNG"))
    assert found[0, :, 1].tolist() == [255, 216, 177, 138, 100]


def _bands(array: Pixels) -> list[pillow.Image]:
    return [pillow.fromarray(np.ascontiguousarray(array[..., band])) for band in range(array.shape[2])]


def test_a_transparent_colour_is_put_on_white(image_bytes: Any) -> None:
    rgb = np.full((3, 5, 3), 10, np.uint8)
    rgb[0, 0] = (1, 2, 3)
    found = decoded(image_bytes(rgb, "PNG", transparency=(1, 2, 3)))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [10, 10, 10]


def test_palettes_with_and_without_transparency(image_bytes: Any) -> None:
    image = pillow.new("P", (7, 5), 1)
    image.putpalette([9, 9, 9, 30, 60, 90, 7, 7, 7])
    image.putpixel((0, 0), 2)
    assert decoded(image_bytes(image, "PNG"))[0].tolist() == [[7, 7, 7]] + [[30, 60, 90]] * 6
    found = decoded(image_bytes(image, "PNG", transparency=b"\xff\xff\x00"))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == [30, 60, 90]


def test_grey_and_black_and_white(image_bytes: Any) -> None:
    grey = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
    assert np.array_equal(decoded(image_bytes(grey, "PNG")), np.repeat(grey[..., None], 3, axis=2))
    bits = pillow.fromarray(grey).convert("1", dither=pillow.Dither.NONE)
    assert np.array_equal(decoded(image_bytes(bits, "PNG"))[..., 0], np.where(grey >= 128, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(kind: str, image_bytes: Any) -> None:
    grey = np.array([[0, 128, 257, 12850, 40000, 65535]], np.uint16)
    found = decoded(image_bytes(pillow.fromarray(grey), kind))
    assert found[0, :, 0].tolist() == [0, 0, 1, 50, 156, 255]


def test_sixteen_bits_of_colour() -> None:
    import cv2

    rgb = (np.arange(3 * 5 * 3).reshape(3, 5, 3) * 1456).astype(np.uint16)
    data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    assert np.abs(decoded(data).astype(int) - rgb / 257).max() <= 1


def test_fractions_and_unknown_ranges(image_bytes: Any) -> None:
    fractions = np.array([[0.0, 0.25, 1.0]], np.float32)
    assert decoded(image_bytes(pillow.fromarray(fractions), "TIFF"))[0, :, 2].tolist() == [0, 64, 255]
    for numbers in (fractions * 300, fractions * np.float32(np.nan), np.array([[0, 70000]], np.int32)):
        with pytest.raises(UnsupportedInputError, match="unknown range"):
            decoded(image_bytes(pillow.fromarray(numbers), "TIFF"))


def test_cmyk_of_printers_is_not_inverted(image_bytes: Any) -> None:
    colours = pillow.new("RGB", (16, 16), (220, 40, 90))
    for kind in ("JPEG", "TIFF"):
        # Pillow writes CMYK JPEG files as Adobe does, inverted.
        found = decoded(image_bytes(colours.convert("CMYK"), kind, **({"quality": 100} if kind == "JPEG" else {})))
        assert np.abs(found.astype(int) - (220, 40, 90)).max() <= 4


def test_a_colour_profile_is_applied(image_bytes: Any) -> None:
    swapped = _profile_with_swapped_primaries()
    found = decoded(image_bytes(np.full((4, 4, 3), (250, 10, 10), np.uint8), "PNG", icc_profile=swapped))
    assert found[0, 0, 1] > 200 > 100 > found[0, 0, 0]  # what the profile calls red is green


def _profile_with_swapped_primaries() -> bytes:
    """An sRGB profile in which the tags of the red and the green primary have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = profile.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")
    return bytes(profile.replace(b"s\0R\0G\0B", b"o\0d\0d\0!").replace(b"sRGB", b"odd!"))


@pytest.mark.parametrize("profile", [b"x" * 500, b"", b"\0" * 5000])
def test_a_broken_colour_profile_is_passed_over(profile: bytes, image_bytes: Any, pixels: Pixels) -> None:
    assert np.array_equal(decoded(image_bytes(pixels, "PNG", icc_profile=profile)), pixels)


def test_an_srgb_profile_changes_nothing(image_bytes: Any, pixels: Pixels) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decoded(image_bytes(pixels, "PNG", icc_profile=profile)), pixels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_of_several_pictures_an_image_is_the_first(kind: str, image_bytes: Any) -> None:
    frames = [pillow.new("RGB", (8, 6), (shade, shade, shade)) for shade in (10, 120, 240)]
    data = image_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decoded(data)[0, 0, 0] == pytest.approx(10, abs=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 60000), (60000, 1)])
def test_extreme_shapes(size: tuple[int, int], image_bytes: Any) -> None:
    data = image_bytes(pillow.new("L", size, 77), "PNG")
    found = Image(data).data
    assert (found.width, found.height) == size
    assert (found.pixels == 77).all()


def bomb(width: int, height: int) -> bytes:
    """A PNG of nothing but black, in few bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    data = bomb(18_000, 18_000)
    assert len(data) < 60_000
    with pytest.raises(InvalidInputError, match="too many pixels") as caught:
        decoded(data)
    assert "324000000" in str(caught.value) and "40000000" in str(caught.value)


def test_limits_of_pixels_and_sides_and_bytes(image_bytes: Any, pixels: Pixels) -> None:
    data = image_bytes(pixels, "PNG")
    assert decoded(data, image_pixels=11 * 17).shape == (11, 17, 3)
    for limits in ({"image_pixels": 11 * 17 - 1}, {"image_side": 16}):
        with pytest.raises(InvalidInputError, match="too many pixels"):
            decoded(data, **limits)
    with pytest.raises(InvalidInputError, match="too large"):
        decoded(data, file_bytes=len(data) - 1)


def test_a_large_webp_is_refused_before_its_reader_takes_memory(image_bytes: Any, pixels: Pixels) -> None:
    frames = [pillow.fromarray(pixels), pillow.fromarray(255 - pixels)]
    data = bytearray(image_bytes(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = (16382).to_bytes(3, "little") * 2
    for damaged in (bytes(data), image_bytes(pixels, "WEBP", lossless=True)[:21] + b"\xff" * 40):
        with pytest.raises(InvalidInputError, match="too many pixels"):
            open_image(Blob("x.webp", damaged), "webp")


def test_a_jpeg_that_is_drawn_over_and_over_is_refused(image_bytes: Any, pixels: Pixels) -> None:
    data = image_bytes(pillow.fromarray(pixels).resize((512, 512)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    again = data[:-2] + data[last:-2] * 3000 + data[-2:]
    with pytest.raises(InvalidInputError, match="over and over"):
        decoded(again)
    # What follows the end, as a film does in the photos of some phones, is no scan.
    assert decoded(data + b"\xff\xda" * 5000).shape == (512, 512, 3)


def test_an_image_of_very_many_parts_is_refused(image_bytes: Any, pixels: Pixels) -> None:
    png, jpeg = image_bytes(pixels, "PNG"), image_bytes(pixels, "JPEG")
    chunk = b"\0\0\0\0aaAa" + zlib.crc32(b"aaAa").to_bytes(4, "big")
    for before, part, after in ((png[:33], chunk, png[33:]), (jpeg[:2], b"\xff\xfe\0\2", jpeg[2:])):
        assert decoded(before + part * 1000 + after).shape == pixels.shape
        with pytest.raises(InvalidInputError, match="too many parts"):
            decoded(before + part * 100_000 + after)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_truncated_image_is_an_error(kind: str, kept: float, image_bytes: Any) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    data = image_bytes(noise, kind)
    with pytest.raises(InvalidInputError) as caught:
        decoded(data[: int(len(data) * kept)])
    assert "way out" in str(caught.value) or "expected" in str(caught.value)


def test_a_name_is_not_believed(tmp_path: Path, image_bytes: Any, pixels: Pixels) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(image_bytes(pixels, "PNG"))
    assert np.array_equal(Image(path).data.pixels, pixels)
    path.write_bytes(b"%!PS-Adobe-3.0\nshowpage")
    with pytest.raises(UnsupportedInputError, match="PostScript"):
        _ = Image(path).data


def test_other_files_are_refused_by_name(sound_bytes: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"is not an image[\s\S]*sdk.Audio"):
        decoded(sound_bytes(np.zeros(100, np.float32), 8000))
    with pytest.raises(InvalidInputError, match=r"is not an image[\s\S]*SVG"):
        decoded(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>')
    with pytest.raises(UnsupportedInputError, match="unknown format"):
        decoded(bytes(range(128, 256)))
    with pytest.raises(UnsupportedInputError, match="reads no HEIF"):
        decoded(b"\0\0\0\x18ftypheic" + bytes(100))


def test_pixels_are_decoded_once(image_bytes: Any, pixels: Pixels) -> None:
    image = Image(image_bytes(pixels, "PNG"))
    assert image.data is image.data
    buffer = io.BytesIO(image_bytes(pixels, "PNG"))
    assert image.data.digest == Image(pillow.open(buffer)).data.digest == Image(pixels).data.digest
