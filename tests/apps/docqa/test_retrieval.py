"""Keyword search, fusion and the search over a store."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensorium.apps.docqa import Library
from sensorium.apps.docqa.bm25 import Bm25
from sensorium.apps.docqa.retrieval import fuse
from sensorium.sdk import InvalidInputError

WORDS = st.lists(st.sampled_from(["red", "blue", "green", "dog", "cat"]), max_size=8)


def plain_bm25(texts: list[list[str]], query: list[str], index: int) -> float:
    """The formula, word by word."""
    mean = sum(map(len, texts)) / len(texts) or 1.0
    score = 0.0
    for word in set(query):
        n, f = sum(word in text for text in texts), texts[index].count(word)
        weight = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
        score += weight * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * len(texts[index]) / mean)) if f else 0.0
    return score


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS)
def test_scores_are_those_of_the_formula(texts: list[list[str]], query: list[str]) -> None:
    index = Bm25([" ".join(text) for text in texts])
    expected = [plain_bm25(texts, query, number) for number in range(len(texts))]
    np.testing.assert_allclose(index.scores(" ".join(query)), expected, rtol=1e-6)
    best = sorted((score for score in index.scores(" ".join(query)) if score > 0), reverse=True)[:3]
    assert [score for _, score in index.search(" ".join(query), 3)] == best


def test_ties_keep_their_order_and_strangers_are_not_found() -> None:
    index = Bm25(["a red dog", "a red cat", "nothing"])
    assert [number for number, _ in index.search("red", 5)] == [0, 1]
    assert index.search("unknown", 5) == []
    assert Bm25([]).search("red", 5) == []


def test_fusion_of_ranks() -> None:
    fused = fuse([["b", "a", "c"], ["a", "d"]])
    assert [name for name, _ in fused] == ["a", "b", "d", "c"]
    assert fused[0][1] == pytest.approx(1 / 62 + 1 / 61)
    assert [name for name, _ in fuse([["z"], ["y"]])] == ["y", "z"]  # equal ones by name


def test_a_search_finds_meaning_and_words(library: Library, write: Callable[..., Path]) -> None:
    texts = ["The cat sleeps on the sofa.", "Invoice RX-4711 was paid in March.", "Bread is made of flour."]
    list(library.add([write(f"{number}.txt", text) for number, text in enumerate(texts)]))
    assert library.search("Where does the kitten nap?").hits[0].passage.text == texts[0]
    assert library.search("RX-4711").hits[0].passage.text == texts[1]
    found = library.search("What is bread made of?", k=2)
    assert found.hits[0].passage.text == texts[2]
    assert found.hits[0].cosine == pytest.approx(found.best_cosine)
    assert len(found.hits) == 2
    assert library.search("What is bread made of?", k=2) == found


def test_a_search_sees_what_was_added_since(library: Library, write: Callable[..., Path]) -> None:
    assert library.search("anything").hits == ()
    assert library.search("anything").best_cosine == -1
    list(library.add([write("a.txt", "Badgers dig tunnels.")]))
    assert len(library.search("badgers").hits) == 1
    library.remove(["a.txt"])
    assert library.search("badgers").hits == ()


@pytest.mark.parametrize(("question", "k"), [("", 5), (" \n", 5), ("x", 0), ("x", 51)])
def test_searches_that_make_no_sense(library: Library, question: str, k: int) -> None:
    with pytest.raises(InvalidInputError, match="nothing to search"):
        library.search(question, k)
