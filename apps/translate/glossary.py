"""A glossary: terms, and how they are to be translated."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from ...sdk import InvalidInputError
from ...sdk.content import text_of

__all__ = ["Glossary", "read_glossary"]

_LARGEST = 4 << 20  # bytes
_LONGEST = 200  # characters of a term


class Glossary:
    """Terms of the source language with those of the target language.

    Args:
        terms: source → target; sources that differ in case alone are the same.

    Raises:
        InvalidInputError: a term that is empty, too long or of several lines, or one with two translations.
    """

    def __init__(self, terms: Mapping[str, str] | None = None) -> None:
        self._terms: dict[str, tuple[str, str]] = {}
        for source, target in (terms or {}).items():
            _add(self._terms, source, target, place="the glossary")
        longest_first = sorted(self._terms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_bounded, longest_first)), re.IGNORECASE) if self._terms else None

    def __len__(self) -> int:
        return len(self._terms)

    @property
    def fingerprint(self) -> str:
        """Changes with the terms."""
        return hashlib.sha256(json.dumps(sorted(self._terms.values())).encode()).hexdigest()

    def terms_in(self, text: str) -> dict[str, str]:
        """The terms that occur in a text as whole words, in order."""
        found = self._pattern.findall(text) if self._pattern else []
        known = (self._terms.get(term.casefold()) for term in found)
        return dict(pair for pair in known if pair is not None)

    def missing(self, source: str, translation: str) -> tuple[str, ...]:
        """The terms of `source` whose translation does not occur in `translation`."""
        folded = translation.casefold()
        return tuple(term for term, target in self.terms_in(source).items() if target.casefold() not in folded)


def read_glossary(path: Path) -> Glossary:
    """Reads a glossary: a .toml file of ``"source" = "target"``, also below ``[terms]``, or such lines without quotes.

    Raises:
        InvalidInputError: no such file, or one that holds anything else; names the line.
    """
    if not path.is_file():
        raise InvalidInputError("There is no such glossary.", given=str(path), expected="a file that exists")
    if path.stat().st_size > _LARGEST:
        given, expected = f"{path.stat().st_size} bytes", f"at most {_LARGEST}"
        raise InvalidInputError(f"{path} is too large.", given=given, expected=expected)
    text = text_of(path.read_bytes(), path.name)
    pairs = _toml(text, path) if path.suffix.lower() == ".toml" else _lines(text, path)
    terms: dict[str, tuple[str, str]] = {}
    for source, target, place in pairs:
        _add(terms, source, target, place=place)
    return Glossary(dict(terms.values()))


def _toml(text: str, path: Path) -> list[tuple[str, str, str]]:
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no TOML.", given=str(error), expected='"source" = "target"') from None
    terms = table["terms"] if isinstance(table.get("terms"), dict) and len(table) == 1 else table
    for source, target in terms.items():
        if not isinstance(target, str):
            given, expected = f"{source} = {str(target)[:40]}", '"source" = "target"'
            raise InvalidInputError(f"{path} holds something else than terms.", given=given, expected=expected)
    return [(source, target, str(path)) for source, target in terms.items()]


def _lines(text: str, path: Path) -> list[tuple[str, str, str]]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        source, equals, target = line.partition("=")
        if not equals:
            expected = "source = target"
            raise InvalidInputError(f"{path}, line {number} is no term.", given=line[:80], expected=expected)
        pairs.append((source.strip(), target.strip(), f"{path}, line {number}"))
    return pairs


def _add(terms: dict[str, tuple[str, str]], source: str, target: str, *, place: str) -> None:
    for term in (source, target):
        if not term.strip() or len(term) > _LONGEST or len(term.splitlines()) != 1:
            expected = f"1 to {_LONGEST} characters in one line on both sides"
            raise InvalidInputError(f"{place}: not a term.", given=f"{source!r} = {target!r}"[:100], expected=expected)
    before = terms.setdefault(source.strip().casefold(), (source.strip(), target.strip()))
    if before[1] != target.strip():
        given = f"{source} = {before[1]}, and {target}"
        raise InvalidInputError(f"{place}: a term has two translations.", given=given, expected="one")


def _bounded(term: str) -> str:
    left = r"(?<!\w)" if re.match(r"\w", term) else ""
    right = r"(?!\w)" if re.search(r"\w\Z", term) else ""
    return left + re.escape(term) + right
