"""A library: what is added, replaced, left alone and removed; and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sensorium import sdk
from sensorium.apps.docqa import Library
from sensorium.apps.docqa.indexing import files_in
from sensorium.apps.docqa.parsers import open_document
from sensorium.sdk import InvalidInputError, UnsupportedInputError
from sensorium.sdk.testing import fake_model


def outcomes(library: Library, paths: list[Path], **options: Any) -> list[str]:
    return [added.outcome for added in library.add(paths, **options)]


def test_only_what_changed_is_done_again(library: Library, write: Callable[..., Path]) -> None:
    one, two = write("one.txt", "Badgers dig tunnels."), write("two.md", "# Bees\n\nBees make honey.")
    assert outcomes(library, [one, two, one]) == ["added", "added"]
    version = library.store.version
    assert outcomes(library, [one, two]) == ["unchanged", "unchanged"]
    assert library.store.version == version
    one.write_text("Badgers sleep all day.\n\n" * 40)
    (_, replaced) = library.add([one, two])  # what needs no work is certain first
    assert (replaced.outcome, replaced.passages > 1) == ("replaced", True)
    assert library.store.version == version + 1
    one.write_text("Badgers eat worms.")
    assert outcomes(library, [one]) == ["replaced"]
    texts = {document.page_content for document in library.store.read()}
    assert texts == {"Badgers eat worms.", "Bees\n\nBees make honey."}


def test_nothing_new_needs_no_embedder(library: Library, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("one.txt", "Badgers dig tunnels.")
    assert outcomes(library, [path]) == ["added"]
    later = Library(tmp_path / "store")
    assert outcomes(later, [path]) == ["unchanged"]
    assert [entry.name for entry in later.documents()] == ["one.txt"]
    assert later._embeddings._loaded is None
    assert later.search("badger").hits  # now it is loaded: the one that the store names
    assert later._embeddings._loaded is not None


def test_a_store_of_strangers_does_not_say_what_is_fetched(tmp_path: Path, embedder: sdk.Embedder) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Badgers dig tunnels.")
    named = type(embedder)(embedder._encoder, name="somebody/something")
    assert outcomes(Library(tmp_path / "store", named), [path]) == ["added"]
    with pytest.raises(InvalidInputError, match=r"no card[\s\S]*somebody/something"):
        Library(tmp_path / "store").search("badgers")
    with pytest.raises(InvalidInputError, match="another embedding"):
        Library(tmp_path / "store", "minilm")


def test_documents_are_listed_and_removed(library: Library, write: Callable[..., Path], tmp_path: Path) -> None:
    paths = [write(name, f"Text of {name}.") for name in ("b.txt", "a.txt", "c.txt")]
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "a.txt"
    twin.write_text("Another one.")
    assert outcomes(library, [*paths, twin]) == ["added"] * 4
    entries = library.documents()
    assert [entry.name for entry in entries] == ["a.txt", "a.txt", "b.txt", "c.txt"]
    assert entries[2].to_dict() == {
        "id": entries[2].id,
        "name": "b.txt",
        "source": str(paths[0]),
        "format": "text",
        "digest": open_document(paths[0]).digest,
        "passages": 1,
        "made_by": None,
    }
    for wrong, told in ((["a.txt", "b.txt"], "Several documents"), (["c.txt", "nothing"], "no such document")):
        with pytest.raises(InvalidInputError, match=told):
            library.remove(wrong)
    assert len(library.documents()) == 4
    removed = library.remove([str(twin), entries[2].id, "c.txt", "c.txt"])
    assert [entry.name for entry in removed] == ["a.txt", "b.txt", "c.txt"]
    assert [entry.source for entry in library.documents()] == [str(paths[1])]
    assert paths[0].exists()


def test_images_and_sounds_are_described_by_a_model(library: Library, root: Path, write: Callable[..., Path]) -> None:
    speech = root / "tests" / "data" / "speech.flac"
    (failed,) = library.add([speech])
    assert isinstance(failed.error, UnsupportedInputError) and "needs a model" in failed.error.problem
    text_only = fake_model("x")
    (failed,) = library.add([speech], model=lambda: text_only)
    assert failed.error is not None and "reads text" in str(failed.error.given)
    assert library.documents() == []


@pytest.mark.slow
def test_a_real_model_describes_a_sound_and_an_image(library: Library, root: Path, write: Callable[..., Path]) -> None:
    from io import BytesIO

    from PIL import Image

    picture = BytesIO()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(picture, "PNG")
    nano = sdk.load("nano")
    paths = [root / "tests" / "data" / "speech.flac", write("red.png", picture.getvalue())]
    assert outcomes(library, paths, model=lambda: nano) == ["added", "added"]
    image, sound = library.documents()
    assert (image.format, image.made_by, sound.format, sound.made_by) == ("image", "nano", "audio", "nano")
    best = library.search("Who might have been made amiable?").hits[0].passage
    assert (best.name, best.made_by) == ("speech.flac", "nano")


def test_progress_adds_up_to_the_bytes_of_the_files(library: Library, write: Callable[..., Path]) -> None:
    class Heard:
        total, done, ended = 0, 0, 0

        def start(self, label: str, total_bytes: int | None) -> None:
            self.total += total_bytes or 0

        def advance(self, n: int) -> None:
            self.done += n

        def finish(self) -> None:
            self.ended += 1

    paths = [write("a.txt", "Some words. " * 900), write("b.txt", "Others.")]
    for _ in range(2):
        heard = Heard()
        list(library.add(paths, progress=heard))
        assert (heard.done, heard.ended) == (heard.total, 1)


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden", ".git/x", "b/.h/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [str(path.relative_to(tmp_path)) for path in files_in(tmp_path)] == ["a.txt", "b/1.txt", "b/2.txt"]
    assert files_in(tmp_path / ".hidden") == [tmp_path / ".hidden"]
    with pytest.raises(InvalidInputError, match="no such file"):
        files_in(tmp_path / "nothing")


ADDING = """
import sys, time
from pathlib import Path
import numpy as np
from sensorium.apps.docqa import Library, indexing

class Quick:
    name, size = "quick", 8
    def count_tokens(self, text): return len(text.split())

indexing._COMMIT = 40
library = Library(sys.argv[1], None)
library._embeddings.embed_documents = lambda texts: [[float(len(t) % 7 + 1)] * 8 for t in texts]
library._embeddings.__class__.count_tokens = lambda self, text: len(text.split())
for added in library.add(sorted(Path(sys.argv[2]).iterdir())):
    print(added.outcome, added.source, added.passages, flush=True)
    time.sleep(0.02)  # a fast machine must not be done before it is killed
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("after", [0, 3, 14])
def test_a_kill_loses_nothing_told_and_leaves_no_half_document(tmp_path: Path, after: int) -> None:
    """Killed with SIGKILL while it adds, then opened again; `after` documents have been told before the kill."""
    files = tmp_path / "files"
    files.mkdir()
    sizes = {}
    for number in range(60):
        (files / f"{number:02d}.txt").write_text("\n\n".join(f"CHAPTER {n}\n\nWords of {number}." for n in range(15)))
        sizes[f"{number:02d}.txt"] = 15
    command = [sys.executable, "-c", ADDING, str(tmp_path / "store"), str(files)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().split()[1] for _ in range(after)]
    time.sleep(0.02 * after)
    process.send_signal(signal.SIGKILL)
    told += [line.split()[1] for line in process.stdout if line.endswith("\n") and len(line.split()) == 3]
    process.stdout.close()
    process.wait()
    library = Library(tmp_path / "store")
    there = {entry.name: entry.passages for entry in library.documents()}
    assert {Path(source).name for source in told} <= set(there)
    assert all(count == sizes[name] for name, count in there.items())
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 60
    assert done.stdout.count("unchanged") == len(there) < 60 or after == 0
    assert {entry.name: entry.passages for entry in library.documents()} == sizes
