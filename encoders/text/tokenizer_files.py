"""A tokenizer's files in a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ..errors import TokenizerError
from .tekken import TEKKEN_FILE, TEKKEN_ROLES, tokenizer_from_tekken

__all__ = ["TokenizerFiles", "read_files", "write_files"]

_LARGEST_TOKENIZER, _LARGEST_CONFIG = 1 << 28, 1 << 26  # bytes
_MOST_TOKENS = 1 << 20
_MOST_FILES = 64
_ROLES = ("bos", "eos", "pad", "unk")
_NAMES = tuple(f"{role}_token" for role in (*_ROLES, "sep", "cls", "mask"))
_BEGINS = "begins_chats"
_LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files say.

    Attributes:
        backend: the tokenizer.
        special: texts of ``bos``, ``eos``, ``pad`` and ``unk``, None where the model has none.
        stop_ids: tokens that end an answer.
        chat_template: jinja2, or None.
        tool_template: jinja2 for conversations with tools where they have their own, or None.
        begins_chats: as for `Tokenizer`; only our own files say it.
    """

    backend: tokenizers.Tokenizer
    special: Mapping[str, str | None]
    stop_ids: frozenset[int]
    chat_template: str | None
    tool_template: str | None = None
    begins_chats: bool = False


def read_files(directory: Path) -> TokenizerFiles:
    """Reads tokenizer.json, or else Mistral's tekken.json, and what stands beside it.

    Raises:
        TokenizerError: there is neither, or a file is damaged.
    """
    path = _tokenizer_file(directory)
    if path.stat().st_size > _LARGEST_TOKENIZER:
        raise TokenizerError(
            f"{path} is too large.", given=path.stat().st_size, expected=f"at most {_LARGEST_TOKENIZER}"
        )
    is_tekken = path.name == TEKKEN_FILE
    backend = tokenizer_from_tekken(path) if is_tekken else _backend(path)
    config = _json(directory / "tokenizer_config.json")
    map_ = _json(directory / "special_tokens_map.json")
    # The map is the older of the two; where the configuration lists its tokens itself, the map is out of date.
    named = map_ | config if "added_tokens_decoder" in config else config | map_
    special = {role: _text(named.get(f"{role}_token")) for role in _ROLES}
    if is_tekken:
        special |= {role: text for role, text in TEKKEN_ROLES.items() if backend.token_to_id(text) is not None}
    try:
        _add_tokens(backend, config.get("added_tokens_decoder"), named)
    except Exception as error:  # the Rust side raises bare ones
        raise TokenizerError(f"{directory}: the tokens cannot be added.", given=str(error)[:300]) from error
    templates = _templates(directory, config)
    return TokenizerFiles(
        backend,
        special,
        _stops(directory),
        templates.get("default"),
        tool_template=templates.get("tool_use"),
        begins_chats=config.get(_BEGINS) is True,
    )


def _tokenizer_file(directory: Path) -> Path:
    for name in ("tokenizer.json", TEKKEN_FILE):
        if (directory / name).is_file():
            return directory / name
    there = sorted(entry.name for entry in directory.glob("*"))[:20] if directory.is_dir() else "no such directory"
    raise TokenizerError(
        f"{directory} has no tokenizer.json.",
        given=there,
        expected=f"a fast tokenizer's tokenizer.json, or Mistral's {TEKKEN_FILE}",
        hint="load it with transformers' AutoTokenizer and save it again: that writes tokenizer.json",
    )


def _backend(path: Path) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except BaseException as error:  # a panic in Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise TokenizerError(f"{path} is damaged.", given=str(error)[:300]) from error
    size = backend.get_vocab_size(with_added_tokens=True)
    if size > _MOST_TOKENS:
        raise TokenizerError(f"{path} has too many tokens.", given=size, expected=f"at most {_MOST_TOKENS}")
    return backend


def _add_tokens(backend: tokenizers.Tokenizer, declared: Any, named: Mapping[str, Any]) -> None:
    """Adds what the configuration declares otherwise than tokenizer.json, as `transformers` does.

    Unlike there, a token that is only named, but has no id anywhere, is left out: the model has no embedding for it.
    """
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for number, entry in _by_number(declared):
        text = _text(entry)
        if text and backend.token_to_id(text) in (number, None):
            is_special = bool(entry.get("special")) or (text in known and known[text].special)
            token = _added_token(text, entry, is_special)
            if text not in known or repr(token) != repr(known[text]):
                backend.add_special_tokens([token]) if is_special else backend.add_tokens([token])
                known[text] = token
    for entry in _named(named):
        text = _text(entry)
        if text and backend.token_to_id(text) is not None and not (text in known and known[text].special):
            flags = _flags(known[text]) if text in known else entry
            known[text] = _added_token(text, flags if isinstance(flags, dict) else {}, True)
            backend.add_special_tokens([known[text]])


def _by_number(declared: Any) -> list[tuple[int, dict[str, Any]]]:
    entries = declared.items() if isinstance(declared, dict) else ()
    numbered = ((key, entry) for key, entry in entries if len(key) < 10 and key.isdecimal() and isinstance(entry, dict))
    return sorted(((int(key), entry) for key, entry in numbered), key=lambda pair: pair[0])


def _named(named: Mapping[str, Any]) -> list[Any]:
    """Tokens that the configuration gives a role, alone or in a list."""
    lists = [named.get(name) for name in _LISTS]
    listed = [list(found.values()) if isinstance(found, dict) else found for found in lists]
    return [named.get(name) for name in _NAMES] + [
        entry for found in listed if isinstance(found, list) for entry in found
    ]


def _flags(token: tokenizers.AddedToken) -> dict[str, bool]:
    return {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word", "normalized")}


def _added_token(text: str, flags: Mapping[str, Any], special: bool) -> tokenizers.AddedToken:
    sides = {name: bool(flags.get(name)) for name in ("lstrip", "rstrip", "single_word")}
    return tokenizers.AddedToken(text, special=special, normalized=bool(flags.get("normalized", not special)), **sides)


def write_files(directory: Path, files: TokenizerFiles) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the template, as `transformers` reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    files.backend.save(str(directory / "tokenizer.json"), pretty=False)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": text for role, text in files.special.items() if text is not None}
    if files.begins_chats:
        config[_BEGINS] = True
    if files.tool_template is not None:
        named = {"default": files.chat_template, "tool_use": files.tool_template}
        config["chat_template"] = [{"name": name, "template": text} for name, text in named.items() if text is not None]
    elif files.chat_template is not None:
        config["chat_template"] = files.chat_template
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
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
        found |= {number for number in (ends if isinstance(ends, list) else [ends]) if type(number) is int}
    return frozenset(found)


def _templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; the usual one is ``default``."""
    path = directory / "chat_template.jinja"
    found = _json(directory / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(found, list):  # several, each with a name
        named = {str(entry.get("name")): entry.get("template") for entry in found if isinstance(entry, dict)}
    else:
        named = {"default": found}
    templates = {name: text for name, text in named.items() if isinstance(text, str)}
    others = {
        file.stem: file for file in sorted((directory / "additional_chat_templates").glob("*.jinja"))[:_MOST_FILES]
    }
    files = others | ({"default": path} if path.is_file() else {})
    return templates | {name: _read_text(file) for name, file in files.items()}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"{path.stat().st_size} bytes")
        return path.read_text(encoding="utf-8")
    except (ValueError, OSError) as error:
        raise TokenizerError(f"{path} is damaged.", given=str(error)) from error
