"""Exported decoders of every family against `transformers`: whole texts, chunks, single tokens and ragged batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from sensorium import sdk
from sensorium.fusion.checkpoints import load_decoder
from sensorium.fusion.config import DecoderConfig, Rope
from sensorium.fusion.decoder import Decoder
from sensorium.mobile_export.decoder_runner import DecoderRunner, DecoderShape, RowReading, RunnerState, open_session
from sensorium.mobile_export.graphs import DecoderGraph, WeightFile, decoder_graph
from sensorium.mobile_export.graphs.linear import LinearWriter
from sensorium.mobile_export.quantization import QUANTIZATIONS, Calibration, Quantization

from ..references import CASES, reference

LENGTH = 23
# Frequencies that change with the length; those of LongRoPE only beyond what a graph is asked to hold.
REFUSED = {"llama-dynamic": "dynamic NTK", "phi3-longrope-long": "LongRoPE"}
FUSED = ("gemma1", "gemma2", "gemma3", "gpt1", "gpt2", "llama", "llama-mha-bias", "llama-yarn-mscale", "mistral")
FUSED += ("mixtral-sliding", "phi3", "phi3-partial", "qwen3-sliding", "smollm3-sliding")
SHORTER = {"phi3-longrope-short": 32}


def runner_of(
    decoder: Decoder,
    folder: Path,
    plan: Quantization = QUANTIZATIONS["fp32"],
    length: int | None = None,
    calibration: Calibration | None = None,
    **kind: bool,
) -> DecoderRunner:
    config, path = decoder.config, folder / f"{'-'.join(kind) or 'decoder'}.onnx"
    with WeightFile(path.with_suffix(".data")) as weights:
        wanted = DecoderGraph(context_length=length or config.context_length, **kind)
        onnx.save(decoder_graph(decoder, weights, LinearWriter(calibration), plan, wanted), path)
    sizes = (config.layers, config.kv_heads, config.head_size, config.vocabulary_size, length or config.context_length)
    return DecoderRunner(open_session(path, threads=1), DecoderShape(*sizes, 8 if plan.cache == "int8" else 32))


def relative(given: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(given - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_a_graph_gives_the_logits_of_transformers(case: str, tmp_path: Path) -> None:
    check(case, tmp_path, fused=False)  # heads of 4, 6, 8 and 10


@pytest.mark.parametrize("case", FUSED)
def test_the_fused_operator_does_too(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widen_heads(case, monkeypatch)
    check(case, tmp_path, fused=True)


def widen_heads(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of a size that the fused operator takes."""
    name, fields = CASES[case]
    wide = {"GPT2": {"n_embd": 64}, "OpenAIGPT": {"n_embd": 64}}
    wide["Phi3"] = {"hidden_size": 32 * fields.get("num_attention_heads", 0)}
    monkeypatch.setitem(CASES, case, (name, fields | wide.get(name, {"head_dim": 16})))


@pytest.mark.parametrize("heads", [(6, 6), (6, 2)])
@pytest.mark.parametrize("positions", ["bucketed", "relative"])
def test_positions_that_act_on_scores_fall_back_to_standard_operators(
    positions: Literal["bucketed", "relative"], heads: tuple[int, int], tmp_path: Path
) -> None:
    """LaMDA's, Gopher's and Chinchilla's, of whom no weights are public: as torch, past the last bucket, too."""
    sizes = {"hidden_size": 48, "layers": 3, "head_size": 8, "mlp_size": 40, "context_length": 301}
    config = DecoderConfig(
        family="sensorium", vocabulary_size=37, heads=heads[0], kv_heads=heads[1], positions=positions, **sizes
    )
    torch.manual_seed(5)
    decoder = Decoder(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    check_decoder(decoder, decoder, tmp_path, fused=False)
    tokens = torch.randint(0, 37, (1, 290))
    runner = runner_of(decoder, tmp_path)
    with torch.inference_mode():
        expected = decoder(tokens)[0, -1].numpy()
    assert relative(runner.read(runner.new_state(), tokens.numpy(), chunk=64)[0, 0], expected) <= 1e-5


@torch.inference_mode()
@pytest.mark.parametrize(("size", "sections"), [(10, (1, 0, 4)), (16, (2, 1, 5))])
def test_positions_of_three_axes_rotate_as_with_torch(size: int, sections: tuple[int, ...], tmp_path: Path) -> None:
    """M-RoPE in chunks and in rows of different lengths; a layer has a window, another no rotation."""
    config = DecoderConfig(
        family="sensorium",
        vocabulary_size=37,
        hidden_size=48,
        layers=3,
        heads=6,
        kv_heads=2,
        head_size=size,
        mlp_size=40,
        context_length=64,
        window=7,
        layer_attention=("full", "sliding", "full"),
        layers_without_rope=frozenset({2}),
        rope=Rope(dimensions=size, sections=sections),
    )
    torch.manual_seed(5)
    decoder = Decoder(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens, axes = torch.randint(0, 37, (2, LENGTH)), torch.randint(0, 60, (3, 2, LENGTH))
    expected, embedded = decoder(tokens, positions=axes).numpy(), decoder.embed(tokens).numpy()
    runner = runner_of(decoder, tmp_path, embedded=True, all_logits=True)
    graph = onnx.load(tmp_path / "embedded-all_logits.onnx", load_external_data=False).graph
    assert any(node.op_type == "GroupQueryAttention" for node in graph.node) == (size == 16)
    states = []
    for row, cut in enumerate((9, 5)):
        state = runner.new_state()
        state.rows = [RowReading(axes=axes[:, row].numpy())]
        for first, last in ((0, 4), (4, cut)):
            found = runner.step(state, embedded[row : row + 1, first:last])
            assert relative(found[0], expected[row, first:last]) <= 1e-5
        states.append(state)
    joined = RunnerState.join(states)
    for step in range(11):
        found = runner.step(joined, np.stack([embedded[0, 9 + step], embedded[1, 5 + step]])[:, None])
        assert relative(found[:, 0], np.stack([expected[0, 9 + step], expected[1, 5 + step]])) <= 1e-5


def check(case: str, tmp_path: Path, *, fused: bool) -> None:
    theirs = reference(case, tmp_path / "theirs")
    decoder = load_decoder(tmp_path / "theirs")
    check_decoder(decoder, lambda tokens: theirs(tokens).logits, tmp_path, fused=fused, length=SHORTER.get(case))


@torch.inference_mode()
def check_decoder(
    decoder: Decoder,
    logits: Callable[[torch.Tensor], torch.Tensor],
    tmp_path: Path,
    *,
    fused: bool,
    length: int | None = None,
) -> None:
    """A decoder's graphs against logits [2, T, V] that another gives."""
    tokens = torch.randint(0, 37, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    expected = logits(tokens).numpy()
    scoring = runner_of(decoder, tmp_path, length=length, all_logits=True)
    ids = tokens.numpy()
    assert relative(scoring.step(scoring.new_state(2), ids), expected) <= 1e-5
    runner = runner_of(decoder, tmp_path, length=length)
    kinds = {node.op_type for node in onnx.load(tmp_path / "decoder.onnx", load_external_data=False).graph.node}
    assert ("GroupQueryAttention" in kinds) == fused
    states = []
    for row, cut in zip(ids, (9, 5), strict=True):
        state = runner.new_state()
        found = runner.read(state, row[None, :cut], chunk=4)
        assert found.shape == (1, 1, 37)
        assert relative(found[0, 0], expected[len(states), cut - 1]) <= 1e-5
        states.append(state)
    # Rows of different lengths decode together.
    joined = RunnerState.join(states)
    assert joined.lengths == (9, 5)
    for step in range(6):
        found = runner.step(joined, np.stack([ids[0, 9 + step : 10 + step], ids[1, 5 + step : 6 + step]]))
        assert relative(found[0, 0], expected[0, 9 + step]) <= 1e-5
        assert relative(found[1, 0], expected[1, 5 + step]) <= 1e-5
    joined.truncate([12, 5])
    joined.select([1, 0, 1])
    assert joined.lengths == (5, 12, 5)
    found = runner.step(joined, np.stack([ids[1, 5:6], ids[0, 12:13], ids[1, 5:6]]))
    for row, (text, at) in enumerate(((1, 5), (0, 12), (1, 5))):
        assert relative(found[row, 0], expected[text, at]) <= 1e-5


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_operator_expresses_is_refused_by_name(case: str, tmp_path: Path) -> None:
    reference(case, tmp_path)
    decoder = load_decoder(tmp_path)
    with pytest.raises(sdk.UnsupportedInputError, match=REFUSED[case]):
        runner_of(decoder, tmp_path)
