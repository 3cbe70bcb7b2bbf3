"""Document Q&A: what is found, how it is answered and cited, what is refused, and how fast it is.

    python -m benchmarks.docqa [--model nano] [--sentences N] [--no-answers] [--speed]

Documents and questions: tests/data/docqa. A passage counts as found if it holds the whole answer span. F1 is of words,
as in SQuAD. A citation counts as right if its quote lies in the right document and shares half of the span's words.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sensorium import sdk
from sensorium.apps.docqa import DocumentAnswer, Library, Passage, read_document
from sensorium.apps.docqa.retrieval import Retriever, fuse
from sensorium.apps.docqa.sentences import content_words, words_of

from .measure import print_table

DATA = Path(__file__).resolve().parent.parent / "tests" / "data" / "docqa"


@dataclass(frozen=True)
class Question:
    """One question; `document`, `span` and `answer` are None if the documents don't answer it."""

    text: str
    document: str | None = None
    span: str | None = None
    answer: str | None = None


def main() -> None:
    """Prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--no-answers", action="store_true")
    parser.add_argument("--sentences", type=int, help="that the model reads; 0 for whole passages")
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library, files = indexed(Path(folder) / "store")
        print(f"{len(files)} documents, {len(library.store)} passages")
        retrieval(library)
        thresholds(library)
        if not arguments.no_answers:
            answers(library, sdk.load(arguments.model), arguments.sentences)
    if arguments.speed:
        indexing_speed()
        query_speed()


def questions() -> list[Question]:
    """All questions."""
    listed = tomllib.loads((DATA / "questions.toml").read_text(encoding="utf-8"))["question"]
    return [Question(**each) for each in listed]


def indexed(folder: Path) -> tuple[Library, list[Path]]:
    """A library of all documents."""
    library = Library(folder, sdk.load_embedder("minilm"))
    files = sorted(path for path in DATA.iterdir() if path.name not in ("questions.toml", "README.md"))
    failed = [added for added in library.add(files) if added.error]
    assert not failed, failed
    return library, files


def holds(passage: Passage, question: Question) -> bool:
    """Whether a passage holds the whole span."""
    return passage.name == question.document and _flat(question.span or "") in _flat(passage.text)


def retrieval(library: Library) -> None:
    """Recall of the two searches and of both together."""
    retriever = Retriever(library.store)
    passages = {passage.id: passage for passage in _passages(library)}
    found: dict[str, list[int]] = {"dense": [], "BM25": [], "both (RRF)": []}
    answerable = [question for question in questions() if question.span]
    lost = [question.text for question in answerable if not any(holds(p, question) for p in passages.values())]
    for question in answerable:
        dense = [name for name, _ in retriever.dense(question.text)]
        sparse = [name for name, _ in retriever.sparse(question.text)]
        rankings = (dense, sparse, [name for name, _ in fuse([dense, sparse])])
        for name, ranking in zip(found, rankings, strict=True):
            ranks = [rank for rank, each in enumerate(ranking) if holds(passages[each], question)]
            found[name].append(ranks[0] if ranks else 1000)
            if name == "both (RRF)" and found[name][-1] >= 5:
                print(f"not among five: {question.text} (rank {found[name][-1] + 1})")
    print(f"spans that no passage holds whole: {lost}")
    rows = [(name, *(f"{np.mean(np.array(ranks) < k):.3f}" for k in (1, 3, 5, 10))) for name, ranks in found.items()]
    print_table(("search", "R@1", "R@3", "R@5", "R@10"), rows)


def thresholds(library: Library) -> None:
    """The best cosine of questions that have an answer and of those that have none."""
    cosines = [(library.search(question.text).best_cosine, question) for question in questions()]
    right = np.array([cosine for cosine, question in cosines if question.span])
    wrong = np.array([cosine for cosine, question in cosines if not question.span])
    print(f"best cosine, answerable: {np.sort(right)[:6].round(3)} … median {np.median(right):.3f}")
    print(f"best cosine, unanswerable: {np.sort(wrong).round(3)}")
    rows = [(f"{t:.2f}", int((right < t).sum()), int((wrong < t).sum())) for t in np.arange(0.2, 0.61, 0.05)]
    print_table(("threshold", f"answerable refused of {len(right)}", f"unanswerable refused of {len(wrong)}"), rows)


def answers(library: Library, model: sdk.Model, sentences: int | None) -> None:
    """Answers to all questions: F1, citations, refusals."""
    scores, cited, right, statements, supported = [], 0, 0, 0, 0
    refused = Counter[bool]()
    silent = Counter[bool]()
    begun = time.perf_counter()
    listed = questions()
    for question in listed:
        answer = library.ask(model, question.text, sentences=sentences).result
        refused[question.span is not None] += not answer.statements
        silent[question.span is not None] += not answer.answered
        if question.span is None:
            print(f"[none] {question.text} → {answer.text[:150]}")
            continue
        scores.append(f1(" ".join(statement.text for statement in answer.statements), question.answer or ""))
        statements += len(answer.statements)
        supported += sum(statement.citation is not None for statement in answer.statements)
        good = judged(answer, question)
        cited, right = cited + len(good), right + sum(good)
        print(f"[{scores[-1]:.2f}] {question.text} → {answer.text[:150]}")
    with_span, without = sum(q.span is not None for q in listed), sum(q.span is None for q in listed)
    rows = [
        ("F1 of words", f"{np.mean(scores):.3f}"),
        ("sentences supported", f"{supported} of {statements}"),
        ("citations right", f"{right} of {cited}"),
        ("unanswerable: refused", f"{refused[False]} of {without}"),
        ("unanswerable: refused, or nothing supported", f"{silent[False]} of {without}"),
        ("answerable: refused", f"{refused[True]} of {with_span}"),
        ("seconds a question", f"{(time.perf_counter() - begun) / len(listed):.1f}"),
    ]
    print_table((f"answers of {model.name}", ""), rows)


def judged(answer: DocumentAnswer, question: Question) -> list[bool]:
    """Of each citation, whether it is right."""
    wanted = content_words(question.span or "")
    citations = [statement.citation for statement in answer.statements if statement.citation]
    return [
        citation.passage.name == question.document and len(wanted & content_words(citation.quote)) * 2 >= len(wanted)
        for citation in citations
    ]


def f1(given: str, wanted: str) -> float:
    """Of words, without articles."""
    given_words, wanted_words = (
        Counter(word for word in words_of(text) if word not in ("a", "an", "the")) for text in (given, wanted)
    )
    common = sum((given_words & wanted_words).values())
    if not common:
        return 0.0
    precision, recall = common / sum(given_words.values()), common / sum(wanted_words.values())
    return 2 * precision * recall / (precision + recall)


def indexing_speed() -> None:
    """Pages a second, of reading alone and of all that indexing takes; a page is 3,000 characters."""
    files = sorted(path for path in DATA.iterdir() if path.name not in ("questions.toml", "README.md"))
    read_document(files[0])  # starts the helper
    begun = time.perf_counter()
    pages = sum(len(read_document(path).text) for path in files) / 3000
    reading = time.perf_counter() - begun
    embedder = sdk.load_embedder("minilm")
    embedder.embed(["warm"])
    with tempfile.TemporaryDirectory() as folder:
        library = Library(folder, embedder)
        begun = time.perf_counter()
        list(library.add(files))
        whole = time.perf_counter() - begun
        begun = time.perf_counter()
        list(library.add(files))
        again = time.perf_counter() - begun
    rows = [("reading", reading), ("reading, embedding, storing", whole), ("again, unchanged", again)]
    print_table(("indexing", "pages a second", "s"), [(n, f"{pages / s:.1f}", f"{s:.2f}") for n, s in rows])


def query_speed() -> None:
    """Times of a search over 1,000 and 20,000 passages: real texts over and over, with made-up vectors near theirs."""
    embedder = sdk.load_embedder("minilm")
    listed = [question.text for question in questions()]
    rows = []
    for size in (1_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            store = Library(folder, embedder).store
            _fill(store.put, size, embedder)
            retriever = Retriever(store)
            begun = time.perf_counter()
            retriever.search(listed[0])
            first = time.perf_counter() - begun
            times = []
            for text in listed * 2:
                begun = time.perf_counter()
                retriever.search(text)
                times.append(1000 * (time.perf_counter() - begun))
            rows.append((f"{size:,}", f"{first:.2f}", *(f"{np.percentile(times, p):.0f}" for p in (50, 95))))
    print_table(("passages", "first search, s", "p50 ms", "p95 ms"), rows)


def _fill(put: Callable[..., None], size: int, embedder: sdk.Embedder) -> None:
    with tempfile.TemporaryDirectory() as folder:
        passages = _passages(indexed(Path(folder))[0])
    random = np.random.default_rng(0)
    vectors = embedder.embed([passage.embedded for passage in passages])
    for start in range(0, size, 2_000):
        chosen = [(start + i) % len(passages) for i in range(min(2_000, size - start))]
        noisy = vectors[chosen] + 0.05 * random.standard_normal((len(chosen), vectors.shape[1])).astype(np.float32)
        texts = [passages[i].text for i in chosen]
        copies = [passages[i].metadata() | {"ordinal": start + n} for n, i in enumerate(chosen)]
        put([f"{copy['document']}-{copy['ordinal']:06d}" for copy in copies], texts, noisy.tolist(), copies)


def _passages(library: Library) -> list[Passage]:
    return [Passage.from_metadata(each.page_content, each.metadata) for each in library.store.read()]


def _flat(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
