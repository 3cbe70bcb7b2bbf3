"""Long texts for `nano` to copy: their lengths, what is alike in them, how they are heard, and how they are learned."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sensorium.encoders.text import Tokenizer
from sensorium.fusion.checkpoints.gguf_file import GGUFFile
from sensorium.fusion.connectors.layouts import clock
from sensorium.training.nano import tune
from sensorium.training.nano.long_speech import MOST_WORDS, long_text, segments
from sensorium.training.nano.questions import Drawer, Item, Sample, sample
from sensorium.training.nano.tune import Keep, SampleEmbedder

SENTENCES = ["The lord said unto them, come.", "open the page with your own hand!", "Why do dogs bark at the moon?"]


@pytest.fixture(scope="module")
def tokenizer(nano_file: Path) -> Tokenizer:
    file = GGUFFile(nano_file)
    file.close()
    return Tokenizer.from_gguf(file.metadata)


def texts(count: int) -> list[str]:
    draw = random.Random(5)
    return [long_text(draw, SENTENCES) for _ in range(count)]


def test_texts_are_long_and_made_of_the_sentences_words() -> None:
    known = set(re.findall(r"[a-z]+", " ".join(SENTENCES).lower())) | {"and"}
    lengths = []
    for text in texts(200):
        lengths.append(len(text.split()))
        assert set(re.findall(r"[a-z]+", text.lower())) <= known
        assert text[0].isupper()
    assert max(lengths) == MOST_WORDS and min(lengths) < 30


def test_in_half_of_them_many_clauses_of_one_sentence_begin_alike() -> None:
    def alike(text: str) -> int:
        """How often the commonest two words at the beginning of a clause come in one sentence."""
        sentences = re.split(r"[.?!]", text.lower())
        beginnings = [Counter(" ".join(c.split()[:2]) for c in re.split(r"[,;]", one)) for one in sentences]
        return max(max(counter.values()) for counter in beginnings)

    found = [alike(text) for text in texts(200)]
    assert sum(count >= 3 for count in found) > 60 and max(found) >= 7


def test_segments_are_the_text_in_the_order_of_time() -> None:
    draw = random.Random(6)
    for text in texts(60):
        found = segments(draw, text)
        assert " ".join(part for _, part in found) == text
        begins = [begin for begin, _ in found]
        assert begins[0] == 0 and begins == sorted(set(begins))
        assert max(len(part.split()) for _, part in found) <= 20


def embedder_of(tokenizer: Tokenizer) -> tuple[SampleEmbedder, torch.Tensor]:
    table = torch.rand(tokenizer.vocabulary_size, 4)
    decoder: Any = SimpleNamespace(model=SimpleNamespace(embed_tokens=SimpleNamespace(weight=table)))
    pictures: Any = None
    return SampleEmbedder(decoder, tokenizer, pictures), table


@pytest.mark.parametrize(("begins", "marked"), [((0.0, 4.6, 21.2), True), ((0.0, 4.6, 9.8), False)])
def test_long_speech_reads_as_the_connector_shows_it(
    tokenizer: Tokenizer, begins: tuple[float, ...], marked: bool
) -> None:
    embedder, table = embedder_of(tokenizer)
    parts = tuple(zip(begins, ("Come unto them.", "Open the page.", "Why?"), strict=True))
    said = " ".join(part for _, part in parts)
    embedded, answer = embedder(Sample(("What is said?", Item("audio", text=said, segments=parts)), said))
    assert answer == [*tokenizer.encode(said, add_special=False), tokenizer.eos_id]
    tokens = [int((table == row).all(1).nonzero()[0]) for row in embedded[: len(embedded) - len(answer)]]
    shown = "".join((f" [{clock(begin)}] " if marked else "") + part for begin, part in parts)
    assert f'The speech says: "{shown}"' in tokenizer.decode(tokens)


def test_batches_are_of_rows_of_like_length(tokenizer: Tokenizer) -> None:
    embedder, _ = embedder_of(tokenizer)
    nothing: Any = None
    drawer = Drawer([], [], nothing, nothing, SENTENCES, random.Random(8), others=0, shapes=0, happenings=0, speeches=1)
    source = tune.batches(embedder, drawer, samples=24, tokens=600)
    rows, batches = 0, []
    while rows < 24:
        batches.append([len(row) for row, _ in next(source)])
        rows += len(batches[-1])
    assert rows == 24 and len(batches) > 4
    assert all(sum(lengths) <= 600 or len(lengths) == 1 for lengths in batches)
    spans = sorted((min(lengths), max(lengths)) for lengths in batches)
    assert all(longest <= shortest for (_, longest), (shortest, _) in pairwise(spans))


def test_long_speech_is_answered_by_all_that_was_said() -> None:
    nothing: Any = None
    drawer = Drawer([], [], nothing, nothing, SENTENCES, random.Random(9), others=0, shapes=0, happenings=0, speeches=1)
    one = sample(replace(drawer, speeches=2))
    (item,) = (part for part in one.parts if isinstance(part, Item))
    assert one.answer == item.text == " ".join(text for _, text in item.segments)


def test_what_is_learned_is_written_at_times() -> None:
    written: list[int] = []
    keep = Keep(lambda: written.append(len(written)), seconds=60)
    for elapsed in (10, 59, 61, 70, 119, 121, 400, 410, 425):
        keep(elapsed)
    assert written == [0, 1, 2, 3]
