"""From a source to a model: engines, devices, dtypes, defaults, damaged files, and facts without loading."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.fusion.checkpoints import load_decoder
from sensorium.sdk.info import families
from sensorium.sdk.torch_engine import TorchEngine

Tiny = Callable[..., Path]


@pytest.fixture
def folder(tiny_model: Tiny, tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint that may be damaged."""
    return Path(shutil.copytree(tiny_model(), tmp_path / "model"))


def dtype_of(model: sdk.Model) -> torch.dtype:
    assert isinstance(model.engine, TorchEngine)
    return model.engine.decoder.dtype


@pytest.mark.parametrize("source", ["text", "path"])
def test_a_directory_loads(folder: Path, source: str) -> None:
    model = sdk.load(str(folder) if source == "text" else folder)
    assert model.name == (str(folder) if source == "text" else "model")
    assert len(model.ask("hello", max_new_tokens=5).tokens) <= 5
    tokens = [1, 2, 200, 3]
    expected = load_decoder(folder)(torch.tensor([tokens]))[0]
    found = model.logits(tokens)
    assert found.shape == (4, 257)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, torch.float32),  # as it is stored
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_dtypes(folder: Path, asked: Any, found: torch.dtype) -> None:
    model = sdk.load(folder, dtype=asked, device="cpu", engine="torch")
    assert dtype_of(model) == found
    assert model.logits([1, 2]).dtype == np.float32
    assert model.engine.info.name == f"torch (cpu, {str(found).removeprefix('torch.')})"


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("native", [True, False])
def test_a_dtype_that_the_processor_lacks_becomes_float32(
    folder: Path, tmp_path: Path, stored: torch.dtype, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk.load(folder, dtype=stored, device="cpu").save(tmp_path / "half")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    expected = torch.bfloat16 if stored == torch.bfloat16 and native else torch.float32
    assert dtype_of(sdk.load(tmp_path / "half", device="cpu")) == expected
    assert sdk.describe(tmp_path / "half").dtype == str(expected).removeprefix("torch.")
    assert dtype_of(sdk.load(tmp_path / "half", device="cpu", dtype=stored)) == stored  # asked for, it is given


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"engine": "cuda"}, "engine"),
        ({"engine": None}, "engine"),
        ({"dtype": "int8"}, "dtype"),
        ({"dtype": "torch.float32"}, "dtype"),
        ({"dtype": torch.int64}, "dtype"),
        ({"dtype": torch.float8_e4m3fn}, "dtype"),
        ({"dtype": 32}, "dtype"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "meta"}, "device"),
        ({"device": ""}, "device"),
        ({"device": 1.5}, "device"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_named(folder: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(sdk.OptionError, match=f"no such {named}") as caught:
        sdk.load(folder, **options)
    assert caught.value.expected


def test_wrong_names_are_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("sensorium.sdk.load")  # the package has a function of that name
    monkeypatch.setattr(module, "resolve", lambda *args, **kwargs: pytest.fail("fetched"))
    for options in ({"engine": "cuda"}, {"dtype": "int8"}, {"cache_precision": "int2"}):
        with pytest.raises(sdk.OptionError):
            sdk.load("nano", **options)  # type: ignore[arg-type]


def test_an_unknown_source_is_named() -> None:
    for call in (sdk.load, sdk.describe):
        with pytest.raises(sdk.ModelNotFoundError, match="no-such-model"):
            call("no-such-model")


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tiny_model: Tiny) -> None:
    smaller = tiny_model(200)
    shutil.copy(folder / "tokenizer.json", smaller / "tokenizer.json")
    with pytest.raises(sdk.CheckpointError, match="do not belong together") as caught:
        sdk.load(smaller)
    assert "257" in str(caught.value) and "200" in str(caught.value)


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(sdk.TokenizerError, match=r"tokenizer\.json"):
        sdk.load(folder)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, "\xff", ""])
def test_a_damaged_generation_config_is_named(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(sdk.SensoriumError, match=r"generation_config\.json"):
        sdk.load(folder)


@pytest.mark.parametrize("ends", [None, 7, [7, 9], "x", [True, 1e9], 10**12, []])
def test_ends_of_any_kind_do_no_harm(folder: Path, ends: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    model = sdk.load(folder)
    wanted = {7, 9} if ends == [7, 9] else {ends} if isinstance(ends, int) else set()
    assert model.tokenizer.stop_ids == {256} | wanted
    assert len(model.ask("hi", max_new_tokens=3, min_new_tokens=3).tokens) == 3


def test_a_model_too_large_for_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    with monkeypatch.context() as patch:
        patch.setattr("sensorium.fusion.checkpoints.load_checkpoint", fail)
        with pytest.raises(sdk.EngineError, match="Out of memory") as caught:
            sdk.load(folder)
    weights = sdk.describe(folder).parameters
    assert f"{weights} weights of 4 bytes" in str(caught.value)
    assert sdk.load(folder)


def test_an_exported_bundle_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(sdk.CheckpointError, match="This bundle"):
        sdk.load(tmp_path)
    with pytest.raises(sdk.CheckpointError, match="This bundle"):
        sdk.describe(tmp_path)


def test_facts_without_loading(folder: Path) -> None:
    found = sdk.describe(folder)
    assert found.parameters == sum(parameter.numel() for parameter in load_decoder(folder).parameters())
    assert found.weight_bytes == 4 * found.parameters
    assert found.cache_bytes_per_token == 2 * 2 * 10 * 4 * 2  # keys and values, heads, their size, bytes, layers
    assert (found.family, found.stored_as, found.dtype) == ("llama", "float32", "float32")
    assert (found.context_length, found.vocabulary_size, found.layers) == (128, 257, 2)
    assert (found.hidden_size, found.heads, found.kv_heads, found.path) == (18, 6, 2, str(folder))
    assert found.to_dict()["parameters"] == found.parameters
    json.dumps(found.to_dict())


def test_the_cache_that_info_tells_is_the_one_that_is_taken(folder: Path) -> None:
    model = sdk.load(folder)
    state, _ = model.engine.prefill([[1] * 64])
    (cache,) = state.caches  # type: ignore[attr-defined]
    slots = cache.layers[0].slots
    assert cache.nbytes() == slots * sdk.describe(folder).cache_bytes_per_token


def test_facts_of_the_default_model(nano_file: Path) -> None:
    found = sdk.describe("nano")
    assert (found.parameters, found.stored_as, found.family) == (134_515_008, "Q4_1", "llama")
    assert (found.context_length, found.vocabulary_size, found.path) == (8192, 49152, str(nano_file))


def test_the_families_are_listed() -> None:
    found = families()
    assert list(found) == sorted(found)
    assert {"llama", "gpt2", "gemma3", "qwen3", "mixtral"} <= set(found)
