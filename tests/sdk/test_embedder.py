"""Texts as vectors, through the SDK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sensorium import sdk
from sensorium.sdk.hub import resolve_part


@pytest.fixture(scope="module")
def embedder() -> sdk.Embedder:
    return sdk.load_embedder()


def test_the_default_model_finds_what_means_the_same(embedder: sdk.Embedder) -> None:
    texts = ["How do I reset my password?", "Rates rose by half a percent.", "Recover a forgotten login credential"]
    vectors = embedder.embed(texts)
    assert (vectors.shape, vectors.dtype, embedder.size, embedder.longest) == ((3, 384), np.float32, 384, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[2] > 0.4 > vectors[0] @ vectors[1]
    np.testing.assert_allclose(vectors[[2]], embedder.embed(texts[2:]), atol=1e-6)


def test_a_prompt_stands_before_each_text(embedder: sdk.Embedder) -> None:
    with_prompt, plain = embedder.embed(["a cat"], prompt="query: "), embedder.embed(["query: a cat"])
    np.testing.assert_array_equal(with_prompt, plain)


def test_tokens_are_counted_without_special_ones(embedder: sdk.Embedder) -> None:
    assert [embedder.count_tokens(text) for text in ("", "a cat", "a cat [SEP]")] == [0, 2, 5]


def test_no_texts_are_no_vectors_and_one_text_is_no_list(embedder: sdk.Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    with pytest.raises(sdk.InvalidInputError, match="no text to encode"):
        embedder.embed("a cat")
    with pytest.raises(sdk.InvalidInputError, match="item 1"):
        embedder.embed(["a cat", None])  # type: ignore[list-item]


def test_a_directory_is_the_same_model(embedder: sdk.Embedder) -> None:
    folder = resolve_part("minilm", "text-encoder").parent
    found = sdk.load_embedder(folder, device="cpu", dtype="float32")
    np.testing.assert_allclose(found.embed(["a cat"]), embedder.embed(["a cat"]), atol=2e-6)
    assert found.name == folder.name and repr(found) == "Embedder('model', 384)"


def test_wrong_models_and_options_are_refused(tiny_model: object, tmp_path: Path) -> None:
    with pytest.raises(sdk.CheckpointError, match=r"no decoder[\s\S]*load_embedder"):
        sdk.load("minilm")
    with pytest.raises(sdk.CheckpointError, match="no text-encoder"):
        sdk.load_embedder("nano")
    with pytest.raises(sdk.UnknownFamilyError):
        sdk.load_embedder(tiny_model())  # type: ignore[operator]
    with pytest.raises(sdk.UnsupportedInputError, match="sensorium export"):
        sdk.load_embedder(resolve_part("minilm", "text-encoder").parent, engine="onnx")
    with pytest.raises(sdk.OptionError, match=r"engine[\s\S]*fast"):
        sdk.load_embedder(engine="fast")
    with pytest.raises(sdk.OptionError, match=r"dtype[\s\S]*int8"):
        sdk.load_embedder(dtype="int8")
    with pytest.raises(sdk.ModelNotFoundError):
        sdk.load_embedder(tmp_path)
