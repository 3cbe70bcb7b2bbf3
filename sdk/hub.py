"""Finds a model by what the user calls it and brings its files here."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..encoders.errors import DownloadError, IntegrityError, ModelNotFoundError, SensoriumError
from .card import Part, Source, card, card_names
from .integrity import verify
from .python_package import fetched_file, installed_file

__all__ = ["resolve"]

_REPOSITORY = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[\w./-]+\.gguf))?\Z"
)
_WANTED = ("*.json", "*.jinja", "*.safetensors", "tokenizer.model")
_NOT_WANTED = ("onnx/*", "*/*")  # other formats of the same weights
_FORMS = "a card name, a directory, a .gguf file, or a hub repository as owner/name, owner/name@revision or owner/name:file.gguf"


def resolve(source: str | Path, *, quiet: bool = False) -> Path:
    """The directory or file of a model, fetched first if it is not here.

    Args:
        source: a card name (``nano``), a directory, a GGUF file, or a hub repository as ``owner/name``,
            ``owner/name@revision`` or ``owner/name:file.gguf``. A card goes before a directory of the same name:
            write ``./nano`` for the directory.
        quiet: show no progress.

    Raises:
        ModelNotFoundError: nothing of that name.
        DownloadError: a source could not be reached, with each source's reason.
        IntegrityError: a file is not the one that its card means.
    """
    name = os.fspath(source)
    if isinstance(source, str) and source in card_names():
        return _part(card(source).part("decoder"), quiet)
    path = Path(name).expanduser()
    if path.exists():
        return _checked(path)
    match = _REPOSITORY.match(name)
    if match and not name.endswith(".gguf") or match and match["file"]:
        hub = Source(
            kind="hub", repository=match["id"], revision=match["revision"] or "main", filename=match["file"] or ""
        )
        return _from_hub(hub, quiet)
    near = difflib.get_close_matches(name, card_names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"cards: {', '.join(card_names())}"
    raise ModelNotFoundError("There is no such model.", given=name, expected=_FORMS, hint=hint)


def _checked(path: Path) -> Path:
    known = ("config.json", "manifest.json")
    if path.is_dir() and not any((path / name).is_file() for name in known):
        there = sorted(entry.name for entry in path.iterdir())[:20]
        raise ModelNotFoundError(f"{path} holds no model.", given=there, expected=" or ".join(known))
    return path


def _part(part: Part, quiet: bool) -> Path:
    """The first of a part's sources that has it."""
    reasons: list[str] = []
    for find in (_here, _fetched):
        for source in part.sources:
            try:
                path = find(source, quiet)
            except IntegrityError:
                raise
            except SensoriumError as error:
                reasons.append(f"{source}: {error.problem} {error.given or ''}".strip())
                continue
            if path is not None:
                if path.is_file():
                    verify(path, part)
                return path
    raise DownloadError(
        f"The {part.role} of this model is at none of its sources.",
        given="\n            ".join(reasons),
        hint="connect to the network, or install one of the sources by hand",
    )


def _here(source: Source, quiet: bool) -> Path | None:
    """The file if it is on this machine already."""
    if source.kind == "python-package":
        return installed_file(source)
    if source.kind == "path":
        path = Path(source.path).expanduser()
        return path if path.exists() else None
    return None


def _fetched(source: Source, quiet: bool) -> Path | None:
    if source.kind == "path":
        return None
    if source.kind == "hub":
        return _from_hub(source, quiet)
    if os.environ.get("SENSORIUM_OFFLINE"):
        raise DownloadError(f"{source} is not installed.", given="SENSORIUM_OFFLINE is set")
    if not quiet:
        print(f"Fetching {source} …", file=sys.stderr, flush=True)
    return fetched_file(source)


def _from_hub(source: Source, quiet: bool) -> Path:
    """A repository's model, or one GGUF file of it. Downloads resume, are verified and appear whole or not at all."""
    import huggingface_hub

    options = {
        "repo_id": source.repository,
        "revision": source.revision,
        "local_files_only": bool(os.environ.get("SENSORIUM_OFFLINE")),
    }
    with _progress(quiet), _explained(source):
        if source.filename:
            return Path(huggingface_hub.hf_hub_download(filename=source.filename, **options))  # type: ignore[arg-type]
        path = huggingface_hub.snapshot_download(
            allow_patterns=list(_WANTED), ignore_patterns=list(_NOT_WANTED), **options  # type: ignore[arg-type]
        )
        return _checked(Path(path))


@contextmanager
def _progress(quiet: bool) -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    change: Callable[[], None] | None = enable_progress_bars if quiet and not are_progress_bars_disabled() else None
    if change:
        disable_progress_bars()
    try:
        yield
    finally:
        if change:
            change()


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Turns the hub client's errors into ours."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = "accept its terms on its page, and set HF_TOKEN"
        raise DownloadError(f"{source} asks for its terms to be accepted.", given=_first(error), hint=hint) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        hint = f"check its name; private ones need HF_TOKEN; cards: {', '.join(card_names())}"
        raise ModelNotFoundError(f"There is no {source}.", given=_first(error), hint=hint) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.IncompleteSnapshotError) as error:
        hint = "connect to the network once, or give a directory"
        raise DownloadError(f"{source} is not here and cannot be reached.", given=_first(error), hint=hint) from error
    except (errors.HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise DownloadError(f"{source} could not be fetched.", given=_first(error)) from error


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
