"""Rebuilds a fast tokenizer from a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from ..errors import TokenizerError
from .pre_tokenizers import pre_tokenizer

__all__ = ["tokenizer_from_gguf"]

_KEY = "tokenizer.ggml."
_MOST_TOKENS = 1 << 20
_LONGEST_TOKEN = 4096  # characters
_CONTROL, _USER_DEFINED = 3, 4
_SPACE = "▁"


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file describes.

    Args:
        metadata: of the file; ``tokenizer.ggml.model`` is ``gpt2`` (byte-level BPE), ``llama`` (SentencePiece's BPE)
            or ``t5`` (unigram).

    Raises:
        TokenizerError: none there, of an unknown kind, or damaged.
    """
    kind, tokens = metadata.get(_KEY + "model"), _tokens(metadata)
    builders = {"gpt2": _byte_level, "llama": _sentencepiece, "t5": _unigram}
    if kind not in builders:
        raise TokenizerError("Unknown kind of tokenizer in a GGUF file.", given=kind, expected=sorted(builders))
    tokenizer = builders[kind](metadata, tokens)
    for token, type_ in zip(tokens, metadata.get(_KEY + "token_type") or (), strict=False):
        # One by one: the order of ids is the order of tokens.
        if type_ in (_CONTROL, _USER_DEFINED):
            added = AddedToken(token, special=type_ == _CONTROL, normalized=False)
            tokenizer.add_special_tokens([added]) if type_ == _CONTROL else tokenizer.add_tokens([added])
    _add_border_tokens(tokenizer, metadata, tokens)
    return tokenizer


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = metadata.get(_KEY + "tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise TokenizerError("The GGUF file has no tokenizer.", given=type(tokens).__name__, expected=_KEY + "tokens")
    if max(map(len, tokens)) > _LONGEST_TOKEN:
        raise TokenizerError("A token is longer than any text would use.", expected=f"{_LONGEST_TOKEN} characters")
    types, scores = metadata.get(_KEY + "token_type") or tokens, metadata.get(_KEY + "scores") or tokens
    if len(tokens) > _MOST_TOKENS or len(types) != len(tokens) or len(scores) != len(tokens):
        given = f"{len(tokens)} tokens, {len(types)} types, {len(scores)} scores"
        raise TokenizerError("The GGUF file's vocabulary is damaged.", given=given, expected="the same number of each")
    return tokens


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        seen: set[str] = set()
        double = next(token for token in tokens if token in seen or seen.add(token))
        raise TokenizerError("A token stands twice in the GGUF file's vocabulary.", given=repr(double))
    return vocabulary


def _byte_level(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    merges = metadata.get(_KEY + "merges")
    if not isinstance(merges, list):
        raise TokenizerError("The GGUF file's byte-level tokenizer has no merges.", expected=_KEY + "merges")
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    ignore = bool(metadata.get(_KEY + "ignore_merges", metadata.get(_KEY + "pre") in ("llama-bpe", "llama3", "tekken")))
    try:
        model = models.BPE(vocab=_vocabulary(tokens), merges=pairs, ignore_merges=ignore)  # type: ignore[arg-type]
    except Exception as error:  # tokenizers raises bare exceptions
        raise TokenizerError("The GGUF file's merges do not fit its vocabulary.", given=str(error)) from error
    tokenizer = Tokenizer(model)
    name = metadata.get(_KEY + "pre", "default")
    tokenizer.pre_tokenizer = pre_tokenizer(str(name))
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    """SentencePiece's BPE keeps scores only; merges follow from them: the better a pair's result, the earlier."""
    vocabulary, scores = _vocabulary(tokens), metadata.get(_KEY + "scores")
    if not scores:
        raise TokenizerError("The GGUF file's SentencePiece tokenizer has no scores.", expected=_KEY + "scores")
    unknown = tokens[_id(metadata, "unknown", 0, len(tokens))]
    model = models.BPE(
        vocab=vocabulary, merges=_merges(vocabulary, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    return _with_spaces(Tokenizer(model), metadata)


def _merges(vocabulary: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    found = []
    for token, number in vocabulary.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(scores[number], pair) for pair in known]
    found.sort(key=lambda entry: -entry[0])
    return [pair for _, pair in found]


def _unigram(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    scores = metadata.get(_KEY + "scores")
    if not scores:
        raise TokenizerError("The GGUF file's unigram tokenizer has no scores.", expected=_KEY + "scores")
    has_bytes = "<0x00>" in tokens
    unknown = _id(metadata, "unknown", 0, len(tokens))
    pieces = [(token, float(score)) for token, score in zip(tokens, scores, strict=True)]
    return _with_spaces(Tokenizer(models.Unigram(pieces, unknown, has_bytes)), metadata)


def _with_spaces(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> Tokenizer:
    """Spaces become ▁, with one more in front of the text where the model was trained so."""
    prefix = bool(metadata.get(_KEY + "add_space_prefix", True))
    replace = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if prefix else replace
    tokenizer.pre_tokenizer = None  # type: ignore[assignment]
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _add_border_tokens(tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: Sequence[str]) -> None:
    """Tokens that are put before and after every text."""
    default = metadata[_KEY + "model"] == "llama"
    border = {"bos": metadata.get(_KEY + "add_bos_token", default), "eos": metadata.get(_KEY + "add_eos_token", False)}
    ids = {name: _id(metadata, name, None, len(tokens)) for name, wanted in border.items() if wanted}
    names = {name: tokens[number] for name, number in ids.items() if number is not None}
    if names:
        single = [*([names["bos"]] if "bos" in names else []), "$A", *([names["eos"]] if "eos" in names else [])]
        pairs = [(token, ids[name]) for name, token in names.items()]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)  # type: ignore[arg-type]


def _id(metadata: Mapping[str, Any], name: str, default: Any, size: int) -> Any:
    number = metadata.get(f"{_KEY}{name}_token_id", default)
    if number is not None and not (isinstance(number, int) and 0 <= number < size):
        raise TokenizerError(f"The GGUF file's {name} token is not in its vocabulary.", given=number, expected=f"0..{size - 1}")
    return number
