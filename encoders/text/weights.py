"""Loads text encoders from directories of Hugging Face and sentence-transformers. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..image.filling import build, close
from ..storage import TensorFile, load_weights, read_json, tensor_files
from .model import TextConfig, TextTransformer
from .pooling import PoolingConfig
from .preprocess import LongTexts, TextPreprocess
from .read_config import read_length_limit, read_pooling_config, read_text_config
from .text_encoder import TextEncoder
from .tokenizer import Tokenizer

__all__ = ["load_text_encoder", "load_text_transformer"]

# Of models with heads, the part that we read; of older files, also tables that are no weights.
_PREFIXES = ("bert.", "roberta.")
_UNUSED = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")


def load_text_encoder(
    path: str | Path,
    *,
    long: LongTexts = "windows",
    pooling: PoolingConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TextEncoder:
    """A text encoder from a directory: config.json says which.

    Args:
        path: a directory of BERT, MiniLM or (XLM-)RoBERTa with its tokenizer.json.
        long: what becomes of texts with more tokens than the network reads at once; see `TextEncoder`.
        pooling: how embeddings are made; None for what the directory's modules.json says, or else the mean.
        device, dtype: of the network.

    Raises:
        UnknownFamilyError: a model type that is not one of these; lists them.
        CheckpointError: anything about it is missing, surplus, misshapen, truncated or hostile.
        TokenizerError: the tokenizer is missing or damaged.
    """
    path = Path(path)
    config = read_text_config(read_json(path / "config.json"))
    pooling = pooling or read_pooling_config(path)
    tokenizer = Tokenizer.from_directory(path)
    if tokenizer.vocabulary_size > config.vocabulary_size:
        given, expected = f"{tokenizer.vocabulary_size} tokens", f"at most {config.vocabulary_size}, as in config.json"
        raise CheckpointError("The tokenizer is not this model's.", given=given, expected=expected)
    preprocess = TextPreprocess(tokenizer, min(config.longest, read_length_limit(path)), long=long)
    files = tensor_files(path)
    try:
        network = load_text_transformer(files, config, device=device, dtype=dtype)
    finally:
        close(files.values())
    return TextEncoder(network, preprocess, pooling=pooling)


def load_text_transformer(
    files: Mapping[str, TensorFile],
    config: TextConfig,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TextTransformer:
    """The network alone.

    Args:
        files: the file of every tensor, by the tensor's name there; stays open.
        config: its shape.
        device, dtype: of the network.

    Raises:
        CheckpointError: a tensor is missing, surplus, misshapen or of whole numbers.
    """
    prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in files)), "")

    def theirs(name: str) -> str:
        # The first BERT files came from TensorFlow, whose norms have other names.
        older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return prefix + (older if prefix + older in files else name)

    def ignored(name: str) -> bool:
        return not name.startswith(prefix) or name.removeprefix(prefix).startswith(_UNUSED)

    network = build(lambda: TextTransformer(config), files, layers=config.layers, dtype=dtype)
    load_weights(network, files, theirs=theirs, ignored=ignored)
    return network.to(device).eval()
