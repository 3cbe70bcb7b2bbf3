"""``sensorium translate``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ...sdk import InvalidInputError, SensoriumError, Text, read_part
from ..loading import load_model
from ..terminal import print_json
from .documents import Part, Summary, translate_document
from .formats import FORMATS, Document, cut, recognise
from .glossary import Glossary, read_glossary
from .journal import Journal
from .languages import Language, language
from .translator import Translator

__all__ = ["translate_command"]

_BOM = "\ufeff"
_EVERY = 3.0  # seconds between two lines of progress
_LARGEST = 16 << 20  # bytes
_POOR = {"nano": "nano is a small model of English (135 million parameters): its translations are poor, often nonsense"}


@dataclass(frozen=True, slots=True)
class _Job:
    """What the command line asks for, checked."""

    document: Document
    source: Language
    target: Language
    glossary: Glossary
    out: Path | None


def translate_command(
    to: Annotated[str, typer.Option("--to", help="Language to translate to: fr, French, pt-BR.")],
    file: Annotated[Path | None, typer.Argument(help="Text, Markdown, .srt or .vtt; standard input if none.")] = None,
    source: Annotated[str, typer.Option("--from", help="Language of the text.")] = "en",
    model: Annotated[
        str, typer.Option("--model", "-m", help="Card name, directory, .gguf file or hub repository owner/name.")
    ] = "nano",
    glossary: Annotated[Path | None, typer.Option(help="Terms: TOML, or lines of source = target.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the translation here; goes on where it was stopped.")] = None,
    format: Annotated[str, typer.Option(help=f"auto, {', '.join(FORMATS)}.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only what went wrong is told.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Translate a text, Markdown or subtitles; code, tags, timings and placeholders stay as they are."""
    languages = (language(source), language(to))
    terms = Glossary() if glossary is None else read_glossary(glossary)
    if out is not None:
        _check_out(out, file, overwrite)
    job = _Job(_document(file, format), *languages, terms, out)
    silent = quiet or as_json
    if model in _POOR and not quiet:
        print(f"[{_POOR[model]}; --model takes a better one]", file=sys.stderr)
    translator = Translator(load_model(model, quiet=silent), job.source, job.target, job.glossary)
    summary, parts = _run(job, translator, quiet=silent, shown=out is None and not as_json)
    if as_json:
        print_json(_report(job, model, parts, summary))
    if not silent or summary.not_translated or summary.missed:
        print(f"[{summary}]", file=sys.stderr)
    if summary.segments and summary.not_translated == summary.segments:
        raise typer.Exit(1)


def _run(job: _Job, translator: Translator, *, quiet: bool, shown: bool) -> tuple[Summary, list[Part]]:
    """Translates; writes each segment as soon as it is done, to standard output or to the journal."""
    journal = Journal(translator, None if job.out is None else job.out.with_name(job.out.name + ".partial"))
    if len(journal) and not quiet:
        print(f"[goes on from {journal.path}: {len(journal)} segments are there]", file=sys.stderr)
    try:
        parts = _follow(translate_document(job.document, translator, journal), job, quiet=quiet, shown=shown)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritten(error) from None
    except BaseException:
        if journal.path is not None and len(journal):
            print(
                f"[{journal.path} keeps {len(journal)} segments; the same command goes on from there]", file=sys.stderr
            )
        raise
    finally:
        journal.close()
    if job.out is not None:
        _write(job.out, "".join(part.text for part in parts))
        journal.remove()
    summary = Summary()
    for part in parts:
        summary.add(part)
    return summary, parts


def _follow(translated: Iterable[Part], job: _Job, *, quiet: bool, shown: bool) -> list[Part]:
    """The parts, each written as soon as it is done; where none is shown, a line now and then tells how far it is."""
    write = _writer() if shown else None
    total, spoke, done = len(job.document.segments), time.monotonic(), 0
    parts: list[Part] = []
    for part in translated:
        parts.append(part)
        done += part.outcome is not None
        if write is not None:
            write(part.text)
        elif not quiet and time.monotonic() - spoke >= _EVERY:
            print(f"[{done} of {total} segments]", file=sys.stderr, flush=True)
            spoke = time.monotonic()
    return parts


def _writer() -> Callable[[str], None]:
    """Writes to standard output: what a terminal can show, or UTF-8 as it is to a file or another program."""
    if sys.stdout.isatty():
        return lambda text: print(text, end="", flush=True)

    def write(text: str) -> None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()

    sys.stdout.flush()
    return write


def _document(file: Path | None, format: str) -> Document:
    """The text, cut; a byte order mark is kept as the first of its parts.

    Raises:
        InvalidInputError: no such file, an empty or too large one, or an unknown format.
        UnsupportedInputError: it is no text.
    """
    if format not in ("auto", *FORMATS):
        raise InvalidInputError("There is no such format.", given=format, expected=f"auto, {', '.join(FORMATS)}")
    if file is not None and not file.is_file():
        raise InvalidInputError("There is no such file.", given=str(file), expected="a file that exists")
    name = "standard input" if file is None else file.name
    data = sys.stdin.buffer.read(_LARGEST + 1) if file is None else _read(file)
    if len(data) > _LARGEST:
        raise InvalidInputError(f"{name} is too large.", given="more", expected=f"at most {_LARGEST} bytes")
    part = read_part(data, name=name)
    if not isinstance(part, Text):
        raise InvalidInputError(f"{name} is no text.", given=repr(part), expected="text, Markdown or subtitles")
    text = _BOM + part.text if data.startswith(_BOM.encode()) else part.text
    return cut(text, recognise(text, None if file is None else name) if format == "auto" else format)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_LARGEST + 1)


def _check_out(out: Path, file: Path | None, overwrite: bool) -> None:
    if file is not None and out.exists() and file.exists() and out.samefile(file):
        raise InvalidInputError("A translation cannot take its source's place.", given=str(out), hint="another --out")
    if not out.parent.is_dir():
        raise InvalidInputError("There is no such directory.", given=str(out.parent), expected="one that exists")
    if out.is_dir() or (out.exists() and not overwrite):
        hint = None if out.is_dir() else "--overwrite replaces it"
        raise InvalidInputError("There is something at that place already.", given=str(out), hint=hint)


def _write(out: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=out.name, suffix=".new", delete=False) as stream:
            name = stream.name
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        mode = out.stat().st_mode & 0o777 if out.exists() else 0o666 & ~_umask()
        Path(name).chmod(mode)
        Path(name).replace(out)
    except OSError as error:
        raise _unwritten(error) from None
    finally:
        if name is not None:
            with suppress(OSError):
                Path(name).unlink()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _unwritten(error: OSError) -> SensoriumError:
    hint = "what is translated is kept in the .partial file; the same command goes on from there"
    return SensoriumError("The translation could not be written.", given=str(error), hint=hint)


def _report(job: _Job, model: str, parts: list[Part], summary: Summary) -> dict[str, Any]:
    segments = [
        {**asdict(part.outcome), "glossary_missed": list(part.missed)} for part in parts if part.outcome is not None
    ]
    written = {"out": str(job.out)} if job.out else {"text": "".join(part.text for part in parts)}
    return {
        "model": model,
        "from": job.source.code,
        "to": job.target.code,
        "format": job.document.format,
        "segments": segments,
        "not_translated": summary.not_translated,
        **written,
    }
