"""Bundles in JavaScript: ONNX Runtime Web gives the tokens that Python gives, in Node and in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sensorium import sdk
from sensorium.mobile_export.bundle import FORMAT
from sensorium.mobile_export.export import export_bundle
from sensorium.mobile_export.quantization import QUANTIZATIONS

from ..checkpoints import byte_llama
from ..mobile_export.small_media import small_source

WEB = Path(__file__).resolve().parent.parent.parent / "examples" / "web"
NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium")
QUESTION = "What is it? Grün!"

pytestmark = pytest.mark.skipif(
    NODE is None or not (WEB / "node_modules").is_dir(),
    reason="needs Node: npm install --ignore-scripts in examples/web",
)


@pytest.fixture(scope="module", params=["int4", "int8", "fp32", "fp32+int8-cache"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = byte_llama(tmp_path_factory.mktemp("checkpoint"))
    sdk.export(folder, folder / "bundle", quant=request.param)
    return folder / "bundle"


def node(script: str | Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert NODE is not None
    command = [NODE, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=WEB)


def test_node_gives_the_same_tokens(bundle: Path) -> None:
    expected = sdk.load(bundle).ask(QUESTION, max_new_tokens=24)
    done = node("ask.mjs", bundle, QUESTION, "24")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["tokens"] == list(expected.tokens)


@pytest.mark.skipif(
    not (WEB / "node_modules" / "@huggingface" / "transformers").is_dir(),
    reason="needs transformers.js: npm install --no-save --ignore-scripts @huggingface/transformers@4 in examples/web",
)
def test_transformers_js_gives_the_same_tokens(bundle: Path) -> None:
    done = node(Path(__file__).with_name("transformers_js.mjs"), WEB, bundle, QUESTION, "24")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = sdk.load(bundle).ask(QUESTION, max_new_tokens=24)
    assert json.loads(done.stdout.splitlines()[-1])[:24] == list(expected.tokens)


@pytest.mark.skipif(
    CHROMIUM is None or not (WEB / "node_modules" / "@huggingface" / "transformers").is_dir(),
    reason="needs Chromium, and transformers.js as above",
)
@pytest.mark.parametrize(("quant", "least"), [("fp32", 24), ("int4", 6)])
def test_transformers_js_opens_a_web_bundle_in_a_browser(quant: str, least: int, tmp_path: Path) -> None:
    """Its products in 4 bits round otherwise than Python's: a few tokens are compared."""
    folder = byte_llama(tmp_path)
    sdk.export(folder, folder / "bundle", quant=quant, target="web", figures=False)
    script = Path(__file__).with_name("transformers_js_page.mjs")
    with served(folder / "bundle") as address:
        done = node(script, WEB, str(CHROMIUM), address, QUESTION, "24")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = sdk.load(folder / "bundle").ask(QUESTION, max_new_tokens=24)
    assert json.loads(done.stdout)[:least] == list(expected.tokens)[:least]


def test_what_was_not_exported_is_refused(bundle: Path, tmp_path: Path) -> None:
    for name, told in (
        ("model.onnx_data", "not the file"),
        ("tokenizer.json", "not the file"),
        ("manifest.json", "format"),
    ):
        twin = tmp_path / name
        shutil.copytree(bundle, twin)
        data = bytearray((twin / name).read_bytes())
        if name == "manifest.json":
            data = bytearray(data.replace(f'"format": {FORMAT}'.encode(), b'"format": 9'))
        else:
            data[len(data) // 2] ^= 1
        (twin / name).write_bytes(data)
        done = node("ask.mjs", twin, QUESTION)
        assert done.returncode != 0 and told in done.stderr, done.stderr[-500:]


def test_control_tokens_and_too_long_answers_are_refused(bundle: Path) -> None:
    for arguments, told in (([f"a {'<end>'} b"], "control token"), ([QUESTION, "5000"], "do not fit")):
        done = node("ask.mjs", bundle, *arguments)
        assert done.returncode != 0 and told in done.stderr


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    assert NODE is not None
    command = [NODE, "serve.mjs", str(bundle), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=WEB) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def in_the_browser(bundle: Path, question: str, *picture: Path) -> dict[str, Any]:
    assert CHROMIUM is not None
    with served(bundle) as address:
        done = node(Path(__file__).with_name("ask_page.mjs"), WEB, CHROMIUM, address, question, *picture)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package chromium")
def test_a_browser_gives_the_same_answer(bundle: Path) -> None:
    found = in_the_browser(bundle, QUESTION)
    assert found["wrong"] == [] and found["told"] == "ready"
    assert found["tokens"] == list(sdk.load(bundle).ask(QUESTION, max_new_tokens=24).tokens) and found["answer"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package chromium")
def test_the_default_model_answers_in_a_browser(nano_file: Path, tmp_path: Path) -> None:
    """It multiplies floats, as ``nano`` itself does; Python rounds what `int4` multiplies, so that near ties turn."""
    sdk.export("nano", tmp_path / "nano", quant="int4", modalities=["text"], figures=False)
    question = "What is the capital of France?"
    found = in_the_browser(tmp_path / "nano", question)
    expected = sdk.load("nano").ask(question, max_new_tokens=64)
    assert (found["answer"], found["wrong"]) == (expected.text, []) and "Paris" in expected.text
    assert found["tokens"] == list(expected.tokens)[:24]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that sees: random weights, so that the tokens of an answer hang on every number."""
    folder = tmp_path_factory.mktemp("seeing")
    source, _ = small_source(folder / "checkpoint")
    assert source.media is not None
    media = replace(source.media, limits={"image": {"pixels": 12_000.0, "side": 600.0}})
    export_bundle(replace(source, media=media), folder / "out", QUANTIZATIONS["fp32"], figures=False)
    return folder / "out"


def pictures(folder: Path) -> list[Path]:
    """A drawing and noise as PNG."""
    drawn = np.full((80, 131, 3), (236, 236, 230), np.uint8)
    drawn[20:70, 30:80] = (0, 128, 128)
    noise = np.random.default_rng(5).integers(0, 256, (71, 53, 3), dtype=np.uint8)
    paths = [folder / "drawn.png", folder / "noise.png"]
    for pixels, path in zip((drawn, noise), paths, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def test_node_sees_as_python_does(seeing: Path, tmp_path: Path) -> None:
    model = sdk.load(seeing)
    for path in pictures(tmp_path):
        expected = model.ask(QUESTION, sdk.Image(path), max_new_tokens=12).tokens
        Image.open(path).save(path.with_suffix(".ppm"))
        done = node("ask.mjs", seeing, QUESTION, "12", path.with_suffix(".ppm"))
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout.splitlines()[-1])["tokens"] == list(expected)
    whole, cut, other = path.with_suffix(".ppm"), tmp_path / "cut.ppm", path
    cut.write_bytes(whole.read_bytes()[:-1])
    large = tmp_path / "large.ppm"
    large.write_bytes(b"P6 900 2 255\n" + bytes(5400))
    for question, picture, told in (
        ("an <end>", whole, "control token"),
        ("?", cut, "bytes are no"),
        ("?", other, "no binary PPM"),
        ("?", large, "too large"),
    ):
        done = node("ask.mjs", seeing, question, "12", picture)
        assert done.returncode != 0 and told in done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package chromium")
def test_a_browser_sees_as_python_does(seeing: Path, tmp_path: Path) -> None:
    path = pictures(tmp_path)[1]
    found = in_the_browser(seeing, QUESTION, path)
    expected = sdk.load(seeing).ask(QUESTION, sdk.Image(path), max_new_tokens=24).tokens
    assert (found["wrong"], found["told"]) == ([], "ready") and found["tokens"] == list(expected)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package chromium")
def test_the_default_model_sees_in_a_browser(nano_file: Path, tmp_path: Path) -> None:
    import skimage

    sdk.export("nano", tmp_path / "nano", quant="int4", modalities=["text", "image"], figures=False)
    question, coffee = "What is in this picture?", Path(skimage.__file__).parent / "data" / "coffee.png"
    found = in_the_browser(tmp_path / "nano", question, coffee)
    expected = sdk.load(tmp_path / "nano").ask(question, sdk.Image(coffee), max_new_tokens=64)
    assert (found["answer"], found["wrong"]) == (expected.text, []) and found["tokens"] == list(expected.tokens)[:24]


def test_the_server_serves_nothing_else(tmp_path: Path) -> None:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    (tmp_path / "bundle").mkdir()
    (tmp_path / "secret").write_text("x")
    with served(tmp_path / "bundle") as address:
        assert b"Sensorium" in urlopen(address).read()
        for path in ("bundle/..%2fsecret", "..%2f..%2fREADME.md", "nothing", "bundle/"):
            with pytest.raises(HTTPError):
                urlopen(address + path)
