"""What trains `nano`: spellings, questions and answers, and the samples that the decoder sees."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sensorium.encoders.text import Tokenizer
from sensorium.fusion.checkpoints.gguf_file import GGUFFile
from sensorium.fusion.connectors.clip_choice import COUNTS, EVENTS
from sensorium.fusion.connectors.picture_words import COLOURS, KINDS, SHAPES, PictureReading
from sensorium.fusion.connectors.speech_words import SpeechHead, SpeechWords
from sensorium.training.nano.clips import scene, scene_facts
from sensorium.training.nano.count_head import counted_frames
from sensorium.training.nano.questions import CAPITALS, Drawer, Item, Sample, sample
from sensorium.training.nano.speech_head import word_distance
from sensorium.training.nano.spelling import Spelling, plain_words
from sensorium.training.nano.tune import SampleEmbedder

LABELS = [f"label{letter}" for letter in "abcdefghij"]
NAMES = ["fox", "owl", "ice cream"]
SENTENCES = ["the lord said unto them, come.", "It's the end of the page.", "unto the lord of them all."] * 3


@pytest.fixture(scope="module")
def tokenizer(nano_file: Path) -> Tokenizer:
    file = GGUFFile(nano_file)
    file.close()
    return Tokenizer.from_gguf(file.metadata)


def reading(kind: str, **chosen: int) -> PictureReading:
    sizes = {"kind": len(KINDS), "label": len(LABELS), "name": len(NAMES), "shape": len(SHAPES), "colour": len(COLOURS)}
    rows = {name: torch.full((1, size), 0.01) for name, size in sizes.items()}
    for name, place in ({"kind": KINDS.index(kind)} | chosen).items():
        rows[name][0, place] = 1.0
    return PictureReading(**rows)


def drawer(seed: int) -> Drawer:
    def drawing(draw: random.Random) -> tuple[PictureReading, int]:
        name = draw.randrange(len(NAMES))
        return reading("drawing", name=name), name

    def shape(draw: random.Random) -> tuple[PictureReading, str, str]:
        shape, colour = draw.randrange(len(SHAPES)), draw.randrange(len(COLOURS))
        return reading("shape", shape=shape, colour=colour), SHAPES[shape], COLOURS[colour]

    return Drawer(LABELS, NAMES, drawing, shape, SENTENCES, random.Random(seed))


def shown(item: Item) -> str:
    """What an item of one reading shows, read off its likeliest words."""
    (one,) = item.readings
    kind = KINDS[int(one.kind.argmax())]
    if kind == "shape":
        return f"{COLOURS[int(one.colour.argmax())]} {SHAPES[int(one.shape.argmax())]}"
    return LABELS[int(one.label.argmax())] if kind == "photo" else NAMES[int(one.name.argmax())]


def test_answers_tell_what_is_shown() -> None:
    source, seen = drawer(3), Counter[str]()
    for _ in range(600):
        one = sample(source)
        items = [part for part in one.parts if isinstance(part, Item)]
        seen["+".join(item.kind for item in items)] += 1
        if items[0].kind == "audio":
            country = items[0].text.rpartition(" ")[2].rstrip("?")
            assert items[0].text == one.answer or CAPITALS[country] in one.answer
        elif items[0].kind == "image" and len(items) > 1:
            asked = next(n for n, word in enumerate(("first", "second", "third")) if word in one.answer)
            assert shown(items[asked]) in one.answer
        elif one.answer.startswith("The picture"):
            assert shown(items[0]) in one.answer
    assert min(seen.values()) > 20 and set(seen) == {"image", "image+image", "image+image+image", "video", "audio"}


def test_yes_and_no_are_right() -> None:
    source, checked = drawer(4), 0
    while checked < 60:
        one = sample(source)
        question = " ".join(part for part in one.parts if isinstance(part, str))
        if one.answer not in ("yes", "no"):
            continue
        item = next(part for part in one.parts if isinstance(part, Item))
        colour, shape = shown(item).split()
        named = any(word in question.split() or f"{word}?" in question for word in (colour, shape))
        negated = " not " in question or " no " in question
        assert one.answer == ("yes" if named != negated else "no"), question
        checked += 1


def test_shapes_can_be_asked_for_alone_and_mostly_with_yes_or_no() -> None:
    alone = replace(drawer(7), others=0, shapes=1, happenings=0)
    answers = Counter(sample(alone).answer for _ in range(300))
    assert set(answers) <= {"yes", "no", *SHAPES, *COLOURS}
    assert answers["yes"] > 90 and answers["no"] > 90 and answers["yes"] + answers["no"] < 290


def test_held_out_capitals_are_never_asked() -> None:
    source = drawer(5)
    held_out = {country for number, country in enumerate(CAPITALS) if not number % 7}
    texts = [part.text for _ in range(500) for part in sample(source).parts if isinstance(part, Item)]
    assert held_out and not any(country in text for country in held_out for text in texts if "capital" in text)


def test_every_word_can_be_spelled(tokenizer: Tokenizer) -> None:
    spelling = Spelling(tokenizer, SENTENCES)
    for sentence in (*SENTENCES, "Zyzzyva's quixotic jukebox", "o'clock"):
        words = plain_words(sentence)
        assert spelling.text(spelling.spell(words)) == " ".join(words)
    common = spelling.spell(["the"])
    assert [spelling.units[number - 1] for number in common] == tokenizer.encode(" the", add_special=False)


@pytest.mark.parametrize(
    ("heard", "said", "errors"),
    [("a b c", "a b c", 0), ("a x c", "a b c", 1), ("a c", "a b c", 1), ("", "a b", 2), ("a b c d", "b c", 2)],
)
def test_word_errors_are_counted(heard: str, said: str, errors: int) -> None:
    assert word_distance(heard.split(), said.split()) == errors


def test_runs_of_frames_become_soft_tokens() -> None:
    table = torch.eye(6)
    words = SpeechWords(None, SpeechHead(3, 2), units=[4, 1], table=table, placeholder="<x>")  # type: ignore[arg-type]
    frames = torch.tensor(
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.6, 0.3], [0.9, 0.05, 0.05], [0.1, 0.2, 0.7], [0.1, 0.7, 0.2]]
    )
    speech = words.collapsed(frames.log())
    assert speech.units == (4, 1, 4) and speech.seconds == pytest.approx((0.04, 0.16, 0.2))
    torch.testing.assert_close(speech.embeddings[0], table[4] * 0.7 / 0.9 + table[1] * 0.2 / 0.9)


def test_a_batch_of_speech_is_what_its_rows_are_alone() -> None:
    torch.manual_seed(0)
    head = SpeechHead(5, 7, width=12, blocks=2).double().eval()
    features, lengths = torch.randn(3, 21, 5, dtype=torch.float64), torch.tensor([21, 8, 13])
    features *= (torch.arange(21) < lengths[:, None])[..., None]
    together, frames = head(features, lengths)
    assert frames.tolist() == [11, 4, 7]
    for row, length in enumerate(lengths.tolist()):
        alone, _ = head(features[row : row + 1, :length], lengths[row : row + 1])
        count = int(frames[row])
        torch.testing.assert_close(together[row, :count], alone[0, :count], rtol=1e-10, atol=1e-10)


def sprite(folder: Path, colour: tuple[int, int, int]) -> Path:
    path = folder / f"{colour[0]}.png"
    Image.new("RGBA", (40, 40), (*colour, 255)).save(path)
    return path


def test_drawn_clips_show_what_their_facts_say(tmp_path: Path) -> None:
    pictures = [sprite(tmp_path, (250, 20, 20)), sprite(tmp_path, (20, 250, 20))]
    seen = Counter[str]()
    for seed in range(60):
        clip, facts = scene(pictures, seed)
        again, _ = scene(pictures, seed)
        assert again.digest == clip.digest
        seen[facts.event] += 1
        assert scene_facts(seed) == facts
        steps = np.abs(np.diff(clip.frames.astype(np.float32), axis=0)).mean((1, 2, 3))
        if facts.event == "scene change":
            assert int(steps.argmax()) == facts.pair and steps.max() > 8
        elif facts.event in ("appearing", "disappearing"):
            assert int(steps.argmax()) == facts.pair
    assert set(seen) == set(EVENTS)


def test_counted_frames_are_those_of_the_scenes(tmp_path: Path) -> None:
    pictures = [sprite(tmp_path, (250, 20, 20))]
    made, counts = counted_frames(pictures, range(80, 110))
    for seed, make, count in zip(range(80, 110), made, counts, strict=True):
        clip, facts = scene(pictures, seed, frames=2)
        np.testing.assert_array_equal(make(), clip.frames[seed % 2])
        hidden = {"appearing": 0, "disappearing": 1}.get(facts.event) == seed % 2
        assert count == facts.things - hidden


class NoPictures:
    """A connector whose pictures are two rows of minus ones."""

    def words(self, reading: PictureReading, row: int) -> torch.Tensor:
        return -torch.ones(2, 4)


def test_samples_read_like_prompts_of_the_connectors(tokenizer: Tokenizer) -> None:
    table = torch.rand(tokenizer.vocabulary_size, 4)
    decoder = SimpleNamespace(model=SimpleNamespace(embed_tokens=SimpleNamespace(weight=table)))
    embedder = SampleEmbedder(decoder, tokenizer, NoPictures())  # type: ignore[arg-type]
    clip = Item("video", (reading("photo", label=1),), (0.0,), "the lord said", things=torch.eye(len(COUNTS))[2])
    embedded, answer = embedder(Sample(("What is said?", clip), "the lord said"))
    said = tokenizer.encode("the lord said", add_special=False)
    assert answer == [*said, tokenizer.eos_id]
    rows = {int(n) for n in (embedded == -1).all(1).nonzero()}
    assert len(rows) == 2 and max(rows) - min(rows) == 1
    # Behind the frame's words come what frames the speech, its tokens' own embeddings, and the quote that ends it.
    after = embedded[max(rows) + 1 :]
    opening = tokenizer.encode(') The speech says: "', add_special=False)
    torch.testing.assert_close(after[: len(opening)], table[opening])
    torch.testing.assert_close(after[len(opening) : len(opening) + len(said)], table[said])
    assert tokenizer.decode([int((table == after[len(opening) + len(said)]).all(1).nonzero())]) == '"'


def test_clips_are_asked_what_is_said_in_them() -> None:
    source = drawer(6)
    samples = [sample(source) for _ in range(400)]
    spoken = [(one, part) for one in samples for part in one.parts if isinstance(part, Item) and part.text]
    assert {part.kind for _, part in spoken} == {"audio", "video"}
    assert any(part.kind == "video" and one.answer == part.text for one, part in spoken)
    assert any(part.kind == "video" and one.answer != part.text for one, part in spoken)
