"""Cards that run as a bundle: `nano` without torch, with the answers of its checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sensorium.sdk as sdk
from sensorium.mobile_export.texts import QUESTIONS, text
from sensorium.sdk import ready
from sensorium.sdk.ready import has_ready_bundle, ready_bundle

load_module = sys.modules["sensorium.sdk.load"]


def test_only_cards_that_say_so_run_as_bundles(tmp_path: Path) -> None:
    assert has_ready_bundle("nano") and has_ready_bundle("minilm")
    assert not any(map(has_ready_bundle, ("owner/name", Path("nano"), tmp_path)))


def test_the_bundle_answers_as_the_checkpoint_without_torch() -> None:
    """Token for token: weights that are in 4 bits stay as they are, and products are of floats."""
    ready_bundle("nano")  # making it needs torch
    program = f"""
import sys
import time
import sensorium.sdk as sdk
model = sdk.load("nano", device="cpu")
assert model.engine.info.name.startswith("onnxruntime") and model.name == "nano", model
for question in {text(QUESTIONS).splitlines()[:6]!r}:
    print(list(model.ask(question, max_new_tokens=12).tokens))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = sdk.load("nano", engine="torch", device="cpu", dtype="float32")
    expected = [list(theirs.ask(question, max_new_tokens=12).tokens) for question in text(QUESTIONS).splitlines()[:6]]
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


def test_logits_are_those_of_the_checkpoint() -> None:
    ours, theirs = sdk.load("nano", device="cpu"), sdk.load("nano", device="cpu", dtype="float32")
    tokens = ours.encode("The tide came in, and with it the boats.", raw=True)
    given, expected = ours.logits(tokens), theirs.logits(tokens)
    assert abs(given - expected).max() <= 5e-3 < 0.1 * expected.std()
    assert ours.modalities == theirs.modalities


@pytest.mark.parametrize(
    "asked", [{"dtype": "float32"}, {"engine": "torch"}, {"cache_precision": "int8"}, {"rolling": sdk.Rolling(4, 252)}]
)
def test_what_a_bundle_cannot_be_takes_the_checkpoint(asked: dict[str, Any]) -> None:
    assert sdk.load("nano", device="cpu", **asked).engine.info.name.startswith("torch")


def test_accelerators_take_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "may_have_accelerator", lambda: True)
    assert sdk.load("nano").engine.info.name.startswith("torch")
    assert sdk.load("nano", device="cpu").engine.info.name.startswith("onnxruntime")


def test_a_named_engine_refuses_what_it_cannot_be() -> None:
    with pytest.raises(sdk.OptionError, match="as it was exported") as caught:
        sdk.load("nano", engine="onnx", dtype="float16")
    assert "dtype=float16" in str(caught.value)


def test_without_a_cache_the_checkpoint_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "file"))
    assert sdk.load("nano", device="cpu", quiet=False).engine.info.name.startswith("torch")
    assert "from its checkpoint, more slowly: The cache cannot be written" in capsys.readouterr().err
    with pytest.raises(sdk.DownloadError, match="cache cannot be written"):
        sdk.load("nano", engine="onnx")


class _Exporter:
    """Stands for an export of half a minute."""

    def __init__(self) -> None:
        self.made: list[Path] = []

    def __call__(self, source: str, out: Path, **options: Any) -> None:
        self.made.append(out)
        out.mkdir(parents=True)
        (out / "manifest.json").write_text("{}")


def test_a_bundle_is_made_once_and_anew_when_its_card_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exporter = _Exporter()
    monkeypatch.setattr(sys.modules["sensorium.sdk.export"], "export", exporter)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path))
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(ready_bundle, ["nano"] * 8))
    assert found == set(exporter.made) and len(exporter.made) == 1
    card = sdk.card("nano")
    parts = (replace(card.parts[0], sha256="0" * 64), *card.parts[1:])
    monkeypatch.setattr(ready, "card", lambda name: replace(card, parts=parts))
    assert ready_bundle("nano") not in found and len(exporter.made) == 2


def test_bundles_that_nobody_uses_any_more_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of other versions after a month; never another card's, nor what is no bundle."""
    monkeypatch.setattr(sys.modules["sensorium.sdk.export"], "export", _Exporter())
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path))
    bundles, month = tmp_path / "bundles", 31 * 24 * 3600
    old, recent, other = (bundles / name for name in ("nano-int4-fp32-0a", "nano-int4-fp32-0b", "minilm-fp32-0a"))
    for folder in (old, recent, other):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    for folder in (old, other):
        os.utime(folder, (time.time() - month,) * 2)
    made = ready_bundle("nano")
    assert not old.exists() and recent.exists() and other.exists()
    os.utime(made, (time.time() - month,) * 2)
    assert ready_bundle("nano") == made and time.time() - made.stat().st_mtime < 60
