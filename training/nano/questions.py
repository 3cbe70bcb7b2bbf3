"""Questions about pictures, clips and speech with their answers, as the decoder sees them, to tune `nano` on.

Nothing here needs a picture: photos are imitated by doubtful distributions over ImageNet's labels, drawings and shapes
are read off cached features of training pictures.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...fusion.connectors.clip_choice import COUNTS, EVENTS, Event
from ...fusion.connectors.layouts import clock
from ...fusion.connectors.picture_words import COLOURS, KINDS, SHAPES, PictureReading
from .long_speech import long_text, segments

__all__ = ["CAPITALS", "Drawer", "Item", "Sample", "sample"]

_WHAT = (
    "What is in this picture?",
    "What is this?",
    "What do you see?",
    "What does the picture show?",
    "Describe the image.",
    "What is in the image?",
    "Tell me what is in this photo.",
    "What can you see in this picture?",
)
_PLACES = ("first", "second", "third")
_TRANSCRIBE = (
    "Transcribe the speech.",
    "What does the speaker say?",
    "Write down what is said.",
    "What was said?",
    "Repeat what you hear.",
    "What is said?",
)
_ANSWER = ("Answer the question in the recording.", "Answer the spoken question.", "Please answer.", "")

#: Countries and capitals to ask for; every seventh is held out.
CAPITALS: dict[str, str] = {
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Poland": "Warsaw",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Turkey": "Ankara",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Hungary": "Budapest",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Ireland": "Dublin",
    "Canada": "Ottawa",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Argentina": "Buenos Aires",
    "Kenya": "Nairobi",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One medium of a sample: a picture with its reading, or what was said.

    Attributes:
        kind: ``image``, ``video`` or ``audio``.
        readings: of the picture, or of the clip's frames.
        seconds: of the frames.
        text: that was said, in a sound or in the clip.
        events: of the clip.
        things: probabilities of `COUNTS` in it.
        segments: of long speech, where each begins in seconds, and its part of the text; else none.
    """

    kind: str
    readings: tuple[PictureReading, ...] = ()
    seconds: tuple[float, ...] = ()
    text: str = ""
    events: tuple[Event, ...] = ()
    things: Tensor | None = None
    segments: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """Content parts of the user's message, texts and items in order, and the answer."""

    parts: tuple[str | Item, ...]
    answer: str


@dataclass(frozen=True)
class Drawer:
    """Where samples are drawn from.

    Attributes:
        labels, names: of photos and of drawings.
        drawing: a training drawing's reading and the number of its name.
        shape: a training shape's reading with its shape and colour.
        sentences: to be said.
        draw: random numbers.
        others, shapes, happenings, speeches: how often the eight other tasks, questions about shapes, those about what
            happens in clips, and long recordings come in a round.
    """

    labels: list[str]
    names: list[str]
    drawing: Callable[[random.Random], tuple[PictureReading, int]]
    shape: Callable[[random.Random], tuple[PictureReading, str, str]]
    sentences: list[str]
    draw: random.Random = field(default_factory=lambda: random.Random(1))
    others: int = 1
    shapes: int = 2
    happenings: int = 3
    speeches: int = 0

    def photo(self) -> tuple[PictureReading, str]:
        """A photo that is not there: one label likely, a few others less so."""
        label = self.draw.randrange(len(self.labels))
        others = self.draw.sample(range(len(self.labels)), 6)
        sure = self.draw.uniform(0.2, 0.95)
        label_row = torch.full((1, len(self.labels)), 0.05 * (1 - sure) / len(self.labels))
        shares = torch.tensor([self.draw.random() ** 2 for _ in others])
        # Second places stay below the first, as they do where the classifier is right.
        shares = (shares / shares.sum() * 0.95 * (1 - sure)).clamp(max=0.8 * sure)
        label_row[0, others] += shares
        label_row[0, label] += sure
        return _reading("photo", label_row / label_row.sum(), len(self.names)), self.labels[label]


def sample(drawer: Drawer) -> Sample:
    """One sample of a random task."""
    draw = drawer.draw
    tasks = (_one_picture, _one_picture, _several, _several, _clip, _speech, _speech, _spoken_question)
    shares = {_shape: drawer.shapes, _happening: drawer.happenings, _long_speech: drawer.speeches}
    return draw.choice((*tasks * drawer.others, *(task for task in shares for _ in range(shares[task]))))(drawer)


def _reading(kind: str, label: Tensor, names: int) -> PictureReading:
    kinds = torch.full((1, len(KINDS)), 0.01)
    kinds[0, KINDS.index(kind)] = 0.98
    flat = [torch.full((1, count), 1 / count) for count in (names, len(SHAPES), len(COLOURS))]
    return PictureReading(kinds, label, *flat)


def _with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _picture(drawer: Drawer) -> tuple[Item, str]:
    """A random picture and how it is named in an answer."""
    chance = drawer.draw.random()
    if chance < 0.5:
        reading, label = drawer.photo()
        return Item("image", (reading,)), _with_article(label)
    if chance < 0.8:
        reading, number = drawer.drawing(drawer.draw)
        return Item("image", (reading,)), f"a drawing of {_with_article(drawer.names[number])}"
    reading, shape, colour = drawer.shape(drawer.draw)
    return Item("image", (reading,)), _with_article(f"{colour} {shape}")


def _in_order(drawer: Drawer, question: str, *items: Item) -> tuple[str | Item, ...]:
    """The question before or behind the media."""
    return (question, *items) if drawer.draw.random() < 0.6 else (*items, question)


def _one_picture(drawer: Drawer) -> Sample:
    item, name = _picture(drawer)
    return Sample(_in_order(drawer, drawer.draw.choice(_WHAT), item), f"The picture shows {name}.")


def _shape(drawer: Drawer) -> Sample:
    """A question as easy-vqa asks it, answered in one word."""
    draw = drawer.draw
    reading, shape, colour = drawer.shape(draw)
    item = Item("image", (reading,))
    ask = draw.randrange(12)  # two of twelve ask for a word; yes and no, which are hard to learn, answer the others
    if ask == 0:
        forms = ("what shape is in the image?", "what shape is present?", "what shape does the image contain?")
        colour_forms = (f"what is the {colour} shape?", f"what shape is {colour}?")
        return Sample(_in_order(drawer, draw.choice((*forms, *colour_forms)), item), shape)
    if ask == 1:
        forms = ("what color is the {}?", "what is the color of the {}?", "what colour is the {}?")
        return Sample(_in_order(drawer, draw.choice(forms).format(draw.choice(("shape", shape))), item), colour)
    right = draw.random() < 0.5
    named = draw.choice((f"{_other(draw, COLOURS, colour, right)} shape", _other(draw, SHAPES, shape, right)))
    positive = ("is there a {}?", "is there a {} in the image?", "is a {} present?", "does the image contain a {}?")
    negative = ("is there not a {}?", "is no {} present?", "is there not a {} in the image?")
    negative += ("does the image not contain a {}?",)
    negated = draw.random() < 0.5
    question = draw.choice(negative if negated else positive).format(named)
    return Sample(_in_order(drawer, question, item), "yes" if right != negated else "no")


def _other(draw: random.Random, words: tuple[str, ...], word: str, right: bool) -> str:
    return word if right else draw.choice([other for other in words if other != word])


def _several(drawer: Drawer) -> Sample:
    """Two or three pictures, and one of them asked for by its place."""
    pictures = [_picture(drawer) for _ in range(drawer.draw.choice((2, 2, 3)))]
    asked = drawer.draw.randrange(len(pictures))
    word = drawer.draw.choice(("image", "picture"))
    form = drawer.draw.choice(("What is in the {} {}?", "What does the {} {} show?", "Describe the {} {}."))
    question, answer = form.format(_PLACES[asked], word), f"The {_PLACES[asked]} {word} shows {pictures[asked][1]}."
    return Sample(_in_order(drawer, question, *(item for item, _ in pictures)), answer)


def _clip(drawer: Drawer) -> Sample:
    """A clip of one or two scenes; what it shows, or when it changes."""
    scenes = [_picture(drawer) for _ in range(drawer.draw.choice((1, 2)))]
    change = round(drawer.draw.uniform(0.5, 20), 1)
    readings = tuple(item.readings[0] for item, _ in scenes)
    seconds, things = (0.0, change)[: len(scenes)], _doubtful(drawer, len(COUNTS), drawer.draw.randrange(len(COUNTS)))
    cut = Event(change, _doubtful(drawer, len(EVENTS), EVENTS.index("scene change")).numpy())
    events = (cut,) if len(scenes) == 2 and drawer.draw.random() < 0.9 else ()
    item = Item("video", readings, seconds, _said_in_clip(drawer), events, things)
    if item.text and drawer.draw.random() < 0.4:
        return Sample(_in_order(drawer, drawer.draw.choice(_TRANSCRIBE), item), item.text)
    names = [name for _, name in scenes]
    if len(scenes) == 2 and drawer.draw.random() < 0.5:
        answer = f"At {clock(change, decimals=1)}, from {names[0]} to {names[1]}."
        return Sample(_in_order(drawer, "When does the scene change?", item), answer)
    question = drawer.draw.choice(("What is in this clip?", "What does the video show?", "Describe the clip."))
    return Sample(_in_order(drawer, question, item), f"The clip shows {', then '.join(names)}.")


_FRAME = 0.5  # seconds from one frame of a clip to the next
_WHITHER = (
    "Which way does it move?",
    "In which direction does the object move?",
    "Where does the thing move to?",
    "Which direction is it moving in?",
)
_HAPPENS = ("What happens in the clip?", "What happens in this video?", "Does something appear or disappear?")
_HOW_MANY = (
    "How many things are in the clip?",
    "How many objects are there?",
    "How many things can you see?",
    "How many objects does the video show?",
)


def _happening(drawer: Drawer) -> Sample:
    """A clip in which something moves, appears, vanishes or stands still: what, where to, when, or how many."""
    draw = drawer.draw
    # Frames are read anew each time, and what they seem to show may differ.
    readings = tuple(_picture(drawer)[0].readings[0] for _ in range(draw.choice((1, 1, 2, 3, 4))))
    seconds = tuple(_FRAME * number for number in range(len(readings)))
    kind, count = (
        draw.choice([event for event in EVENTS if event != "scene change"]),
        draw.randrange(1, len(COUNTS) - 1),
    )
    at = 0.0 if kind.startswith("moving") else _FRAME * draw.randint(1, 8)
    events = () if kind == "still" else (Event(at, _doubtful(drawer, len(EVENTS), EVENTS.index(kind)).numpy()),)
    item = Item("video", readings, seconds, _said_in_clip(drawer), events, _doubtful(drawer, len(COUNTS), count))
    told = {"still": "Nothing moves.", "appearing": f"Something appears at {clock(at, decimals=1)}."}
    told |= {"disappearing": f"Something disappears at {clock(at, decimals=1)}."}
    direction = kind.split()[-1]
    what = told.get(kind, f"It moves {direction}.")
    asked = draw.choice(("many", "whither", "happens"))
    if asked == "many":
        return Sample(_in_order(drawer, draw.choice(_HOW_MANY), item), f"There {_IS_ARE[count]}.")
    if asked == "whither":
        answer = what if kind.startswith("moving") or kind == "still" else f"It does not move. {what}"
        return Sample(_in_order(drawer, draw.choice(_WHITHER), item), answer)
    forms = _HAPPENS
    if kind in ("appearing", "disappearing"):
        forms += (f"When does something {kind.removesuffix('ing')}?",)
    return Sample(_in_order(drawer, draw.choice(forms), item), what)


_IS_ARE = ("are no things", "is one thing", "are two things", "are three things", "are four things")


def _doubtful(drawer: Drawer, count: int, right: int) -> Tensor:
    """Probabilities [count] of a classifier that is right, more or less surely."""
    sure = drawer.draw.uniform(0.6, 1.0)
    others = torch.tensor([drawer.draw.random() for _ in range(count)])
    others[right] = 0.0
    probabilities = others / others.sum() * (1 - sure)
    probabilities[right] = sure
    return probabilities


def _said(drawer: Drawer) -> str:
    said = drawer.draw.choice(drawer.sentences)
    return said[0].upper() + said[1:]


def _said_in_clip(drawer: Drawer) -> str:
    """Every third clip has speech."""
    return _said(drawer) if drawer.draw.random() < 1 / 3 else ""


def _speech(drawer: Drawer) -> Sample:
    said = _said(drawer)
    return Sample(_in_order(drawer, drawer.draw.choice(_TRANSCRIBE), Item("audio", text=said)), said)


def _long_speech(drawer: Drawer) -> Sample:
    """A text in which much is alike, and nothing is to be left out."""
    said = long_text(drawer.draw, drawer.sentences)
    item = Item("audio", text=said, segments=segments(drawer.draw, said))
    return Sample(_in_order(drawer, drawer.draw.choice(_TRANSCRIBE), item), said)


def _spoken_question(drawer: Drawer) -> Sample:
    """A question that is spoken, and answered."""
    country = drawer.draw.choice([name for number, name in enumerate(CAPITALS) if number % 7])
    item = Item("audio", text=f"What is the capital of {country}?")
    instruction = drawer.draw.choice(_ANSWER)
    parts = _in_order(drawer, instruction, item) if instruction else (item,)
    return Sample(parts, f"The capital of {country} is {CAPITALS[country]}.")
