"""Adapters beside a bundle: switched on they give the logits of torch's merged model, in onnxruntime-genai, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import onnxruntime_genai as genai
import peft
import pytest
import torch
import transformers
from sensorium import sdk
from sensorium.mobile_export.bundle import read_manifest
from sensorium.mobile_export.runtime import Bundle

QUESTION = "How are you?"
ADAPTERS = {
    "pirate": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]},
    "formal": {"r": 7, "lora_alpha": 5, "target_modules": ["v_proj"], "use_rslora": True},
    "everywhere": {"r": 2, "lora_alpha": 9, "target_modules": ["k_proj", "gate_proj"]},
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning:transformers")


def write_peft(checkpoint: Path, out: Path, seed: int, **options: object) -> Path:
    """A random LoRA, written by PEFT."""
    base = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options))  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=draw)
    model.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def adapters(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: write_peft(checkpoint, folder / name, seed, **options)
        for seed, (name, options) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="module", params=["onnx", "ios"])
def out(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    adapters: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("beside") / request.param
    beside = [adapters["pirate"], adapters["formal"]]
    sdk.export(checkpoint, out, quant="fp32", target=request.param, adapters_beside=beside, figures=False)
    return out


def torch_logits(checkpoint: Path, adapter: Path | None, tokens: list[int]) -> np.ndarray:
    return sdk.load(checkpoint, adapter=adapter, dtype="float32", device="cpu").logits(tokens)


@pytest.mark.parametrize("name", ["pirate", "formal", None])
def test_logits_are_those_of_the_merged_model(
    name: str | None, out: Path, checkpoint: Path, adapters: dict[str, Path]
) -> None:
    model = sdk.load(out, adapter=name)
    tokens = list(model.encode(QUESTION))
    expected = torch_logits(checkpoint, adapters[name] if name else None, tokens)
    assert np.abs(model.logits(tokens) - expected).max() <= 1e-5 * np.abs(expected).max()
    _, last = model.engine.prefill([tokens])  # the graph of the last position
    assert np.abs(last[0] - expected[-1]).max() <= 1e-5 * np.abs(expected).max()
    if name:
        base = torch_logits(checkpoint, None, tokens)
        assert np.abs(expected - base).max() > 0.1 * np.abs(base).max()


def test_without_one_the_base_is_as_it_was(
    bundle: Path, checkpoint: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    sdk.export(checkpoint, tmp_path / "out", quant="int4", adapters_beside=[adapters["pirate"]], figures=False)
    tokens = list(sdk.load(bundle).encode(QUESTION))
    np.testing.assert_array_equal(sdk.load(tmp_path / "out").logits(tokens), sdk.load(bundle).logits(tokens))


def test_an_adapter_is_a_small_file_that_is_proved(out: Path, tmp_path: Path) -> None:
    files = {name: out / file for name, file in read_manifest(out).adapters.items()}
    assert files.keys() == {"pirate", "formal"} and sdk.verify(out).passed
    assert len(sdk.verify(out).goldens) == 4 + 2
    # The place of a file does as well as its name; two of them do not share one's golden.
    moved = Path(shutil.copy(files["formal"], tmp_path / "else.onnx_adapter"))
    found = [sdk.load(out, adapter=given).ask(QUESTION, max_new_tokens=9).tokens for given in (moved, "formal")]
    assert found[0] == found[1]


def test_another_adapter_of_these_layers_fits(
    out: Path, checkpoint: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Written with another bundle of the model."""
    sdk.export(checkpoint, tmp_path / "other", quant="fp32", adapters_beside=[adapters["everywhere"]], figures=False)
    file = tmp_path / "other" / "adapters" / "everywhere.onnx_adapter"
    tokens = list(sdk.load(out).encode(QUESTION))
    expected = torch_logits(checkpoint, adapters["everywhere"], tokens)
    assert np.abs(sdk.load(out, adapter=file).logits(tokens) - expected).max() <= 1e-5 * np.abs(expected).max()
    other = sdk.load(tmp_path / "other", adapter=out / "adapters" / "pirate.onnx_adapter")
    with pytest.raises(sdk.CheckpointError, match="made for another bundle"):
        other.ask("Hi", max_new_tokens=1)


def genai_tokens(folder: Path, prompt: list[int], adapter: str | None) -> list[int]:
    model = genai.Model(str(folder))
    adapters, options = genai.Adapters(model), genai.GeneratorParams(model)
    options.set_search_options(max_length=len(prompt) + 12, do_sample=False)
    generator = genai.Generator(model, options)
    if adapter:
        adapters.load(str(folder / "adapters" / f"{adapter}.onnx_adapter"), adapter)
        generator.set_active_adapter(adapters, adapter)
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(prompt) :]]


@pytest.mark.parametrize("name", ["pirate", "formal", None])
def test_genai_generates_the_same(name: str | None, out: Path) -> None:
    model = sdk.load(out, adapter=name)
    ours = list(model.ask(QUESTION, max_new_tokens=12).tokens)
    assert genai_tokens(out, list(model.encode(QUESTION)), name)[: len(ours)] == ours


def test_run_options_take_the_same_file(out: Path) -> None:
    session = onnxruntime.InferenceSession(str(out / read_manifest(out).graphs["decoder"]))
    shape = Bundle(out).shape
    tokens = np.array([[5, 7, 11, 80]])
    empty = np.zeros((1, shape.kv_heads, 0, shape.head_size), np.float32)
    past = {f"past_key_values.{n}.{part}": empty for n in range(shape.layers) for part in ("key", "value")}
    adapter, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
    adapter.Load(str(out / "adapters" / "pirate.onnx_adapter"))
    options.add_active_adapter(adapter)
    inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), **past}
    (found,) = session.run(["logits"], inputs, options)
    runner = Bundle(out, adapter="pirate").decoder()
    np.testing.assert_array_equal(found[0, -1], runner.step(runner.new_state(), tokens)[0, -1])


def test_what_is_no_adapter_is_refused(out: Path, checkpoint: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    good = (out / "adapters" / "pirate.onnx_adapter").read_bytes()
    for number, content in enumerate((b"", b"x" * 300, good[:100], good[: len(good) // 2])):
        path = tmp_path / f"{number}.onnx_adapter"
        path.write_bytes(content)
        with pytest.raises(sdk.CheckpointError, match="is no adapter"):
            sdk.load(out, adapter=path)
    for given in ("nobody", adapters["pirate"], tmp_path / "nowhere.onnx_adapter"):
        with pytest.raises(sdk.OptionError, match=r"pirate"):
            sdk.load(out, adapter=given)
    spaced = Path(shutil.copytree(adapters["formal"], tmp_path / "a name"))
    for beside in ([spaced], [adapters["formal"], adapters["formal"]]):
        with pytest.raises(sdk.InvalidInputError, match="name of an adapter"):
            sdk.export(checkpoint, tmp_path / "new", adapters_beside=beside)
    head = write_peft(checkpoint, tmp_path / "head", 3, r=2, lora_alpha=2, target_modules=["embed_tokens"])
    with pytest.raises(sdk.UnsupportedInputError):
        sdk.export(checkpoint, tmp_path / "new", quant="fp32", adapters_beside=[head])
    assert not (tmp_path / "new").exists()
