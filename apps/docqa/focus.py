"""The sentences of found passages that are nearest to a question: small models answer better from few words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from langchain_core.embeddings import Embeddings

from .bm25 import Bm25
from .citations import Citation
from .passages import Passage
from .retrieval import fuse
from .sentences import sentence_spans

__all__ = ["nearest_sentences"]


def nearest_sentences(
    question: str, passages: Sequence[Passage], embeddings: Embeddings, k: int
) -> tuple[Citation, ...]:
    """The `k` best sentences, by meaning and by words as passages are found; best first, each text once."""
    found: dict[str, Citation] = {}
    for number, passage in enumerate(passages, start=1):
        for left, right in sentence_spans(passage.text):
            quote = passage.text[left:right]
            place = (passage.start + left, passage.start + right)
            found.setdefault(" ".join(quote.split()), Citation(number, passage, *place, quote))
    texts = list(found)
    if not texts:
        return ()
    vectors = np.asarray(embeddings.embed_documents(texts), np.float32)
    names = [f"{index:06d}" for index in range(len(texts))]
    dense = np.argsort(-(vectors @ np.asarray(embeddings.embed_query(question), np.float32)), kind="stable")
    sparse = [names[index] for index, _ in Bm25(texts).search(question, len(texts))]
    best = fuse([[names[index] for index in dense], sparse])[:k]
    return tuple(found[texts[int(name)]] for name, _ in best)
