"""Mistral's tekken.json against byte-pair encoding by rank, written down once more; and files that must be refused.

On the two whole files that `mistral-common` ships, ids were equal for 4,958 texts of many scripts (248,591 tokens).
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sensorium import sdk
from sensorium.encoders.text import Tokenizer
from sensorium.encoders.text.pre_tokenizers import TEKKEN

CONTROL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]", "<pad>")
TEXT = (
    "The three theatres there, then the thin thread; über den Fluß, où les élèves… 12345 «тот кто» "
    "それは猫です。\n\n  Ha-ha! "
)
SPACES = 20  # ids of control tokens


def trained(count: int) -> list[bytes]:
    """The bytes and so many merges, the most frequent pair first: tokens in the order of their ranks."""
    words = [[bytes([value]) for value in piece.encode()] for piece in re.findall(r" ?[^\W\d]+|\s+|.", TEXT * 3)]
    ranks = [bytes([value]) for value in range(256)]
    while len(ranks) < 256 + count:
        pairs = Counter(pair for word in words for pair in pairwise(word) if b"".join(pair) not in ranks)
        ranks.append(b"".join(max(pairs, key=lambda pair: (pairs[pair], pair))))
        words = [merged(word, ranks) for word in words]
    return ranks


def merged(pieces: list[bytes], ranks: list[bytes]) -> list[bytes]:
    """BPE by rank: of all neighbours that are a token together, the earliest token is made first."""
    known, pieces = {token: rank for rank, token in enumerate(ranks)}, list(pieces)
    while True:
        found = [
            (known[left + right], at) for at, (left, right) in enumerate(pairwise(pieces)) if left + right in known
        ]
        if not found:
            return pieces
        _, at = min(found)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def tekken(ranks: list[bytes], **changes: Any) -> dict[str, Any]:
    """The file: a little more is listed than is used."""
    extra = [b"not used", b"nor this"]
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(ranks + extra)
    ]
    special = [{"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(CONTROL)]
    config = {"pattern": TEKKEN, "num_vocab_tokens": len(vocab), "version": "v11"}
    config |= {"default_vocab_size": SPACES + len(ranks), "default_num_special_tokens": SPACES}
    return {"config": config, "vocab": vocab, "special_tokens": special} | changes


@pytest.fixture(scope="module")
def ranks() -> list[bytes]:
    """256 bytes and 60 longer tokens."""
    return trained(60)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[object], Tokenizer]:
    """Reads a file of this content."""

    def read(content: object) -> Tokenizer:
        (tmp_path / "tekken.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return Tokenizer.from_directory(tmp_path)

    return read


def texts() -> list[str]:
    """Whole ones, and random cuts put together."""
    numbers = random.Random(6)
    cuts = [sorted(numbers.choices(range(len(TEXT)), k=2)) for _ in range(300)]
    return [TEXT, "", " ", "[INST] <s>", *(TEXT[first:last] + TEXT[last:first:-1] for first, last in cuts)]


def test_ids_are_those_of_merging_by_rank(ranks: list[bytes], load: Callable[[object], Tokenizer]) -> None:
    regex = pytest.importorskip("regex")
    tokenizer = load(tekken(ranks))
    for text in texts():
        pieces = [match[0].encode() for match in regex.finditer(TEKKEN, text)]
        assert b"".join(pieces).decode() == text
        tokens = [token for piece in pieces for token in merged([bytes([value]) for value in piece], ranks)]
        expected = [SPACES + ranks.index(token) for token in tokens]
        found = tokenizer.encode(text, add_special=False, parse_special=False)
        assert found == expected
        assert tokenizer.decode(found) == text


def test_control_tokens_stand_in_front(ranks: list[bytes], load: Callable[[object], Tokenizer]) -> None:
    tokenizer = load(tekken(ranks))
    assert tokenizer.vocabulary_size == SPACES + len(ranks)
    assert [tokenizer.token_id(text) for text in CONTROL] == list(range(len(CONTROL)))
    assert tokenizer.token_id("<SPECIAL_19>") == 19
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 7)
    assert tokenizer.stop_ids == {2}
    assert tokenizer.encode("[INST]a[/INST]") == [1, 3, SPACES + ord("a"), 4]
    assert tokenizer.encode("[INST]", parse_special=False)[1:] == [SPACES + value for value in b"[INST]"]


def test_older_files_list_no_control_tokens(ranks: list[bytes], load: Callable[[object], Tokenizer]) -> None:
    tokenizer = load(tekken(ranks, special_tokens=None))
    assert tokenizer.token_id("[TOOL_CONTENT]") == 19 and tokenizer.token_id("<pad>") == 11


def test_a_tokenizer_json_is_preferred(ranks: list[bytes], load: Callable[[object], Tokenizer], tmp_path: Path) -> None:
    load(tekken(ranks)).save(tmp_path)
    (tmp_path / "tekken.json").write_text("damaged")
    again = Tokenizer.from_directory(tmp_path)
    assert again.encode(TEXT) == load_again(ranks, tmp_path).encode(TEXT)


def load_again(ranks: list[bytes], folder: Path) -> Tokenizer:
    """From the tekken.json alone, in a folder of its own."""
    (folder / "alone").mkdir()
    (folder / "alone" / "tekken.json").write_text(json.dumps(tekken(ranks)))
    return Tokenizer.from_directory(folder / "alone")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(sdk.TokenizerError) as caught:
        Tokenizer.from_directory(tmp_path)
    assert all(part in str(caught.value) for part in ("tokenizer.json", "tekken.json", "params.json", "AutoTokenizer"))


def changed(ranks: list[bytes], part: str, place: Any, value: Any) -> dict[str, Any]:
    """The file with one thing changed."""
    content = json.loads(json.dumps(tekken(ranks)))
    content[part][place] = value
    return content


HOSTILE: dict[str, tuple[Callable[[list[bytes]], object], str]] = {
    "no-json": (lambda _: "{", "damaged"),
    "a-list": (lambda _: [], "damaged"),
    "no-words": (lambda ranks: tekken(ranks, vocab=None), "damaged"),
    "other-pattern": (lambda ranks: changed(ranks, "config", "pattern", "(a*)*b"), "cut in a way"),
    "huge": (lambda ranks: changed(ranks, "config", "default_vocab_size", 1 << 40), "out of range"),
    "negative": (lambda ranks: changed(ranks, "config", "default_num_special_tokens", -5), "out of range"),
    "no-number": (lambda ranks: changed(ranks, "config", "default_vocab_size", True), "out of range"),
    "too-few": (lambda ranks: tekken(ranks[:300]) | {"config": tekken(ranks)["config"]}, "missing"),
    "no-bytes": (lambda ranks: tekken(ranks[:255]) | {"vocab": tekken(ranks)["vocab"]}, "missing"),
    "twice": (lambda ranks: tekken([*ranks[:-1], ranks[-2]]), "there twice"),
    "no-base64": (lambda ranks: changed(ranks, "vocab", 300, {"rank": 300, "token_bytes": "?"}), "base64"),
    "empty": (lambda ranks: changed(ranks, "vocab", 300, {"rank": 300, "token_bytes": ""}), "out of order"),
    "out-of-order": (lambda ranks: changed(ranks, "vocab", 300, {"rank": 7, "token_bytes": "YWI="}), "out of order"),
    "far-control": (
        lambda ranks: changed(ranks, "special_tokens", 2, {"rank": 99, "token_str": "x"}),
        "special_tokens",
    ),
    "nameless": (lambda ranks: changed(ranks, "special_tokens", 2, {"rank": 2, "token_str": ""}), "special_tokens"),
    "same-control": (
        lambda ranks: changed(ranks, "special_tokens", 2, {"rank": 3, "token_str": "x"}),
        "special_tokens",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damaged_files_are_refused(case: str, ranks: list[bytes], load: Callable[[object], Tokenizer]) -> None:
    content, words = HOSTILE[case]
    with pytest.raises(sdk.TokenizerError, match=words) as caught:
        load(content(ranks))
    assert "tekken.json" in str(caught.value)
