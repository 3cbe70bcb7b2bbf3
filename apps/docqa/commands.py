"""The commands that index documents and answer questions about them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...sdk import InvalidInputError, Model, Options, SensoriumError
from ...sdk.options import options_from
from ...sdk.progress import default_progress
from ..loading import Loading, load_model
from ..terminal import print_answer, print_json, print_table, waiting

if TYPE_CHECKING:
    from .answers import AnswerStream, DocumentAnswer
    from .library import Library

__all__ = ["add", "app", "ask", "list_documents", "remove"]

app = typer.Typer(help="Index documents, and ask about them.", no_args_is_help=True)

Store = Annotated[Path, typer.Option("--store", "-s", help="Folder of the index.")]
Embedding = Annotated[
    str | None, typer.Option(help="Model that the index is made with: card name or directory.", show_default="minilm")
]
ModelName = Annotated[str, typer.Option("--model", "-m", help="As of `sensorium ask`.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@app.command()
def add(
    paths: Annotated[list[str], typer.Argument(help="Files and folders; hidden files in folders are left out.")],
    store: Store,
    embedding: Embedding = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Describes images and sounds.")] = "nano",
    quiet: Quiet = False,
) -> None:
    """Add files to an index: text, Markdown, HTML, PDF, DOCX, images, sounds. What has not changed costs nothing."""
    from .indexing import files_in

    files = [file for path in paths for file in files_in(path)]
    if not files:
        raise InvalidInputError("There are no files in it.", given=", ".join(paths), expected="one at least")
    library = _library(store, embedding, quiet=quiet, made=True)
    failed = 0
    # A bar on a terminal takes over what is printed meanwhile: right for a terminal, wrong for a pipe.
    out = None if sys.stdout.isatty() else sys.stdout
    for added in library.add(files, model=_lazily(model, quiet=quiet), progress=default_progress(quiet=quiet)):
        if added.error is not None:
            failed += 1
            print(f"failed     {_shown(added.source)}\n{_indented(added.error)}", file=sys.stderr)
        else:
            print(f"{added.outcome:<9}  {_shown(added.source)}  ({added.passages} passages)", file=out, flush=True)
    if failed:
        given = f"{failed} of {len(files)}"
        raise SensoriumError("Not all files could be added.", given=given, hint="the others are in the index")


@app.command(name="list")
def list_documents(store: Store, as_json: AsJson = False) -> None:
    """List the documents in an index."""
    entries = _library(store).documents()
    if as_json:
        print_json({"documents": [entry.to_dict() for entry in entries]})
        return
    rows = [
        (entry.id, _shown(entry.name), entry.format, str(entry.passages), _shown(entry.source)) for entry in entries
    ]
    print_table(("ID", "NAME", "FORMAT", "PASSAGES", "SOURCE"), rows)


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="Ids, paths, or names that only one document has.")], store: Store
) -> None:
    """Remove documents from an index; the files stay."""
    for entry in _library(store).remove(names):
        print(f"removed    {_shown(entry.source)}")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    store: Store,
    model: ModelName = "nano",
    embedding: Embedding = None,
    passages: Annotated[int, typer.Option(help="How many passages are searched for.")] = 5,
    sentences: Annotated[
        int | None,
        typer.Option(help="How many of their sentences the model reads; 0 for all.", show_default="3 for nano, else 0"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least cosine of the best passage; below, the answer is a refusal.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens to generate.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer a question from the documents of an index, with the places that support each sentence."""
    from .answers import THRESHOLD

    if not question.strip():
        raise InvalidInputError("The question is empty.", given=repr(question), expected="some text")
    options: Options = {"max_new_tokens": max_new_tokens} if max_new_tokens is not None else {}
    options_from(options, {})  # a wrong option is told before anything is loaded
    library = _library(store, embedding, quiet=quiet or as_json)
    least = THRESHOLD if threshold is None else threshold
    loaded = _lazily(model, quiet=quiet or as_json, device=device)
    with waiting("Searching …", quiet=quiet or as_json):
        library.search(question, passages)  # loads what a search needs; again, it takes no time
    answer = library.ask(loaded, question, k=passages, threshold=least, sentences=sentences, **options)
    if as_json:
        print_json({"model": model, **answer.result.to_dict()})
        return
    print_answer(_pieces(answer))
    _tell(answer.result)


def _pieces(answer: AnswerStream) -> Iterator[str]:
    for number, statement in enumerate(answer):
        yield ("" if number == 0 else " ") + _shown(str(statement))
    if not answer.result.statements:
        yield answer.result.text


def _tell(answer: DocumentAnswer) -> None:
    """What follows the sentences: their sources."""
    citations = [statement.citation for statement in answer.statements if statement.citation]
    if answer.statements and not citations and answer.nearest:
        print("\nNo passage supports this. Nearest to the question:")
        citations = list(answer.nearest)
    elif citations:
        print()
    for citation in dict.fromkeys(citations):
        quote = " ".join(citation.quote.split())
        by = f" (described by {citation.passage.made_by})" if citation.passage.made_by else ""
        print(_shown(f"[{citation.number}] {citation.passage.place}{by}: “{quote}”"))
    notes = {"length": "ended; --max-new-tokens allows more", "repeats": "ended: the model repeats itself"}
    if answer.finish_reason in notes:
        print(f"[{notes[answer.finish_reason]}]", file=sys.stderr)


def _library(store: Path, embedding: str | None = None, *, quiet: bool = True, made: bool = False) -> Library:
    if not made and not (store.expanduser() / "passages.lance").is_dir():
        hint = "make one: sensorium docs add FILE --store FOLDER"
        raise InvalidInputError("There is no index in this folder.", given=str(store), hint=hint)
    from .library import Library

    return Library(store, embedding, quiet=quiet)


def _lazily(name: str, *, quiet: bool, device: str = "auto") -> Callable[[], Model]:
    """Loads a model when it is first needed, and once."""
    loaded: list[Model] = []

    def model() -> Model:
        if not loaded:
            loaded.append(load_model(name, Loading(device=device), quiet=quiet))
        return loaded[0]

    return model


def _shown(text: str) -> str:
    """Text of strangers for a terminal: its control characters could move the cursor or worse."""
    return "".join(character if character.isprintable() or character in " \t" else "\ufffd" for character in text)


def _indented(error: SensoriumError) -> str:
    return "\n".join(f"  {_shown(line)}" for line in str(error).splitlines())
