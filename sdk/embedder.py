"""Texts as vectors, for search: the face of the text encoders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import UnsupportedInputError
from ..encoders.text.pooling import unit
from ..encoders.text.preprocess import TextPreprocess
from .devices import check_names, device_of, dtype_of, may_have_accelerator
from .hub import resolve
from .ready import check_bundle_options, own_bundle, unlike_a_bundle

if TYPE_CHECKING:
    import torch

    from ..encoders.text.text_encoder import TextEncoder

__all__ = ["Embedder", "load_embedder", "open_text_encoder"]


class _Encoder(Protocol):
    """What makes vectors: `TextEncoder`, or a bundle of one."""

    preprocess: TextPreprocess

    @property
    def embedding_size(self) -> int: ...

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> Any: ...


class Embedder:
    """A text encoder, ready for search. It may be used by several threads at once.

    Args:
        encoder: makes the vectors: a `TextEncoder`, or the `TextEncoderBundle` of one.
        name: for people.
    """

    def __init__(self, encoder: _Encoder, *, name: str) -> None:
        self._encoder = encoder
        self.name = name

    def __repr__(self) -> str:
        return f"Embedder({self.name!r}, {self.size})"

    @property
    def size(self) -> int:
        """How many numbers a vector has."""
        return self._encoder.embedding_size

    @property
    def longest(self) -> int:
        """The most tokens that are read at once, special ones included; a longer text is read in windows."""
        return self._encoder.preprocess.longest

    def embed(self, texts: Sequence[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        """Each text as one vector of length 1: the dot product of two is their cosine.

        Args:
            texts: of any lengths; nothing is cut. Those of one length are computed together.
            prompt: put before every text, as some models were trained to read (``"query: "``); None for the model's
                own, if it has one.

        Returns:
            [N, `size`]; without texts, [0, `size`].

        Raises:
            InvalidInputError: an item is no text, or `texts` is a single one.
        """
        if isinstance(texts, list | tuple) and not texts:
            return np.zeros((0, self.size), np.float32)
        return unit(np.asarray(self._encoder.embed(texts, prompt=prompt)))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without the special ones around it."""
        return len(self._encoder.preprocess.tokenizer.encode(text, add_special=False, parse_special=False))


def load_embedder(
    source: str | os.PathLike[str] = "minilm",
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    engine: str = "auto",
    quiet: bool = True,
) -> Embedder:
    """Loads a model that makes vectors of texts.

    Args:
        source: a card name (``minilm``), a directory of BERT, MiniLM or (XLM-)RoBERTa, also as sentence-transformers
            writes it, a hub repository (``owner/name``), or a bundle that was exported from one of them.
        device: as of `load`.
        dtype: ``float32`` if not given.
        engine: as of `load`: on processors ``minilm`` runs as a bundle without torch, which its first use makes.
        quiet: show no progress.

    Raises:
        ModelNotFoundError, DownloadError, IntegrityError: it cannot be found or fetched.
        UnknownFamilyError, CheckpointError, TokenizerError: its files are of an unknown kind or damaged.
        OptionError: an unknown engine, device or dtype.
        UnsupportedInputError: the onnx engine was asked for, and this is no bundle.
        EngineError: it does not fit into memory.
    """
    check_names(engine, dtype)
    path = resolve(source, role="text-encoder", quiet=quiet)
    name = source if isinstance(source, str) else Path(source).name
    asked = {"engine": (engine, "auto", "onnx"), "device": (device, "auto", "cpu"), "dtype": (dtype, "float32")}
    unlike = unlike_a_bundle(asked)
    bundle: Path | None = path
    if not (path / "manifest.json").is_file():
        free = not unlike and not (device == "auto" and may_have_accelerator())
        bundle = own_bundle(source, path, "text-encoder", engine, free=free, quiet=quiet)
    if bundle is not None:
        from ..mobile_export.text_encoder import TextEncoderBundle

        check_bundle_options(unlike)
        return Embedder(TextEncoderBundle(bundle), name=name)
    if engine == "onnx":
        hint = "export it first: sensorium export MODEL OUT, then load OUT"
        raise UnsupportedInputError("The onnx engine runs exported bundles.", given=name, hint=hint)
    return Embedder(open_text_encoder(path, device=device, dtype=dtype), name=name)


def open_text_encoder(path: Path, *, device: str | torch.device, dtype: str | torch.dtype | None) -> TextEncoder:
    """A text encoder from its directory or the file of its weights; arguments and errors as of `load_embedder`."""
    import torch

    from ..encoders.text.weights import load_text_encoder
    from .torch_engine import memory_guard

    where = device_of(device)
    wanted = dtype_of(dtype, torch.float32, where)
    with memory_guard(f"the weights of {path}", hint="choose a smaller model"):
        return load_text_encoder(path if path.is_dir() else path.parent, device=where, dtype=wanted)
