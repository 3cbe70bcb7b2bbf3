"""From a decoder and its tokenizer to a bundle, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..encoders.errors import OptionError
from ..encoders.text import Tokenizer
from ..fusion.checkpoints import LowRank
from ..fusion.decoder import Decoder
from .adapters import ADAPTER_SUFFIX, adapter_slots, write_adapter
from .bundle import Manifest, file_entries, new_bundle, read_manifest, write_json, write_manifest
from .chat_frame import CHAT_FRAME, chat_frame
from .decoder_runner import PROMPT_CHUNK, SINKS, DecoderRunner, RunnerState, open_session
from .export_media import ExportedParts, MediaSource, MediaWriter, interface
from .genai import genai_config
from .graphs import DecoderGraph, WeightFile, decoder_graph
from .graphs.linear import LinearWriter
from .media_proof import write_media_goldens
from .proof import ANSWER, GOLDENS, Reader, adapter_goldens, figures, greedy, make_golden, reader, write_goldens
from .quantization import Calibration, Quantization
from .runtime import DECODER, PROMPTS, SCORING, Bundle
from .targets import TARGETS, finish
from .texts import CALIBRATION, EVALUATION, QUESTIONS, text

__all__ = ["ExportSource", "export_bundle"]

_WEIGHTS = "model.onnx_data"  # as transformers.js looks for it
_GRAPHS = {DECODER: "model.onnx", SCORING: "scoring.onnx"}
_READS_PROMPTS = "prompts.onnx"
_SCORES_PROMPTS = "prompt_scoring.onnx"  # for figures alone
_MOST_TEXT = 1024  # tokens that figures are measured on
_ANSWER = 24  # tokens of the answers that are compared
_LONG_PROMPT = 200  # tokens of a golden for what reads prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSource:
    """What is exported.

    Attributes:
        decoder: in float32.
        tokenizer: its own.
        name: of the model, for people.
        licence: SPDX identifier, or "".
        raw_config: its config.json.
        defaults: its generation_config.json.
        media: what is exported besides the decoder, or None.
        adapters: that lie beside it and can be switched on, by name: what each adds to the decoder's parameters.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    name: str
    licence: str = ""
    raw_config: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    media: MediaSource | None = None
    adapters: Mapping[str, Mapping[str, LowRank]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Job:
    """How a source is exported: as of `export_bundle`, and the positions that the graphs can hold."""

    quantization: Quantization
    length: int
    figures: bool
    tell: Callable[[str], None]
    target: str

    @property
    def graphs(self) -> dict[str, str]:
        """The decoder's, by what they do."""
        if TARGETS[self.target].ort_format:
            return {DECODER: _GRAPHS[DECODER]}
        return _GRAPHS | ({PROMPTS: _READS_PROMPTS} if self.quantization.prompts else {})


def export_bundle(
    source: ExportSource,
    out: Path,
    quantization: Quantization,
    *,
    target: str = "onnx",
    overwrite: bool = False,
    context_length: int | None = None,
    figures: bool = True,
    tell: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Writes a bundle; until it is whole, nothing is at `out`.

    Args:
        source: the model.
        out: directory of the bundle.
        quantization: how its weights are stored.
        target: what it is for, a name in `TARGETS`; one in ORT format reads no media.
        overwrite: replace a bundle that is there.
        context_length: positions that it can hold; the model's own if not given.
        figures: measure how the bundle compares with its source, which takes longer than all the rest.
        tell: is told each step that begins.

    Raises:
        OptionError: a graph for prompts, and a target that takes one graph alone.
        InvalidInputError: there is something at `out` that would be lost.
        UnsupportedInputError: a family that cannot be expressed, or a model that its target cannot hold; says why.
    """
    if TARGETS[target].ort_format and quantization.prompts is not None:
        given, hint = f"{quantization.name} for {target}", "choose the target onnx, or leave +int8-prompts out"
        raise OptionError("Bundles in ORT format have one graph alone, and none for prompts.", given=given, hint=hint)
    assert source.media is None or not TARGETS[target].ort_format, "one graph alone"
    length = context_length or source.decoder.config.context_length
    with new_bundle(out, overwrite=overwrite) as folder:
        return _write(source, folder, _Job(quantization, length, figures, tell, target))


def _write(source: ExportSource, folder: Path, job: _Job) -> Manifest:
    calibration, quantization, length = None, job.quantization, job.length
    if quantization.measures:
        calibration = Calibration(source.decoder, _tokens(source.tokenizer, CALIBRATION), job.tell)
    job.tell(f"writing graphs ({quantization.name})")
    adapters = {name: adapter_slots(source.decoder, updates) for name, updates in source.adapters.items()}
    slots = {product for found in adapters.values() for product in found}
    graphs, media = _write_graphs(source, folder, LinearWriter(calibration, slots), job)
    files = {name: f"adapters/{name}{ADAPTER_SUFFIX}" for name in adapters}
    for name, file in files.items():
        write_adapter(folder / file, adapters[name])
    interfaces = {role: interface(folder / name) for role, name in graphs.items()}
    target = TARGETS[job.target]
    graphs = finish(target, folder, graphs, _WEIGHTS)
    source.tokenizer.save(folder)
    config = source.decoder.config
    ends = sorted(source.tokenizer.stop_ids)
    write_json(folder / "config.json", {**source.raw_config, **target.settings})
    write_json(folder / "generation_config.json", ({"eos_token_id": ends} if ends else {}) | dict(source.defaults))
    frame = chat_frame(source.tokenizer) if target.ort_format else None
    if frame is not None:
        write_json(folder / CHAT_FRAME, frame)
    write_json(folder / "genai_config.json", genai_config(config, source.tokenizer, length, graphs))
    sizes = ("layers", "kv_heads", "head_size", "vocabulary_size")
    cache = {} if quantization.cache == "float32" else {"cache_bits": 8}
    manifest = Manifest(
        source=source.name,
        licence=source.licence,
        family=config.family,
        quantization=quantization.name,
        target=job.target,
        decoder={name: getattr(config, name) for name in sizes} | {"context_length": length} | cache,
        graphs=graphs,
        modalities=("text", *(media.entries if media else ())),
        adapters=files,
        media=media.entries if media else {},
        adapter=media.adapter if media else "",
        interfaces=interfaces,
    )
    return _with_proof(source, folder, manifest, job)


def _write_graphs(
    source: ExportSource, folder: Path, linears: LinearWriter, job: _Job
) -> tuple[dict[str, str], ExportedParts | None]:
    """Files of graphs by what they do, and what belongs to media."""
    import onnx

    quantization, length = job.quantization, job.length
    with WeightFile(folder / _WEIGHTS) as weights:
        for role, name in job.graphs.items():
            plan = quantization.of_prompts() if role == PROMPTS else quantization
            kind = DecoderGraph(all_logits=role == SCORING, many=role == PROMPTS, context_length=length)
            onnx.save(decoder_graph(source.decoder, weights, linears, plan, kind), folder / name)
        if PROMPTS in job.graphs and job.figures:
            kind = DecoderGraph(all_logits=True, many=True, context_length=length)
            scores = decoder_graph(source.decoder, weights, linears, quantization.of_prompts(), kind)
            onnx.save(scores, folder / _SCORES_PROMPTS)
        if source.media is None:
            return job.graphs, None
        # Its pipeline for pictures leaves adapters out without a word; its loop for texts does not.
        pipeline = not source.adapters
        writer = MediaWriter(source.decoder, source.tokenizer, linears, quantization, length, pipeline)
        media = writer.write(source.media, folder, weights)
        return job.graphs | media.graphs, media


def _with_proof(source: ExportSource, folder: Path, manifest: Manifest, job: _Job) -> Manifest:
    """The manifest with files, figures and goldens, written; the bundle is opened as any other is."""
    from dataclasses import replace

    write_manifest(folder, replace(manifest, files=file_entries(folder)))
    bundle = Bundle(folder)
    runner, tokenizer = bundle.decoder(), source.tokenizer
    job.tell("making goldens and figures" if job.figures else "making goldens")
    prompts = _prompts(tokenizer)
    asked = dict(list(prompts.items())[:4])
    if PROMPTS in manifest.graphs:
        asked["a long prompt"] = _tokens(tokenizer, EVALUATION)[
            : min(_LONG_PROMPT, bundle.shape.context_length - ANSWER)
        ]
    share = job.quantization.tolerance
    goldens = [
        make_golden(lambda: reader(runner), name, prompt, tokenizer.stop_ids, share=share)
        for name, prompt in asked.items()
    ]
    write_goldens(folder, goldens)
    for name in manifest.adapters:
        adapted = Bundle(folder, adapter=name).decoder()
        question, prompt = next(iter(prompts.items()))
        found = make_golden(lambda: reader(adapted), f"{question} ({name})", prompt, tokenizer.stop_ids, share=share)  # noqa: B023
        write_goldens(folder, [found], adapter_goldens(name))
    write_media_goldens(bundle, share=share)
    found = _figures(source, bundle, prompts) if job.figures else {}
    finished = replace(manifest, files=file_entries(folder), figures=found)
    write_manifest(folder, finished)
    assert read_manifest(folder) == finished and GOLDENS in finished.files, "what was written is what was meant"
    return finished


def _figures(source: ExportSource, bundle: Bundle, prompts: Mapping[str, list[int]]) -> dict[str, float]:
    tokens = _tokens(source.tokenizer, EVALUATION)[: min(_MOST_TEXT, bundle.shape.context_length)]
    with torch.inference_mode():
        exact = source.decoder(torch.tensor([tokens]))[0].numpy()
    found = bundle.scores(RunnerState(bundle.shape, 1), np.array([tokens], np.int64))
    measured = figures(exact, found, tokens) | _prompt_figures(bundle, exact, tokens)
    stops = source.tokenizer.stop_ids
    changed = [
        greedy(_torch_reader(source.decoder), prompt, _ANSWER, stops)
        != greedy(reader(bundle.decoder()), prompt, _ANSWER, stops)
        for prompt in prompts.values()
    ]
    counted = {"answers": float(len(changed)), "answers_changed": float(sum(changed))}
    return {name: round(value, 5) for name, value in (measured | counted).items()}


def _prompt_figures(bundle: Bundle, exact: NDArray[np.float32], tokens: Sequence[int]) -> dict[str, float]:
    """The same of what reads prompts, if something does."""
    scores = bundle.path / _SCORES_PROMPTS
    if not scores.exists():
        return {}
    state, ids = RunnerState(bundle.shape, 1), np.array([list(tokens)], np.int64)
    first = bundle.scores(state, ids[:, :SINKS])
    runner = DecoderRunner(open_session(scores), bundle.shape)
    passes = state.passes(ids.shape[1] - SINKS, PROMPT_CHUNK)
    rest = [runner.step(state, ids[:, SINKS + begin : SINKS + end])[0] for begin, end in passes]
    scores.unlink()
    found = figures(exact, np.concatenate([first, *rest]), tokens)
    return {f"prompt_{name}": found[name] for name in ("perplexity", "kl", "agreement")}


def _torch_reader(decoder: Decoder) -> Reader:
    cache = decoder.new_cache()

    @torch.inference_mode()
    def read(tokens: Sequence[int]) -> NDArray[np.float32]:
        return decoder(torch.tensor([list(tokens)]), cache=cache, logits="last")[0, -1].numpy()

    return read


def _prompts(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Questions as the model is asked them."""
    asked = text(QUESTIONS).splitlines()
    if not tokenizer.has_chat_template:
        return {question: list(tokenizer.encode(question)) for question in asked}
    return {question: list(tokenizer.encode_chat([{"role": "user", "content": question}])) for question in asked}


def _tokens(tokenizer: Tokenizer, name: str) -> list[int]:
    return list(tokenizer.encode(text(name)))
