"""A tokenizer's files in a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ..errors import TokenizerError

__all__ = ["TokenizerFiles", "read_files", "write_files"]

_LARGEST_TOKENIZER, _LARGEST_CONFIG = 1 << 28, 1 << 26  # bytes
_ROLES = ("bos", "eos", "pad", "unk")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files say.

    Attributes:
        backend: the tokenizer.
        special: texts of ``bos``, ``eos``, ``pad`` and ``unk``, None where the model has none.
        stop_ids: tokens that end an answer.
        chat_template: jinja2, or None.
    """

    backend: tokenizers.Tokenizer
    special: Mapping[str, str | None]
    stop_ids: frozenset[int]
    chat_template: str | None


def read_files(directory: Path) -> TokenizerFiles:
    """Reads tokenizer.json and what stands beside it.

    Raises:
        TokenizerError: there is no tokenizer.json, or a file is damaged.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        there = sorted(entry.name for entry in directory.glob("*"))[:20] if directory.is_dir() else "no such directory"
        raise TokenizerError(
            f"{directory} has no tokenizer.json.",
            given=there,
            expected="a fast tokenizer's tokenizer.json",
            hint="load it with transformers' AutoTokenizer and save it again: that writes tokenizer.json",
        )
    if path.stat().st_size > _LARGEST_TOKENIZER:
        raise TokenizerError(f"{path} is too large.", given=path.stat().st_size, expected=f"at most {_LARGEST_TOKENIZER}")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except BaseException as error:  # a panic in Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise TokenizerError(f"{path} is damaged.", given=str(error)[:300]) from error
    config = _json(directory / "tokenizer_config.json")
    named = _json(directory / "special_tokens_map.json") | config
    special = {role: _text(named.get(f"{role}_token")) for role in _ROLES}
    return TokenizerFiles(backend, special, _stops(directory), _template(directory, config))


def write_files(directory: Path, files: TokenizerFiles) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the template, as `transformers` reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    files.backend.save(str(directory / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": text for role, text in files.special.items() if text is not None}
    if files.chat_template is not None:
        config["chat_template"] = files.chat_template
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"{path.stat().st_size} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise TokenizerError(f"{path} is damaged.", given=str(error)) from error
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} is damaged.", given=type(found).__name__, expected="a JSON object")
    return found


def _text(token: Any) -> str | None:
    """A token's text, which may stand alone or in an object with its options."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _stops(directory: Path) -> frozenset[int]:
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        ends = _json(directory / name).get("eos_token_id")
        found |= {number for number in (ends if isinstance(ends, list) else [ends]) if isinstance(number, int)}
    return frozenset(found)


def _template(directory: Path, config: Mapping[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        if path.stat().st_size > _LARGEST_CONFIG:
            raise TokenizerError(f"{path} is too large.", given=path.stat().st_size)
        return path.read_text(encoding="utf-8")
    found = _json(directory / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(found, list):  # several, each with a name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
