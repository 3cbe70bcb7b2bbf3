"""Mistral's tekken.json: byte-level BPE by rank, as in OpenAI's tiktoken, with control tokens in front.

id      0 … 999                  1000 … 1255          1256 …
token   <unk>, <s>, </s>, …      the 256 bytes        longer ones, the earlier the more often they occur
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, processors

from ..errors import TokenizerError
from .pre_tokenizers import TEKKEN, pre_tokenizer
from .token_bytes import byte_alphabet

__all__ = ["TEKKEN_FILE", "TEKKEN_ROLES", "tokenizer_from_tekken"]

#: The file's name.
TEKKEN_FILE = "tekken.json"
#: Texts of the tokens with a role.
TEKKEN_ROLES = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
# Of files that list none: those up to version 7.
_CONTROL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
_MOST_TOKENS = 1 << 20
_LONGEST = 1 << 10  # bytes of a token
_MOST_CUTS = 1 << 24  # places at which tokens are tried as merges


def tokenizer_from_tekken(path: Path) -> Tokenizer:
    """The tokenizer that a tekken.json describes.

    Args:
        path: of the file, whose size has been checked.

    Raises:
        TokenizerError: the file is damaged, or cuts text in a way that is not known.
    """
    try:
        return _built(json.loads(path.read_bytes()))
    except TokenizerError as error:
        problem = f"{path}: {error.problem}"
        raise TokenizerError(problem, given=error.given, expected=error.expected, hint=error.hint) from error
    except BaseException as error:  # a panic in Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise TokenizerError(f"{path} is damaged.", given=f"{type(error).__name__}: {str(error)[:300]}") from error


def _built(found: Mapping[str, Any]) -> Tokenizer:
    settings = found["config"]
    if settings["pattern"] != TEKKEN:  # also: no expression of a stranger is run
        raise TokenizerError("text is cut in a way that Sensorium does not know.", given=str(settings["pattern"])[:200])
    count, controls = settings["default_vocab_size"], settings["default_num_special_tokens"]
    if type(count) is not int or type(controls) is not int or not 0 < controls < count <= _MOST_TOKENS:
        expected = f"at most {_MOST_TOKENS} tokens, some of them control tokens"
        raise TokenizerError("sizes are out of range.", given=f"{controls} of {count}", expected=expected)
    special = _control_tokens(found.get("special_tokens"), controls)
    words = _words(found["vocab"], count - controls)
    ids = {token: number for number, token in enumerate([*special, *words])}
    if len(ids) != count:
        raise TokenizerError("some tokens are there twice.", given=f"{len(ids)} different", expected=count)
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=_merges(words), ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer("tekken")
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    begin = TEKKEN_ROLES["bos"]
    if begin in ids:
        border = {"single": [begin, "$A"], "special_tokens": [(begin, ids[begin])]}
        tokenizer.post_processor = processors.TemplateProcessing(**border)  # type: ignore[arg-type]
    return tokenizer


def _control_tokens(listed: Any, count: int) -> list[str]:
    """Texts by id; ids without a name get one."""
    entries = [{"rank": rank, "token_str": text} for rank, text in enumerate(_CONTROL)] if listed is None else listed
    named = {entry["rank"]: entry["token_str"] for entry in entries}
    wrong = [rank for rank, text in named.items() if type(rank) is not int or not 0 <= rank < count or not text]
    if wrong or len(named) != len(entries):
        given = f"{len(entries)} tokens, ranks {wrong[:5]}"
        raise TokenizerError("special_tokens are damaged.", given=given, expected=f"different ranks of 0..{count - 1}")
    return [str(named.get(rank, f"<SPECIAL_{rank}>")) for rank in range(count)]


def _words(entries: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """The `count` first tokens, in the alphabet that byte-level BPE writes bytes with."""
    letters = {value: letter for letter, value in byte_alphabet().items()}
    words: list[str] = []
    for rank, entry in enumerate(entries[:count]):
        try:
            data = base64.b64decode(entry["token_bytes"], validate=True)
        except binascii.Error as error:
            raise TokenizerError("a token is no base64.", given=f"rank {rank}: {error}") from error
        single = data == bytes([rank]) if rank < 256 else len(data) > 1
        if entry["rank"] != rank or not single or len(data) > _LONGEST:
            expected = "the 256 bytes in order, then longer tokens"
            raise TokenizerError("tokens are damaged or out of order.", given=f"rank {rank}", expected=expected)
        words.append("".join(letters[value] for value in data))
    if len(words) < max(count, 256):
        raise TokenizerError("tokens are missing.", given=len(words), expected=max(count, 256))
    return words


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Every way to put a token together from two others; the earlier token's first, as BPE by rank would choose."""
    if sum(map(len, words)) > _MOST_CUTS:
        raise TokenizerError("the vocabulary is too long.", expected=f"at most {_MOST_CUTS} bytes in all")
    ranks = {word: rank for rank, word in enumerate(words)}
    merges: list[tuple[str, str]] = []
    for word in words[256:]:
        pairs = ((word[:cut], word[cut:]) for cut in range(1, len(word)))
        known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
        merges += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges
