"""``manifest.json``: what a bundle holds, from which model it was made, and how good it is.

It carries its own digest, and size and sha256 of every other file: nothing in a bundle can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from ...encoders.errors import CheckpointError, IntegrityError
from ...encoders.storage import read_json, shortened

__all__ = ["FORMAT", "MANIFEST", "FileEntry", "Manifest", "MediaEntry", "read_manifest", "write_manifest"]

#: The version of the format that this code writes, and the newest that it reads. 1 had no media, 2 no target, 3 neither
#: caches in 8 bits, graphs for prompts, nor positions of three axes.
FORMAT = 4
#: The manifest's name in a bundle.
MANIFEST = "manifest.json"

_MOST_FILES = 256
_LARGEST = 1 << 26  # of a size of the decoder: a hostile file may claim anything
_LEGAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?")
# Names that Windows keeps for devices.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle.

    Attributes:
        size: bytes.
        sha256: in hexadecimal.
    """

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class MediaEntry:
    """How the bundle reads one modality.

    Attributes:
        placeholder: text of the control token that stands at each position of an item.
        details: file of what else is needed: words that a graph gives probabilities of, control tokens.
        least, most: positions that one item takes in a prompt, without the text around them.
        limits: of what is read, numbers by name, as `sdk.Limits` has them.
    """

    placeholder: str
    details: str
    least: int
    most: int
    limits: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        format: version of the format.
        source: name of the model that it was made from.
        licence: of that model; SPDX identifier, or "" if it does not say.
        family: of the decoder or text encoder.
        quantization: name of how its weights are stored.
        target: what it was exported for: a name in `mobile_export.targets`.
        decoder: layers, kv_heads, head_size, vocabulary_size, context_length and, if not 32, cache_bits; of a text
            encoder the first, the fourth and the fifth.
        graphs: the file of each graph, by what it does.
        modalities: what it reads.
        adapters: files of the adapters beside it, by their names.
        media: how it reads what is no text, by modality.
        adapter: name of the adapter that prompts with media are read with, or "".
        interfaces: of each graph, by what it does: ``inputs`` and ``outputs``, each a type and shape by name.
        files: size and sha256 of every file but the manifest, by its path in the bundle.
        figures: how it compares with its source on a text; numbers by name.
        producer: what wrote it.
    """

    format: int = FORMAT
    source: str
    licence: str
    family: str
    quantization: str
    target: str = "onnx"
    decoder: dict[str, int]
    graphs: dict[str, str]
    modalities: tuple[str, ...] = ("text",)
    adapters: dict[str, str] = field(default_factory=dict)
    media: dict[str, MediaEntry] = field(default_factory=dict)
    adapter: str = ""
    interfaces: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    producer: str = "sensorium"


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest with its digest."""
    raw = asdict(manifest)
    raw["digest"] = _digest(raw)
    (directory / MANIFEST).write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle, checked; its files are checked by `check_files`.

    Raises:
        CheckpointError: there is none, it is of a newer format, or it says what cannot be.
        IntegrityError: it is not as it was written.
    """
    if not (directory / MANIFEST).is_file():
        raise CheckpointError(f"{directory} is no bundle.", given="no manifest.json", expected="an exported bundle")
    raw = read_json(directory / MANIFEST)
    version = raw.get("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise CheckpointError(
            "This bundle is of a format that is not read here.",
            given=f"format {shortened(version)}",
            expected=f"1 to {FORMAT}",
            hint="update Sensorium, or export the model again",
        )
    digest = raw.pop("digest", None)
    if digest != _digest(raw):
        given, hint = f"digest {shortened(digest)}", "fetch or export the bundle again"
        raise IntegrityError("The manifest of this bundle was changed or damaged.", given=given, hint=hint)
    return _checked(raw)


def _digest(raw: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _checked(raw: dict[str, Any]) -> Manifest:
    hints = get_type_hints(Manifest)
    if raw["format"] < FORMAT:
        raw = {"media": {}, "adapter": "", "interfaces": {}, "target": "onnx", "adapters": {}} | raw
    problems = [f"{name} = {shortened(raw.get(name))}" for name in hints if not _fits(raw.get(name), hints[name])]
    problems += [f"unknown field {shortened(name)}" for name in raw.keys() - hints.keys()]
    if problems:
        raise CheckpointError("The manifest of this bundle cannot be read.", given="; ".join(problems[:4]))
    files = {name: _entry(name, entry) for name, entry in raw["files"].items()}
    if len(files) > _MOST_FILES:
        given = f"{len(files)} files"
        raise CheckpointError("The manifest names too many files.", given=given, expected=f"at most {_MOST_FILES}")
    for what, name in [*raw["graphs"].items(), *raw["adapters"].items()]:
        if not isinstance(name, str) or name not in files:
            raise CheckpointError(f"The bundle's {shortened(what)} is no file of it.", given=shortened(name))
    for name, value in raw["decoder"].items():
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise CheckpointError(f"The decoder's {shortened(name)} is no size.", given=shortened(value))
    if not _are_numbers(raw["figures"]):
        raise CheckpointError("The manifest's figures are no numbers.", given=shortened(raw["figures"]))
    media = {kind: _media_entry(kind, entry, files) for kind, entry in raw["media"].items()}
    return Manifest(**{**raw, "files": files, "media": media, "modalities": tuple(raw["modalities"])})


def _media_entry(kind: str, entry: object, files: Mapping[str, FileEntry]) -> MediaEntry:
    hints = get_type_hints(MediaEntry)
    if isinstance(entry, dict) and entry.keys() == hints.keys():
        fits = all(_fits(entry[name], hint) for name, hint in hints.items())
        if (
            fits
            and _are_numbers(entry["limits"])
            and entry["details"] in files
            and 0 <= entry["least"] <= entry["most"] <= _LARGEST
        ):
            return MediaEntry(**entry)
    raise CheckpointError(f"The manifest does not say how {shortened(kind)} is read.", given=shortened(entry))


def _are_numbers(values: Mapping[str, object]) -> bool:
    return all(type(value) in (int, float) for value in values.values())


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is dict:
        return isinstance(value, dict)
    if origin is tuple:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return type(value) is hint


def _entry(name: str, entry: object) -> FileEntry:
    # A name that leads out of the bundle, or means something else on another system, is refused, whatever it is for.
    if not _LEGAL_NAME.fullmatch(name) or ".." in name or _DEVICES.match(name.rpartition("/")[2]):
        raise CheckpointError(
            "The manifest names a file that cannot be in a bundle.",
            given=shortened(name),
            expected="letters, digits, dots and dashes, in the bundle or one folder below",
        )
    if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
        raise CheckpointError(f"The manifest says nothing of {name}.", given=shortened(entry))
    size, sha256 = entry["size"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise CheckpointError(f"The manifest has no size and sha256 of {name}.", given=shortened(entry))
    return FileEntry(size, sha256)
