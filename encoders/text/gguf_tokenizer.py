"""Rebuilds a fast tokenizer from a GGUF file's metadata, as `transformers` does with the same file.

Where `transformers` takes GPT-2's pre-tokenizer for a name that it does not know, the one that the model was trained
with is taken here (`pre_tokenizers.py`), so that ids are those of the model's own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import TokenizerError
from .gguf_vocabulary import GGUFVocabulary, TokenType, plain_metadata
from .pre_tokenizers import adds_bos, ignores_merges, normalizer, pre_tokenizer

__all__ = ["tokenizer_from_gguf"]

_SPACE = "▁"
_MOST_CUTS = 1 << 24  # places at which SentencePiece's tokens are tried as merges


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file describes.

    Args:
        metadata: of the file; ``tokenizer.ggml.model`` is ``gpt2`` (byte-level BPE), ``llama`` (SentencePiece's BPE)
            or ``t5`` (unigram).

    Raises:
        TokenizerError: none there, of an unknown kind, or damaged.
    """
    words = GGUFVocabulary(plain_metadata(metadata))
    kind = words.name("model", "none")
    if kind not in _BUILDERS:
        raise TokenizerError("Unknown kind of tokenizer in a GGUF file.", given=kind, expected=", ".join(_BUILDERS))
    try:
        tokenizer = _BUILDERS[kind](words)
        _add_tokens(tokenizer, words)
        _add_border_tokens(tokenizer, words, kind)
    except TokenizerError:
        raise
    except BaseException as error:  # the Rust side raises bare exceptions, and panics that are no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise TokenizerError("The GGUF file's tokenizer cannot be built.", given=str(error)[:300]) from error
    if tokenizer.get_vocab_size(with_added_tokens=True) != len(words.tokens):
        given = tokenizer.get_vocab_size(with_added_tokens=True)
        raise TokenizerError("The GGUF file's tokens are damaged.", given=given, expected=f"{len(words.tokens)} tokens")
    return tokenizer


def _byte_level(words: GGUFVocabulary) -> Tokenizer:
    name = words.name("pre", "default")
    ignore = words.flag("ignore_merges", ignores_merges(name))
    pre = pre_tokenizer(name)  # before the work: an unknown name is the likeliest fault
    tokenizer = Tokenizer(models.BPE(vocab=words.ids, merges=words.merges, ignore_merges=ignore))
    tokenizer.pre_tokenizer = pre
    tokenizer.normalizer = normalizer(name)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(words: GGUFVocabulary) -> Tokenizer:
    """SentencePiece's BPE keeps scores only; merges follow from them: the better a pair's result, the earlier."""
    family = str(words.metadata.get("general.architecture", ""))
    is_gemma = family.startswith("gemma")
    tokens = [_gemma_spelling(token) for token in words.tokens] if is_gemma else words.tokens
    ids = {token: number for number, token in enumerate(tokens)}
    # Gemma's scores do not follow the order of its merges; the order of its tokens does.
    scores = [-float(number) for number in ids.values()] if is_gemma else words.scores
    merges = words.merges if words.has("merges") else _merges(ids, scores, words.types)
    unknown = tokens[words.role("unknown") or 0]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = words.flag("add_space_prefix", not is_gemma)
    tokenizer.decoder = _sentencepiece_decoder(prefix)
    if family == "phi3" and prefix:  # its tokenizer.json puts a space before every piece, also before a space
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    else:
        scheme = "first" if prefix else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)
    return tokenizer


def _sentencepiece_decoder(prefix: bool) -> decoders.Decoder:
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)  # type: ignore[list-item]


def _gemma_spelling(token: str) -> str:
    """Runs of spaces are written as spaces in Gemma's files, though the text they are matched with has ▁."""
    return _SPACE * len(token) if token.isspace() and set(token) == {" "} else token


def _merges(ids: Mapping[str, int], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others, best score first, then the longest left part.

    Control, byte and unused tokens take no part: no text may be merged into one.
    """
    usable = {token for token, number in ids.items() if types[number] in (TokenType.NORMAL, TokenType.USER_DEFINED)}
    if sum(map(len, usable)) > _MOST_CUTS:
        raise TokenizerError("The GGUF file's vocabulary is too long.", expected=f"{_MOST_CUTS} characters in all")
    found: list[tuple[float, int, int, str, str]] = []
    for token, number in ids.items():
        if token in usable:
            score = max(scores[number], 0.0) if types[number] == TokenType.USER_DEFINED else scores[number]
            pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
            known = [pair for pair in pairs if pair[0] in usable and pair[1] in usable]
            known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            found += [(score, len(left), len(right), left, right) for left, right in known]
    found.sort(key=lambda entry: entry[:3], reverse=True)
    return [(left, right) for *_, left, right in found]


def _unigram(words: GGUFVocabulary) -> Tokenizer:
    has_bytes = "<0x00>" in words.ids
    pieces = list(zip(words.tokens, map(float, words.scores), strict=True))
    unknown = words.role("unknown")
    if unknown is None:
        unknown = words.types.index(TokenType.UNKNOWN) if TokenType.UNKNOWN in words.types else 0
    tokenizer = Tokenizer(models.Unigram(pieces, unknown, has_bytes))
    charsmap = words.metadata.get("tokenizer.ggml.precompiled_charsmap")
    steps = [normalizers.Precompiled(bytes(byte % 256 for byte in charsmap))] if charsmap else []
    scheme = "always" if words.flag("add_space_prefix", True) else "never"
    squeezes = words.flag("remove_extra_whitespaces", True)
    if squeezes and scheme == "never":  # cut at spaces, nothing would tell where they were
        steps += [normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    spaces = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=squeezes)
    parts = [pre_tokenizers.WhitespaceSplit(), spaces] if squeezes and scheme == "always" else [spaces]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)  # type: ignore[arg-type]
    blank = decoders.Metaspace(_SPACE, prepend_scheme=scheme, split=squeezes)
    tokenizer.decoder = _sentencepiece_decoder(scheme != "never") if has_bytes else blank
    return tokenizer


_BUILDERS: dict[str, Callable[[GGUFVocabulary], Tokenizer]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "t5": _unigram,
}


def _add_tokens(tokenizer: Tokenizer, words: GGUFVocabulary) -> None:
    """Control tokens, and those with a role, are special; user-defined ones are matched whole, but are text.

    Padding is no such role: files without a token of its own for it name an ordinary one.
    """
    roles = {words.role(name) for name in ("bos", "eos", "unknown")}
    controls = [
        token
        for number, (token, type_) in enumerate(zip(words.tokens, words.types, strict=True))
        if type_ in (TokenType.CONTROL, TokenType.UNKNOWN) or number in roles
    ]
    users = [token for token, type_ in zip(words.tokens, words.types, strict=True) if type_ == TokenType.USER_DEFINED]
    for found, special in ((controls, True), (users, False)):
        # Not the runs of spaces that were spelled anew: the merges make those.
        added = [AddedToken(token, special=special, normalized=False) for token in found]
        added = [token for token in added if token.content and tokenizer.token_to_id(token.content) is not None]
        tokenizer.add_special_tokens(added) if special else tokenizer.add_tokens(added)


def _add_border_tokens(tokenizer: Tokenizer, words: GGUFVocabulary, kind: str) -> None:
    """Tokens that are put before and after every text."""
    wanted = {
        "bos": words.flag("add_bos_token", kind == "llama" or (kind == "gpt2" and adds_bos(words.name("pre", "")))),
        "eos": words.flag("add_eos_token", kind == "t5"),
    }
    ids = {name: words.role(name) for name, is_wanted in wanted.items() if is_wanted}
    names = {name: tokenizer.id_to_token(number) for name, number in ids.items() if number is not None}
    if names:
        single = [*([names["bos"]] if "bos" in names else []), "$A", *([names["eos"]] if "eos" in names else [])]
        pairs = [(token, ids[name]) for name, token in names.items()]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)  # type: ignore[arg-type]
