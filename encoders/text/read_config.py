"""The files of Hugging Face and sentence-transformers that describe a text encoder. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import CheckpointError, UnknownFamilyError
from ..storage import read_json
from ..storage.naming import shortened
from .model import TextConfig
from .pooling import Pooling, PoolingConfig

__all__ = ["read_length_limit", "read_pooling_config", "read_text_config"]

# By family, what its configuration class assumes where a file says nothing.
_BERT: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA = _BERT | {"vocab_size": 50265, "pad_token_id": 1}
_FAMILIES = {"bert": _BERT, "camembert": _ROBERTA, "roberta": _ROBERTA, "xlm-roberta": _ROBERTA}
_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# In the order in which sentence-transformers joins them.
_POOLINGS: tuple[tuple[str, Pooling], ...] = (
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
)
_LARGEST_LIST = 1 << 20  # bytes


def read_text_config(raw: Mapping[str, Any]) -> TextConfig:
    """The network that a config.json describes.

    Raises:
        UnknownFamilyError: its model type is not one that we know; lists them.
        CheckpointError: a field is not what its name calls for.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        problem, known = "config.json names no text encoder that Sensorium knows.", ", ".join(sorted(_FAMILIES))
        raise UnknownFamilyError(problem, given=f"model_type = {shortened(kind)}", expected=f"one of {known}")
    fields = _FAMILIES[kind] | {name: value for name, value in raw.items() if value is not None}
    activation, epsilon, padding = fields["hidden_act"], fields["layer_norm_eps"], fields["pad_token_id"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        expected = ", ".join(sorted(_ACTIVATIONS))
        raise CheckpointError("config.json: unknown activation.", given=shortened(activation), expected=expected)
    if fields.get("position_embedding_type", "absolute") != "absolute" or fields.get("is_decoder"):
        given = (
            f"{shortened(fields.get('position_embedding_type'))}, is_decoder = {shortened(fields.get('is_decoder'))}"
        )
        raise CheckpointError("config.json: only encoders with absolute positions are known.", given=given)
    if not isinstance(epsilon, (int, float)) or type(padding) is not int:
        given = f"layer_norm_eps = {shortened(epsilon)}, pad_token_id = {shortened(padding)}"
        raise CheckpointError("config.json: a field is no number.", given=given)
    return TextConfig(
        vocabulary_size=fields["vocab_size"],
        hidden_size=fields["hidden_size"],
        layers=fields["num_hidden_layers"],
        heads=fields["num_attention_heads"],
        mlp_size=fields["intermediate_size"],
        positions=fields["max_position_embeddings"],
        first_position=0 if kind == "bert" else padding + 1,
        token_types=fields["type_vocab_size"],
        activation=_ACTIVATIONS[activation],
        norm_epsilon=float(epsilon),
    )


def read_pooling_config(directory: Path) -> PoolingConfig:
    """What a sentence-transformers directory says of embeddings; the mean where it says nothing.

    Raises:
        CheckpointError: a file is damaged, or asks for something that we do not know: it is not left out.
    """
    modules = _modules(directory)
    kinds: tuple[Pooling, ...] = ("mean",)
    for kind, path in modules:
        if kind == "Pooling":
            kinds = _kinds(read_json(directory / path / "config.json"))
    return PoolingConfig(
        kinds=kinds, normalised=any(kind == "Normalize" for kind, _ in modules), prompt=_prompt(directory)
    )


def _modules(directory: Path) -> list[tuple[str, str]]:
    """The kinds of the modules after the Transformer, and their folders."""
    path = directory / "modules.json"
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise ValueError(f"{path.stat().st_size} bytes")
        found = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise CheckpointError("modules.json is damaged.", given=shortened(str(error))) from error
    for kind, folder in found:
        # The Transformer may have a folder of its own, but its files are then not where we look for them.
        plain = folder not in ("", "..") and Path(folder).name == folder
        if not {"Transformer": not folder, "Pooling": plain, "Normalize": True}.get(kind, False):
            given, expected = f"{shortened(kind)} in {shortened(folder)}", "Transformer at the top, Pooling, Normalize"
            problem = "modules.json asks for a step that Sensorium does not know."
            raise CheckpointError(problem, given=given, expected=expected)
    return found


def _kinds(raw: Mapping[str, Any]) -> tuple[Pooling, ...]:
    asked = {name for name, value in raw.items() if name.startswith("pooling_mode_") and value}
    if isinstance(raw.get("pooling_mode"), str):  # newer files name one
        asked |= {name for name, kind in _POOLINGS if kind == raw["pooling_mode"]} or {shortened(raw["pooling_mode"])}
    kinds: tuple[Pooling, ...] = tuple(kind for name, kind in _POOLINGS if name in asked)
    if not kinds or len(kinds) < len(asked) or raw.get("include_prompt", True) is not True:
        given = f"{', '.join(sorted(asked))[:200] or 'none'}, include_prompt = {shortened(raw.get('include_prompt'))}"
        expected = ", ".join(name for name, _ in _POOLINGS)
        raise CheckpointError("The pooling's config.json asks for one we do not know.", given=given, expected=expected)
    return kinds


def _prompt(directory: Path) -> str:
    """The text that sentence-transformers puts before every other unless told otherwise."""
    path = directory / "config_sentence_transformers.json"
    raw = read_json(path) if path.is_file() else {}
    name, prompts = raw.get("default_prompt_name"), raw.get("prompts")
    if name is None:
        return ""
    if not isinstance(prompts, Mapping) or not isinstance(prompts.get(name), str):
        raise CheckpointError(f"{path.name} names a prompt that it does not have.", given=shortened(name))
    return prompts[name]


def read_length_limit(directory: Path) -> int:
    """The most tokens that the model was trained to embed; beyond it, positions exist but mean little.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = directory / "sentence_bert_config.json"
    limit = read_json(path).get("max_seq_length") if path.is_file() else None
    if limit is None:
        return 1 << 20
    if type(limit) is not int or limit < 1:
        raise CheckpointError(f"{path.name}: max_seq_length is no length.", given=shortened(limit))
    return limit
