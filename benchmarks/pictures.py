"""What `nano` sees: photos with hand-made labels, easy-vqa's test questions, and pictures asked for by their place.

    python -m benchmarks.pictures [--questions 300]

Photos: scikit-image and scikit-learn (in the packages), OpenCV's samples (Debian ``opencv-doc``); those that are not
there are named and left out. The baseline gives the same decoder the classes' names as text.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from sensorium import sdk
from sensorium.encoders.image import imagenet_labels
from sensorium.fusion.connectors.nano import picture_encoder
from sensorium.sdk.hub import resolve_part
from sensorium.training.nano.pictures import shape_questions

from .measure import print_table

_CLASSES = 3
QUESTION = "What is in this picture?"
OPENCV = Path("/usr/share/doc/opencv-doc/examples/data")


def main() -> None:
    """Prints a table and the list of misses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    model = sdk.load("nano")
    rows = [*_photos(model), _shapes(model, arguments.questions), _places(model, arguments.questions // 3)]
    print_table(("task", "right", "of", "share"), [(*row, f"{row[1] / row[2]:.1%}") for row in rows])


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
