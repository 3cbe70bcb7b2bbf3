"""Graphs that read prompts by weights of 8 bits, and keys and values of 8 bits, beside the same decoders in floats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime_genai as genai
import pytest
import torch
from sensorium import sdk
from sensorium.fusion.cache import KeyValueCache, LayerCache
from sensorium.fusion.checkpoints import load_decoder
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.mobile_export.bundle import read_manifest, write_manifest
from sensorium.mobile_export.decoder_runner import DecoderRunner, RowReading, RunnerState
from sensorium.mobile_export.proof import greedy, reader
from sensorium.mobile_export.quantization import QUANTIZATIONS, Calibration, Quantization, named_quantization
from sensorium.mobile_export.quantization.calibration import CacheRange
from sensorium.mobile_export.runtime import MEDIA_PROMPTS, PROMPTS, Bundle
from skimage import data

from ..references import reference
from .small_towers import small_llava
from .test_decoder_graphs import FUSED, LENGTH, relative, runner_of, widen_heads
from .test_genai import generated

STANDARD = ("llama", "gemma2", "llama-yarn-mscale", "phi3-partial")
BOTH = "+int8-prompts+int8-cache"


def random_decoder(std: float, **sizes: Any) -> Decoder:
    config = DecoderConfig(family="llama", vocabulary_size=37, **({"rope": Rope(dimensions=16)} | sizes))
    torch.manual_seed(6)
    decoder = Decoder(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return decoder


class RoundedLayer(LayerCache):
    """A layer of torch's cache that rounds as the graphs do: to `steps`, float32 [heads, head size], of each."""

    def __init__(self, like: LayerCache, steps: CacheRange, *, exact_new: bool) -> None:
        super().__init__(like.kind, like.window)
        self.steps, self.exact_new = [part[None, :, None] / 127 for part in steps], exact_new

    def _rounded(self, *parts: torch.Tensor) -> list[torch.Tensor]:
        pairs = zip(parts, self.steps, strict=True)
        return [(part / step).round().clamp(-127, 127) * step for part, step in pairs]

    def extend(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        seen = super().extend(*self._rounded(keys, values), length)
        if not self.exact_new:
            return seen
        whole = (
            torch.cat((old[:, :, : -new.shape[2]], new), 2) for old, new in zip(seen, (keys, values), strict=False)
        )
        return (*whole, seen[2])  # type: ignore[return-value]

    def append(
        self, keys: torch.Tensor, values: torch.Tensor, lengths: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().append(*self._rounded(keys, values), lengths)


def rounded_cache(decoder: Decoder, measured: Calibration, *, exact_new: bool) -> KeyValueCache:
    cache = decoder.new_cache()
    cache.layers = [
        RoundedLayer(layer, measured.cache(number), exact_new=exact_new) for number, layer in enumerate(cache.layers)
    ]
    return cache


@pytest.mark.parametrize(("case", "fused"), [(case, True) for case in FUSED] + [(case, False) for case in STANDARD])
def test_keys_and_values_are_kept_in_8_bits(
    case: str, fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch with a cache that rounds: read by the graph for few positions, and by the one for many, where new ones
    see each other as they are; rows of both go on together."""
    if fused:
        widen_heads(case, monkeypatch)
    reference(case, tmp_path / "theirs")
    decoder = load_decoder(tmp_path / "theirs")
    ids = torch.randint(0, 37, (2, LENGTH), generator=torch.Generator().manual_seed(4))
    measured = Calibration(decoder, ids.flatten().tolist())
    plan = replace(QUANTIZATIONS["fp32"], cache="int8")
    runners = [runner_of(decoder, tmp_path, plan, calibration=measured, many=many) for many in (False, True)]
    kinds = {node.op_type for node in onnx.load(tmp_path / "many.onnx", load_external_data=False).graph.node}
    assert ("GroupQueryAttention" in kinds) == fused
    states, expected = [], []
    with torch.inference_mode():
        for row, (runner, cut) in enumerate(zip(runners, (9, 15), strict=True)):
            cache = rounded_cache(decoder, measured, exact_new=fused and row == 1)
            for first in range(0, cut, 4):
                logits = decoder(ids[row : row + 1, first : min(first + 4, cut)], cache=cache)[0, -1].numpy()
            state = runner.new_state()
            assert relative(runner.read(state, ids[row : row + 1, :cut].numpy(), chunk=4)[0, 0], logits) <= 0.03
            for written in state.buffers:
                assert written.dtype == np.int8 and np.abs(written[:, :, :cut]).max() > 30
                assert not written[:, :, cut:].any()
            states.append(state)
            after = [decoder(ids[row : row + 1, at : at + 1], cache=cache)[0, 0] for at in range(cut, LENGTH)]
            expected.append(torch.stack(after).numpy())
    joined = RunnerState.join(states)
    for step in range(LENGTH - 15):
        found = runners[0].step(joined, torch.stack([ids[0, 9 + step], ids[1, 15 + step]])[:, None].numpy())
        for row in range(2):
            assert relative(found[row, 0], expected[row][step]) <= 0.03


def test_keys_that_later_positions_turn_fit_as_well() -> None:
    """A key whose magnitude lies in one dimension of a pair has it in the other one where rotation has turned it; what
    was measured at the first positions holds there, too."""
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 2, "head_size": 16, "mlp_size": 40}
    decoder = random_decoder(0.3, **sizes, context_length=800, rope=Rope(theta=500.0, dimensions=16))
    with torch.no_grad():
        decoder.get_parameter("model.layers.0.self_attn.k_proj.weight")[8:16] *= 1e-3  # of the first head
    first = np.random.default_rng(2).integers(37, size=12)
    keys = Calibration(decoder, first.tolist()).cache(0)[0].numpy()
    cache = decoder.new_cache()
    with torch.inference_mode():
        decoder(torch.from_numpy(np.tile(first, 60))[None], cache=cache)
    early, late = (cache.layers[0].row(0, 720)[0][0, :, part].abs().amax(1).numpy() for part in (slice(12), slice(720)))
    assert keys.shape == (2, 16) and (late <= keys * 1.0001).all()
    assert (late[0, 8:] > 1.5 * early[0, 8:]).any()  # plain maxima of the first positions would have cut these


def test_prompts_are_read_by_a_graph_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 64 new positions on, but for the first four of a text; by weights of 8 bits, near to what floats give."""
    sizes = {"hidden_size": 48, "layers": 2, "heads": 3, "kv_heads": 1, "head_size": 16, "mlp_size": 80}
    decoder = random_decoder(0.2, **sizes, context_length=900)
    ids = np.random.default_rng(3).integers(37, size=(1, 700))
    plan = replace(QUANTIZATIONS["fp32"], prompts="rows")
    exact = runner_of(decoder, tmp_path, plan)
    measured = Calibration(decoder, ids[0].tolist())
    prompts = runner_of(decoder, tmp_path, plan.of_prompts(), calibration=measured, many=True)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "many.onnx", load_external_data=False).graph.node)
    assert kinds["DynamicQuantizeMatMul"] == 4 * sizes["layers"]
    whole = DecoderRunner(exact.session, exact.shape, prompts=lambda: prompts)
    passes: list[tuple[str, int]] = []
    step = DecoderRunner.step

    def told(self: DecoderRunner, state: RunnerState, new: np.ndarray) -> np.ndarray:
        passes.append(("many" if self is prompts else "few", new.shape[1]))
        return step(self, state, new)

    def read(state: RunnerState, count: int) -> np.ndarray:
        passes.clear()
        with monkeypatch.context() as patched:
            patched.setattr(DecoderRunner, "step", told)
            return whole.read(state, ids[:, :count])

    for count, expected in {
        63: [("few", 63)],
        64: [("few", 4), ("many", 60)],
        700: [("few", 4), ("many", 256), ("many", 256), ("many", 184)],
    }.items():
        state = whole.new_state()
        found = read(state, count)
        assert passes == expected and state.lengths == (count,)
        assert relative(found, exact.read(exact.new_state(), ids[:, :count])) <= 0.05
    read(state, 100)
    assert passes == [("many", 100)]  # of a text that is begun already
    state = whole.new_state()
    state.rows = [RowReading(spans=((2, 80),))]
    read(state, 300)
    assert passes == [("few", 2), ("many", 256), ("many", 42)]  # no run of positions is cut


def test_few_large_features_do_not_take_the_bits_of_all_others(tmp_path: Path) -> None:
    sizes = {"hidden_size": 48, "layers": 1, "heads": 3, "kv_heads": 1, "head_size": 16, "mlp_size": 80}
    decoder = random_decoder(0.2, **sizes, context_length=300)
    with torch.no_grad():
        decoder.get_parameter("model.layers.0.input_layernorm.weight")[5] = 60.0
        decoder.get_parameter("model.layers.0.self_attn.v_proj.weight")[:, 5] = 0.002
        decoder.get_parameter("model.layers.0.self_attn.q_proj.weight")[:, 5] = 0.002
        decoder.get_parameter("model.layers.0.self_attn.k_proj.weight")[:, 5] = 0.002
    ids = np.random.default_rng(3).integers(37, size=(1, 200))
    plan = replace(QUANTIZATIONS["fp32"], linear="rows")
    exact = runner_of(decoder, tmp_path, all_logits=True)
    expected = exact.step(exact.new_state(), ids)
    errors = []
    for calibration in (Calibration(decoder, ids[0].tolist()), None):
        runner = runner_of(decoder, tmp_path, plan, calibration=calibration, all_logits=True, many=True)
        errors.append(relative(runner.step(runner.new_state(), ids), expected))
    assert errors[0] < 0.5 * errors[1]


def test_what_the_calibration_never_saw_does_not_take_all_bits(tmp_path: Path) -> None:
    """A token whose features the calibration's text had not: they may be as large as all others."""
    sizes = {"hidden_size": 48, "layers": 1, "heads": 3, "kv_heads": 1, "head_size": 16, "mlp_size": 80}
    decoder = random_decoder(0.2, **sizes, context_length=300)
    table = decoder.get_parameter("model.embed_tokens.weight")
    with torch.no_grad():
        table[:30, 40:] = 0.0  # the last features are those of the last seven tokens alone
    draw = np.random.default_rng(5)
    seen, ids = draw.integers(30, size=200), draw.integers(20, 37, size=(1, 200))
    exact = runner_of(decoder, tmp_path, all_logits=True)
    expected = exact.step(exact.new_state(), ids)
    plan = replace(QUANTIZATIONS["fp32"], linear="rows")
    runner = runner_of(
        decoder, tmp_path, plan, calibration=Calibration(decoder, seen.tolist()), all_logits=True, many=True
    )
    assert relative(runner.step(runner.new_state(), ids), expected) <= 0.05


@pytest.mark.parametrize("quant", ["fp32", "int8", "int4-fast"])
def test_a_bundle_has_both(quant: str, checkpoint: Path, tmp_path: Path) -> None:
    manifest = sdk.export(checkpoint, tmp_path / "out", quant=quant + BOTH)
    assert manifest.decoder["cache_bits"] == 8 and manifest.graphs[PROMPTS] == "prompts.onnx"
    assert "prompt_scoring.onnx" not in manifest.files and manifest.quantization == quant + BOTH
    assert manifest.figures["prompt_kl"] < 0.05 and manifest.figures["prompt_agreement"] > 0.8
    verified = sdk.verify(tmp_path / "out")
    assert verified.passed and "a long prompt" in [golden.name for golden in verified.goldens]
    model, source = sdk.load(tmp_path / "out"), sdk.load(checkpoint, dtype="float32", device="cpu")
    long = "The tide comes in twice a day, and goes out again as often. " * 12
    tokens = model.encode(long)
    assert len(tokens) > 600
    _, last = model.engine.prefill([tokens])
    _, exact = source.engine.prefill([tokens])
    bound = 0.2 if quant == "int4-fast" else 0.05
    assert np.abs(last - np.asarray(exact)).max() <= bound * np.abs(np.asarray(exact)).max()
    assert "prompts" in Bundle(tmp_path / "out").manifest.graphs
    prompt = list(model.encode("Hello"))
    ours = greedy(reader(Bundle(tmp_path / "out").decoder()), prompt, 8, model.tokenizer.stop_ids)
    assert generated(genai.Model(str(tmp_path / "out")), prompt)[: len(ours)] == ours  # it keeps 8 bits, too


def test_media_are_read_by_it_as_well(tmp_path: Path) -> None:
    """Prompts about pictures, and answers that follow."""
    small_llava(tmp_path / "llava", "padded")
    for quant in ("fp32", "fp32" + BOTH):
        sdk.export(tmp_path / "llava", tmp_path / quant, quant=quant, figures=False)
    plain, small = (sdk.load(tmp_path / quant) for quant in ("fp32", "fp32" + BOTH))
    assert read_manifest(tmp_path / f"fp32{BOTH}").graphs[MEDIA_PROMPTS] == "media_prompts.onnx"
    assert sdk.verify(tmp_path / f"fp32{BOTH}").passed
    question = "What do the two pictures show? " * 4
    pictures = [sdk.Image(data.astronaut()), sdk.Image(data.coffee())]
    logits = []
    for model in (plain, small):
        plan = model.encode(question, *pictures)
        assert len(plan) > 64
        logits.append(np.asarray(model.engine.prefill([plan])[1]))
        assert len(model.ask(question, *pictures, max_new_tokens=5).tokens) <= 5
    assert relative(logits[1], logits[0]) <= 0.05


def test_wrong_names_and_targets_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    assert named_quantization("int4").name == "int4"
    both = named_quantization("mixed+int8-cache+int8-prompts")
    assert (both.prompts, both.cache, both.linear) == ("rows", "int8", QUANTIZATIONS["mixed"].linear)
    for name in ("int5", "int4+", "int4+int8-prompts+int8-prompts", "int4+fast", "+int8-cache", ""):
        with pytest.raises(sdk.OptionError, match=r"\+int8-cache"):
            sdk.export(checkpoint, tmp_path / "out", quant=name)
    with pytest.raises(sdk.OptionError, match="one graph alone"):
        sdk.export(checkpoint, tmp_path / "out", quant="int4+int8-prompts", target="android")
    with pytest.raises(sdk.OptionError, match="no such quantization"):
        sdk.export("minilm", tmp_path / "out", quant="int8+int8-cache")
    own = Quantization("own", "float32", "float32", cache="int8")
    with pytest.raises(sdk.OptionError, match="keeps no cache"):
        sdk.export("minilm", tmp_path / "out", quant=own)
    assert not (tmp_path / "out").exists()
    sdk.export(checkpoint, tmp_path / "out", quant="int4+int8-cache", target="ios", figures=False)
    assert sdk.verify(tmp_path / "out").passed


def test_another_number_of_bits_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    manifest = sdk.export(checkpoint, tmp_path / "out", quant="fp32", figures=False)
    assert "cache_bits" not in manifest.decoder
    for bits in (4, 16):
        write_manifest(tmp_path / "out", replace(manifest, decoder=manifest.decoder | {"cache_bits": bits}))
        with pytest.raises(sdk.CheckpointError, match="8 or 32"):
            sdk.load(tmp_path / "out")
