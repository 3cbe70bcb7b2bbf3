"""What `nano` sees: photos with hand-made labels, easy-vqa's test questions, and pictures asked for by their place.

    python -m benchmarks.pictures [--questions 300] [--emoji EMOJI_PACKAGE]

Photos: scikit-image and scikit-learn (in the packages), OpenCV's samples (Debian ``opencv-doc``); those that are not
there are named and left out. The baseline gives the same decoder the classes' names as text. Emoji, of an unpacked npm
``emoji-datasource-google``, are those whose names no training saw; shares are corrected for chance: (p - c) / (1 - c).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from sensorium import sdk
from sensorium.encoders.image import imagenet_labels
from sensorium.fusion.connectors.nano import picture_encoder
from sensorium.sdk.hub import resolve_part
from sensorium.training.nano.features import pooled
from sensorium.training.nano.picture_heads import Examples, accuracy
from sensorium.training.nano.pictures import drawn, emoji, is_held_out, shape_questions

from .measure import print_table

_CLASSES = 3
QUESTION = "What is in this picture?"
OPENCV = Path("/usr/share/doc/opencv-doc/examples/data")


def main() -> None:
    """Prints a table and the list of misses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--emoji", type=Path)
    arguments = parser.parse_args()
    model = sdk.load("nano")
    rows = [*_photos(model), _shapes(model, arguments.questions), _places(model, arguments.questions // 3)]
    print_table(("task", "right", "of", "share"), [(*row, f"{row[1] / row[2]:.1%}") for row in rows])
    if arguments.emoji:
        print_table(("held-out emoji", "right", "of", "chance", "corrected"), _emoji(model, arguments.emoji))


def photo_paths() -> dict[Path, list[str]]:
    """Every labelled photo that is here, with the words of which one must be in the answer."""
    import skimage
    import sklearn

    folders = {
        "skimage": Path(skimage.__file__).parent / "data",
        "sklearn": Path(sklearn.__file__).parent / "datasets" / "images",
        "opencv": OPENCV,
    }
    labels = json.loads(Path(__file__).with_name("photos.json").read_text(encoding="utf-8"))
    found = {}
    for name, words in labels.items():
        folder, _, file = name.partition("/")
        path = folders[folder] / file
        if path.is_file():
            found[path] = words
        else:
            print(f"not here: {name}")
    return found


def _photos(model: sdk.Model) -> list[tuple[str, int, int]]:
    encoder = picture_encoder(resolve_part("nano", "image-encoder"))
    right, named, photos = 0, 0, photo_paths()
    for path, words in photos.items():
        picture = sdk.Image(path)
        answer = model.ask(QUESTION, picture, max_new_tokens=24).text
        hit = any(word in answer.lower() for word in words)
        right += hit
        if not hit:
            print(f"miss: {path.name}: {answer}")
        likeliest = encoder.logits([picture.data])[0].topk(_CLASSES).indices.tolist()
        classes = ", ".join(imagenet_labels()[label] for label in likeliest)
        told = model.ask(f"A picture shows one or more of these: {classes}. {QUESTION}", max_new_tokens=24).text
        named += any(word in told.lower() for word in words)
    return [
        ("photos of ImageNet classes", right, len(photos)),
        (f"the same, the {_CLASSES} likeliest classes as text", named, len(photos)),
    ]


def _emoji(model: sdk.Model, package: Path) -> list[tuple[object, ...]]:
    """What the head takes for the name among the held-out ones and among all, and what the decoder then says."""
    pictures = emoji(package)
    held_out = [number for number, one in enumerate(pictures) if is_held_out(one.name)]
    draw = [lambda number=number: drawn(pictures[number].path, 900_000 + number) for number in held_out]
    part = Examples.of_kind(
        pooled(picture_encoder(resolve_part("nano", "image-encoder")), draw), "drawing", name=torch.tensor(held_out)
    )
    read: Any = sdk.load("nano", engine="torch", dtype="float32").engine
    heads = read.media.connector("image").heads
    counts = {
        f"head, among {len(held_out)} held-out names": (len(held_out), accuracy(heads, part, part.name)["name"]),
        f"head, among all {len(pictures)}": (len(pictures), accuracy(heads, part)["name"]),
    }
    answers = [model.ask(QUESTION, sdk.Image(make()), max_new_tokens=24).text.lower() for make in draw]
    named = [pictures[number].name in answer for number, answer in zip(held_out, answers, strict=True)]
    counts["the name in the answer"] = (len(pictures), sum(named) / len(named))
    rows = []
    for what, (names, share) in counts.items():
        corrected = (share - 1 / names) / (1 - 1 / names)
        rows.append((what, round(share * len(held_out)), len(held_out), f"{1 / names:.2%}", f"{corrected:.1%}"))
    return rows


def _shapes(model: sdk.Model, count: int) -> tuple[str, int, int]:
    chosen = random.Random(7).sample(list(shape_questions("test")), count)
    right = 0
    for entry in chosen:
        answer = model.ask(entry.question, sdk.Image(entry.picture), max_new_tokens=6).text
        right += answer.lower().strip(" .") == entry.answer
    return "easy-vqa test questions", right, count


def _places(model: sdk.Model, count: int) -> tuple[str, int, int]:
    """Two shapes of different names; the answer must name the one asked for and not the other."""
    draw, right = random.Random(8), 0
    told = {entry.picture: entry.answer for entry in shape_questions("test") if entry.answer in _SHAPES}
    pictures = sorted(told)
    for number in range(count):
        pair = draw.sample(pictures, 2)
        while told[pair[0]] == told[pair[1]]:
            pair = draw.sample(pictures, 2)
        asked = number % 2
        question = f"What is in the {('first', 'second')[asked]} image?"
        answer = model.ask(question, *map(sdk.Image, pair), max_new_tokens=16).text.lower()
        right += told[pair[asked]] in answer and told[pair[1 - asked]] not in answer
    return "first or second image", right, count


_SHAPES = ("circle", "rectangle", "triangle")

if __name__ == "__main__":
    main()
