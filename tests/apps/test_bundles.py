"""``sensorium export`` and ``verify``: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sensorium import sdk
from sensorium.apps.bundles import bundle_rows
from sensorium.mobile_export.bundle import unpack

from ..checkpoints import byte_llama


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that reads bytes."""
    return byte_llama(tmp_path_factory.mktemp("checkpoint"))


def test_a_model_is_exported_and_verified(terminal: Any, checkpoint: Path, tmp_path: Path) -> None:
    out, archive = tmp_path / "out", tmp_path / "out.zip"
    done = terminal.run("export", str(checkpoint), str(out), "--quant", "int8", "--archive", str(archive))
    assert done.code == 0 and "writing graphs (int8) …" in done.err and "packing …" in done.err
    rows = dict(line.split("  ", 1) for line in done.out.splitlines())
    assert rows["bundle"].strip() == str(out) and rows["quantization"].strip() == "int8"
    assert "before" in rows["perplexity"] and "answers changed" in rows["divergence"]
    unpack(archive, tmp_path / "back")
    done = terminal.run("verify", str(tmp_path / "back"))
    header, *goldens, blank, last = done.out.splitlines()
    assert done.code == 0 and header.split()[:2] == ["GOLDEN", "RESULT"] and blank == ""
    assert len(goldens) == 4 and all("passed" in line for line in goldens)
    assert last.endswith("files are as they were exported")


def test_figures_can_be_left_out(terminal: Any, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--quant", "fp32", "--no-figures", "--target", "android"]
    done = terminal.run("export", str(checkpoint), str(tmp_path / "out"), *arguments)
    assert (
        done.code == 0
        and "android" in done.out
        and "perplexity" not in done.out
        and done.err.endswith("making goldens …\n")
    )
    assert terminal.run("verify", str(tmp_path / "out")).code == 0


def test_programs_read_json(terminal: Any, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = terminal.run("export", str(checkpoint), str(out), "--quant", "fp32", "--context-length", "600", "--json")
    found = json.loads(done.out)
    assert done.err == "" and found["decoder"]["context_length"] == 600 and found["figures"]["agreement"] == 1.0
    found = json.loads(terminal.run("verify", str(out), "--json").out)
    assert found["passed"] and len(found["goldens"]) == 4


def test_info_tells_what_a_bundle_is(terminal: Any, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = terminal.run("export", str(checkpoint), str(out), "--quant", "int8", "--context-length", "600", "-q")
    done = terminal.run("info", str(out))
    assert (done.code, done.err, terminal.loaded) == (0, "", []) and done.out == exported.out
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in done.out.splitlines()}
    assert rows["made from"] == str(checkpoint) and rows["reads"] == "text" and rows["context"] == "600 tokens"
    assert (rows["family"], rows["format"], rows["quantization"], rows["target"]) == ("llama", "4", "int8", "onnx")
    found, manifest = json.loads(terminal.run("info", str(out), "--json").out), sdk.verify(out).manifest
    assert found["bytes"] == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert (
        found["figures"] == manifest.figures and found["modalities"] == ["text"] and found["source"] == str(checkpoint)
    )


def test_limits_of_what_a_bundle_reads_are_shown() -> None:
    kinds = {"limits": {"video": {"frames": 64.0, "seconds": 43200.0}, "image": {}}, "figures": {}}
    sizes = {"format": 2, "bytes": 3, "context_length": 4, "vocabulary_size": 5, "layers": 6}
    names = {name: name for name in ("name", "source", "licence", "family", "quantization", "target", "path")}
    lists = {"modalities": ("text", "image", "video"), "adapters": ("formal", "short")}
    rows = dict(bundle_rows(sdk.BundleInfo(**names, **sizes, **kinds, **lists)))  # type: ignore[arg-type]
    assert rows["adapters beside"] == "formal, short"
    assert rows["reads"] == "text, image, video (frames to 64, seconds to 43,200)"
    assert rows["made from"] == "source (licence)" and "perplexity" not in rows


def test_what_cannot_be_done_is_told(terminal: Any, checkpoint: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.zip"
    taken.write_bytes(b"dear")
    for arguments, told in (
        (
            ["export", str(checkpoint), str(tmp_path / "out"), "--quant", "int3"],
            "int4, int4-fast, int4-fp32",
        ),
        (["export", str(checkpoint), str(tmp_path / "out"), "--archive", str(taken)], "such a file already"),
        (["export", str(checkpoint), str(tmp_path / "out"), "--target", "toaster"], "onnx, genai, web, android, ios"),
        (["export", str(checkpoint), str(tmp_path / "out"), "--adapter", str(tmp_path)], "adapter_config.json"),
        (["export", str(checkpoint), str(tmp_path / "out"), "--adapter-beside", str(tmp_path)], "adapter_config.json"),
        (["export", str(checkpoint), str(checkpoint)], "something already"),
        (["verify", str(checkpoint)], "manifest"),
    ):
        done = terminal.run(*arguments)
        assert done.code == 1 and told in done.err, done
    assert taken.read_bytes() == b"dear" and not (tmp_path / "out").exists()


def test_a_bundle_that_was_changed_fails(terminal: Any, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sdk.export(checkpoint, out, quant="fp32")
    weights = out / "model.onnx_data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = terminal.run("verify", str(out))
    assert done.code == 1 and "model.onnx_data" in done.err and done.out == ""
