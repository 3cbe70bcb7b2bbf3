"""A bundle of a text encoder: texts to vectors with numpy, onnxruntime and tokenizers alone, and its own proof.

Legend: B rows, T tokens, D hidden size, E size of an embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, EngineError, InvalidInputError
from ..encoders.storage import read_json, shortened
from ..encoders.text import Tokenizer
from ..encoders.text.pooling import PoolingConfig, check_texts, embed_windows
from ..encoders.text.preprocess import TextPreprocess
from .bundle import Manifest, check_files, read_manifest, write_json
from .decoder_runner import open_session
from .proof import GoldenResult

__all__ = [
    "EMBEDDING_GOLDENS",
    "TEXT_ENCODER",
    "TextEncoderBundle",
    "check_embedding_goldens",
    "read_text_encoder",
    "write_embedding_goldens",
    "write_settings",
]

#: The role of its graph in a manifest.
TEXT_ENCODER = "text-encoder"
#: Where its goldens lie.
EMBEDDING_GOLDENS = "golden/embeddings.json"
_SETTINGS = "text_encoder.json"
_SIZES = ("layers", "vocabulary_size", "context_length")
_MOST = 1 << 16  # numbers of a vector


def write_settings(directory: Path, pooling: PoolingConfig, longest: int, size: int) -> None:
    """What a bundle says of how embeddings are made.

    Args:
        directory: of the bundle.
        pooling: of features.
        longest: tokens of a window.
        size: D.
    """
    write_json(directory / _SETTINGS, asdict(pooling) | {"longest": longest, "feature_size": size})


def read_text_encoder(path: Path) -> Manifest:
    """The manifest of a bundle, which describes a text encoder; its files are not looked at.

    Raises:
        CheckpointError: it is no bundle, of a newer format, or of something else.
        IntegrityError: the manifest is not as it was written.
    """
    manifest = read_manifest(path)
    if TEXT_ENCODER not in manifest.graphs or not manifest.decoder.keys() >= set(_SIZES):
        given, hint = ", ".join(manifest.graphs), "sdk.load opens the bundles of decoders"
        raise CheckpointError("The manifest does not describe a text encoder.", given=given, hint=hint)
    return manifest


class TextEncoderBundle:
    """An exported text encoder. It may be used by several threads at once.

    Args:
        path: its directory.
        threads: that it computes with; None for ``OMP_NUM_THREADS``, or one a core that this process may use.

    Raises:
        CheckpointError: it is no bundle of a text encoder, of a newer format, or incomplete.
        IntegrityError: a file is not the one that was exported; of the weights only the size is compared, `verify`
            compares all of it.
        TokenizerError: the tokenizer is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self.path = Path(path)
        self.manifest = read_text_encoder(self.path)
        check_files(self.path, self.manifest, all_of_them=False)
        raw = read_json(self.path / _SETTINGS)
        try:
            self.pooling = PoolingConfig(
                kinds=tuple(raw["kinds"]), normalised=bool(raw["normalised"]), prompt=str(raw["prompt"])
            )
            longest, self._size = int(raw["longest"]), int(raw["feature_size"])
            self.preprocess = TextPreprocess(Tokenizer.from_directory(self.path), longest)
        except (KeyError, TypeError, ValueError, InvalidInputError) as error:
            raise CheckpointError(f"{_SETTINGS} cannot be read.", given=shortened(str(error))) from error
        self._session: Any = open_session(self.path / self.manifest.graphs[TEXT_ENCODER], threads=threads)

    @property
    def embedding_size(self) -> int:
        """E."""
        return len(self.pooling.kinds) * self._size

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        """Each text as one vector; long ones are read in windows, as `TextEncoder` reads them.

        Args:
            texts: one or more, of any length.
            prompt: put before every text; None for the model's own, if it has one.

        Returns:
            [B, E].

        Raises:
            InvalidInputError: no texts, or an item that is no text.
            EngineError: the graph failed.
        """
        prompt = self.pooling.prompt if prompt is None else prompt
        windows = [self.preprocess(prompt + text) for text in check_texts(texts)]
        return embed_windows(windows, self._read, self.pooling)

    def _read(self, tokens: NDArray[np.int64], lengths: NDArray[np.int64] | None) -> NDArray[np.float32]:
        real = np.ones_like(tokens)
        if lengths is not None:
            real = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64)
        try:
            return self._session.run(None, {"input_ids": tokens, "attention_mask": real})[0]
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise EngineError("The graph of the text encoder failed.", given=str(error)[:300]) from error


def write_embedding_goldens(bundle: TextEncoderBundle, texts: Sequence[str], *, share: float) -> None:
    """Texts with the vectors that the bundle gives where it is made.

    Args:
        bundle: that they are written into.
        texts: some; one longer than a window shows how those are joined.
        share: of the vectors' standard deviation by which a number may differ on another device.
    """
    vectors = bundle.embed(texts)
    tolerance = round(share * float(vectors.std()), 7)
    goldens = [
        {"text": text, "vector": [round(float(number), 6) for number in vector], "tolerance": tolerance}
        for text, vector in zip(texts, vectors, strict=True)
    ]
    path = bundle.path / EMBEDDING_GOLDENS
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"goldens": goldens}) + "\n", encoding="utf-8")


def check_embedding_goldens(bundle: TextEncoderBundle) -> list[GoldenResult]:
    """Runs a bundle's goldens on this device.

    Raises:
        CheckpointError: it has none that can be read.
        EngineError: the graph fails here.
    """
    found = read_json(bundle.path / EMBEDDING_GOLDENS).get("goldens")
    if not isinstance(found, list) or not found or not all(_is_golden(entry, bundle.embedding_size) for entry in found):
        raise CheckpointError("The goldens of this bundle cannot be read.", given=shortened(found))
    return [_result(bundle, entry) for entry in found]


def _is_golden(entry: object, size: int) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"text", "vector", "tolerance"}:
        return False
    text, vector, tolerance = entry["text"], entry["vector"], entry["tolerance"]
    if not isinstance(text, str) or not isinstance(vector, list) or not len(vector) == size <= _MOST:
        return False
    return all(type(number) is float and np.isfinite(number) for number in (*vector, tolerance))


def _result(bundle: TextEncoderBundle, entry: dict[str, Any]) -> GoldenResult:
    difference = np.abs(bundle.embed([entry["text"]])[0] - np.array(entry["vector"], np.float32)).max()
    return GoldenResult(entry["text"][:60], float(difference), entry["tolerance"], 0, 0)
