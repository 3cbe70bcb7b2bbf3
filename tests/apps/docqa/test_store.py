"""The vector store: LangChain's own suite, and what a store on disk must hold."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests
from sensorium.apps.docqa.store import FolderVectorStore
from sensorium.sdk import InvalidInputError, SensoriumError


class TestFolderVectorStore(VectorStoreIntegrationTests):
    """LangChain's suite, sync and async."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> FolderVectorStore:
        return FolderVectorStore(tmp_path / "store", self.get_embeddings())


def store_in(folder: Path, **options: Any) -> FolderVectorStore:
    return FolderVectorStore(folder, DeterministicFakeEmbedding(size=6), **options)


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = store_in(tmp_path, name="fake")
    assert (len(store), store.version, store.embedding_name) == (0, 0, "fake")
    store.add_texts(["a", "b"], [{"n": 1}, {"n": [2, None]}], ids=["1", "2"])
    again = store_in(tmp_path)
    assert again.get_by_ids(["2", "0", "1"]) == [
        Document(id="2", page_content="b", metadata={"n": [2, None]}),
        Document(id="1", page_content="a", metadata={"n": 1}),
    ]
    assert (len(again), again.embedding_name) == (2, "fake")
    assert again.version == store.version > 0


def test_one_store_sees_what_another_wrote(tmp_path: Path) -> None:
    one, other = store_in(tmp_path / "s"), store_in(tmp_path / "s")
    one.add_texts(["a"], ids=["1"])
    assert len(other) == 1
    other.add_texts(["b"], ids=["2"])
    assert [document.page_content for document in one.get_by_ids(["1", "2"])] == ["a", "b"]


def test_ids_are_data_and_no_sql(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    names = ["it's", "x' OR '1'='1", 'a"b', "", "\u2028%_\\"]
    made = store.add_texts(["t"] * 5, ids=names)
    assert made[:3] == names[:3] and len(made[3]) == 32  # an empty id is none
    assert [document.id for document in store.get_by_ids(made)] == made
    store.delete(["x' OR '1'='1"])
    assert len(store) == 4


def test_a_document_is_replaced_in_one_commit(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    vectors = [[1.0, 0, 0, 0, 0, 0]] * 3
    old = [{"document": "d", "ordinal": n} for n in range(3)]
    store.put(["d-0", "d-1", "d-2"], ["x"] * 3, vectors, old)
    store.put(["e-0"], ["y"], vectors[:1], [{"document": "e", "ordinal": 0}])
    before = store.version
    store.put(["d-0"], ["new"], vectors[:1], old[:1], replacing=["d"])
    assert store.version == before + 1
    assert {document.id: document.page_content for document in store.read()} == {"d-0": "new", "e-0": "y"}
    assert store.counts() == {"d": 1, "e": 1}
    store.delete(documents=["d"])
    assert store.counts() == {"e": 1}


def test_the_nearest_are_those_of_numpy(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((300, 6)).astype(np.float32)
    store = store_in(tmp_path)
    names = [f"{number:03d}" for number in range(300)]
    store.put(names, names, vectors.tolist(), [{}] * 300)
    query = vectors[17] + 0.1
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    found = store.nearest(query.tolist(), 20)
    assert [document.id for document, _ in found] == [f"{n:03d}" for n in np.argsort(-cosines)[:20]]
    np.testing.assert_allclose([cosine for _, cosine in found], np.sort(cosines)[::-1][:20], atol=1e-5)
    assert [document.id for document, _ in store.nearest(query.tolist(), 5, where="id < '010'")] == [
        f"{n:03d}" for n in np.argsort(-cosines) if n < 10
    ][:5]


def test_equal_ones_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.put(["c", "a", "b"], ["x"] * 3, [[1.0, 0, 0, 0, 0, 0]] * 3, [{}] * 3)
    assert [document.id for document, _ in store.nearest([1.0, 0, 0, 0, 0, 0], 3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (lambda store: store.add_texts(["a"], [{}, {}]), "do not belong together"),
        (lambda store: store.add_texts(["a"], [{"x": object()}]), "must be JSON"),
        (lambda store: store.add_texts(["a"], [{"x": float("nan")}]), "must be JSON"),
        (lambda store: store.put(["a"], ["a"], [[1.0] * 5], [{}]), "another size"),
        (lambda store: store.nearest([1.0] * 5, 3), "another size"),
        (lambda store: store.similarity_search("a", k=0), "search for nothing"),
        (lambda store: store.delete(), "deleted"),
        (lambda store: list(store.read("no such column = 3")), "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(tmp_path: Path, action: Any, told: str) -> None:
    store = store_in(tmp_path)
    store.add_texts(["good"], ids=["1"])
    before = store.version
    with pytest.raises(SensoriumError, match=told):
        action(store)
    assert (store.version, len(store)) == (before, 1)


def test_another_embedding_is_refused(tmp_path: Path) -> None:
    store_in(tmp_path, name="one").add_texts(["a"])
    with pytest.raises(InvalidInputError, match=r"another embedding[\s\S]*other[\s\S]*one"):
        store_in(tmp_path, name="other")
    assert len(store_in(tmp_path, name="one")) == 1


def test_a_folder_that_holds_a_damaged_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "passages.lance").mkdir()
    with pytest.raises(SensoriumError, match="cannot be read"):
        store_in(tmp_path)


def test_many_small_pieces_are_put_together(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for number in range(40):
        store.put([str(number)], ["x"], [[1.0, 0, 0, 0, 0, 0]], [{}])
    store.compact()
    assert store._table().stats()["fragment_stats"]["num_fragments"] < 10
    assert len(store) == 40


def test_several_threads_add_at_once(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: store.add_texts([f"text {n}"], ids=[str(n)]), range(12)))
    assert len(store) == 12


def test_it_is_a_retriever(tmp_path: Path) -> None:
    store = FolderVectorStore.from_texts(["a", "b"], DeterministicFakeEmbedding(size=6), folder=tmp_path)
    assert [document.page_content for document in store.as_retriever(search_kwargs={"k": 1}).invoke("a")] == ["a"]
    assert store.similarity_search_with_relevance_scores("b", k=1)[0][1] == pytest.approx(1.0, abs=1e-5)


def test_a_search_for_texts_that_differ(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    vectors = [[1.0, 0, 0, 0, 0, 0], [0.99, 0.01, 0, 0, 0, 0], [0.7, 0.7, 0, 0, 0, 0]]
    store.put(["a", "b", "c"], ["a", "b", "c"], vectors, [{}] * 3)
    query = [1.0, 0.05, 0, 0, 0, 0]
    assert [each.id for each in store.similarity_search_by_vector(query, 2)] == ["b", "a"]
    assert [each.id for each in store.max_marginal_relevance_search_by_vector(query, 2, lambda_mult=0.2)] == ["b", "c"]
    assert len(store.max_marginal_relevance_search("x", 2)) == 2
    assert store_in(tmp_path / "empty").max_marginal_relevance_search("x") == []


WRITING = """
import sys
from langchain_core.embeddings import DeterministicFakeEmbedding
from sensorium.apps.docqa.store import FolderVectorStore
store = FolderVectorStore(sys.argv[1], DeterministicFakeEmbedding(size=6))
for number in range(8):
    store.add_texts([f"{sys.argv[2]} {number}"], ids=[f"{sys.argv[2]}-{number}"])
"""


@pytest.mark.slow
def test_several_processes_add_at_once(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "s"), name]) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(store_in(tmp_path / "s")) == 24
