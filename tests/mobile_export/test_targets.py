"""Bundles for each target: the tokens of the default one, and what the target asks for beyond them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai
import pytest
from sensorium import sdk
from sensorium.mobile_export import targets
from sensorium.mobile_export.bundle import MANIFEST, read_manifest
from sensorium.mobile_export.chat_frame import CHAT_FRAME, chat_frame
from sensorium.mobile_export.runtime import Bundle
from sensorium.mobile_export.targets import OPERATORS, TARGETS

from .test_genai import generated

PROMPTS = ("Hello", "How are you?", "x" * 40)


@pytest.fixture(scope="module", params=TARGETS)
def made(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("targets") / request.param
    sdk.export(checkpoint, out, quant="int4", target=request.param, figures=request.param == "android")
    return out


def one_by_one(folder: Path, tokens: Sequence[int]) -> np.ndarray:
    """Logits of the graph of the last position: products in 8 bits round otherwise for several positions at once."""
    runner = Bundle(folder).decoder()
    state = runner.new_state()
    return np.concatenate([runner.step(state, np.array([[token]]))[0] for token in tokens])


def test_every_target_gives_the_same_tokens(made: Path, bundle: Path) -> None:
    manifest, found = read_manifest(made), sdk.verify(made)
    assert manifest.target == made.name and found.passed
    assert all(golden.same_tokens == golden.tokens for golden in found.goldens)
    expected, model, runtime = sdk.load(bundle), sdk.load(made), genai.Model(str(made))
    for prompt in PROMPTS:
        tokens = model.encode(prompt)
        want = expected.logits(tokens) if made.name not in ("android", "ios") else one_by_one(bundle, tokens)
        np.testing.assert_allclose(model.logits(tokens), want, rtol=0, atol=1e-5 * float(np.abs(want).max()))
        answer = list(expected.ask(prompt, max_new_tokens=12).tokens)
        assert list(model.ask(prompt, max_new_tokens=12).tokens) == answer
        assert generated(runtime, list(tokens))[: len(answer)] == answer
    if made.name == "android":
        # A text is scored one position at a time where no graph is there for all, which rounds differently.
        assert manifest.figures["perplexity"] == pytest.approx(read_manifest(bundle).figures["perplexity"], rel=1e-3)


def test_each_has_what_it_asks_for(made: Path, bundle: Path) -> None:
    files = {path.name for path in made.iterdir()}
    if made.name in ("android", "ios"):
        assert files == {path.name for path in bundle.iterdir()} - {"model.onnx", "model.onnx_data", "scoring.onnx"} | {
            "model.ort",
            CHAT_FRAME,
            OPERATORS,
        }
        assert (made / "model.ort").read_bytes()[4:8] == b"ORTM"
        with pytest.raises(sdk.CheckpointError, match="no scoring graph"):
            Bundle(made).scoring()
        assert read_manifest(made).interfaces.keys() == {"decoder"}
    else:
        assert files == {path.name for path in bundle.iterdir()}
    settings = json.loads((made / "config.json").read_text()).get("transformers.js_config")
    assert (settings is not None) == (made.name == "web")


def test_the_operators_are_those_that_onnxruntime_finds(made: Path, tmp_path: Path) -> None:
    if made.name != "android":
        assert (made / OPERATORS).exists() == (made.name == "ios")
        return
    program = f"""
from pathlib import Path
from onnxruntime.tools.ort_format_model import create_config_from_models
create_config_from_models([Path({str(made / "model.ort")!r})], Path("theirs"), False)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    theirs, ours = ((path).read_text().splitlines() for path in (tmp_path / "theirs", made / OPERATORS))
    assert [line for line in ours if line[0] != "#"] == [line for line in theirs if line[0] != "#"]
    assert any("MatMulNBits" in line for line in ours) and str(made.parent) not in "".join(ours)


def test_nothing_is_left_in_the_process(checkpoint: Path, tmp_path: Path) -> None:
    before = logging.root.handlers[:]
    sdk.export(checkpoint, tmp_path / "out", quant="fp32", target="ios", figures=False)
    assert logging.root.handlers == before and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("target", ["web", "android"])
def test_what_is_too_large_is_refused(
    target: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_MOST", 100_000)
    with pytest.raises(sdk.UnsupportedInputError, match="too large"):
        sdk.export(checkpoint, tmp_path / "out", quant="int8", target=target)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(sdk.OptionError, match="onnx, genai, web, android, ios"):
        sdk.export(checkpoint, tmp_path / "out", target="toaster")
    with pytest.raises(sdk.OptionError, match="text alone"):
        sdk.export(checkpoint, tmp_path / "out", target="ios", modalities=["text", "image"])
    assert not list(tmp_path.iterdir())


def test_older_bundles_have_the_default_target(bundle: Path, tmp_path: Path) -> None:
    """A bundle of format 2 is read as before."""
    import hashlib
    import shutil

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    raw = json.loads((copy / MANIFEST).read_text()) | {"format": 2}
    del raw["digest"], raw["target"]
    raw["digest"] = hashlib.sha256(json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (copy / MANIFEST).write_text(json.dumps(raw))
    assert read_manifest(copy).target == "onnx" and sdk.verify(copy).passed


def test_the_frame_of_chats_is_what_the_template_writes(made: Path) -> None:
    if made.name not in ("android", "ios"):
        assert not (made / CHAT_FRAME).exists()
        return
    tokenizer, frame = Bundle(made).tokenizer(), json.loads((made / CHAT_FRAME).read_text())
    texts = ["Hi ", " Hello\n", "What?", "Nothing.", ""]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    ends = ("after", "between")
    written = frame["before"] + "".join(text + frame[ends[n % 2]] for n, text in enumerate(texts))
    assert written == tokenizer.render_chat(messages)


def test_a_template_that_is_no_frame_has_none(bundle: Path) -> None:
    tokenizer = Bundle(bundle).tokenizer()
    for template in (
        "{% for message in messages %}{{ message.content | trim }}|{% endfor %}",
        "{% for message in messages %}{{ loop.index }}{{ message.content }}{% endfor %}",
        "{{ messages[0].content }}",
        "{{ raise_exception('no') }}",
        None,
    ):
        tokenizer.chat_template = template
        assert chat_frame(tokenizer) is None
