"""The evaluation's documents and questions, and what is found for them."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest
from sensorium import sdk
from sensorium.apps.docqa import Library, read_document


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    """The folder of the documents."""
    return root / "tests" / "data" / "docqa"


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_span_stands_in_its_document(data: Path) -> None:
    questions = tomllib.loads((data / "questions.toml").read_text(encoding="utf-8"))["question"]
    answerable = [question for question in questions if "span" in question]
    assert len(answerable) >= 40 and len(questions) - len(answerable) == 12
    texts = {name: flat(read_document(data / name).text) for name in {each["document"] for each in answerable}}
    assert [each["text"] for each in answerable if flat(each["span"]) not in texts[each["document"]]] == []
    assert Counter(read_document(data / name).format for name in texts) == {
        "text": 5,
        "html": 3,
        "markdown": 1,
        "pdf": 1,
        "docx": 1,
    }
    assert sum(path.stat().st_size for path in data.iterdir()) < 400_000


@pytest.mark.slow
def test_the_span_is_among_the_five_best_passages(data: Path, tmp_path: Path, embedder: sdk.Embedder) -> None:
    library = Library(tmp_path / "store", embedder)
    files = sorted(path for path in data.iterdir() if path.name not in ("README.md", "questions.toml"))
    assert {added.outcome for added in library.add(files)} == {"added"}
    missed = []
    for question in tomllib.loads((data / "questions.toml").read_text(encoding="utf-8"))["question"]:
        if "span" not in question:
            continue
        passages = [hit.passage for hit in library.search(question["text"]).hits]
        if not any(flat(question["span"]) in flat(passage.text) for passage in passages):
            missed.append(question["text"])
    assert len(missed) <= 1, missed
