"""From a text encoder to a bundle that makes the same vectors without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.text.pooling import unit
from ..encoders.text.text_encoder import TextEncoder
from .bundle import Manifest, file_entries, new_bundle, write_json, write_manifest
from .export_media import interface
from .graphs import WeightFile
from .graphs.text_encoder import text_encoder_graph
from .quantization import Quantization
from .text_encoder import TEXT_ENCODER, TextEncoderBundle, write_embedding_goldens, write_settings
from .texts import CALIBRATION, EVALUATION, QUESTIONS, text

__all__ = ["TextEncoderSource", "export_text_encoder"]

_GRAPH, _WEIGHTS = "model.onnx", "model.onnx_data"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderSource:
    """What is exported.

    Attributes:
        encoder: in float32.
        name: of the model, for people.
        family: of its architecture.
        licence: SPDX identifier, or "".
        raw_config: its config.json.
    """

    encoder: TextEncoder
    name: str
    family: str
    licence: str = ""
    raw_config: Mapping[str, Any] = field(default_factory=dict)


def export_text_encoder(
    source: TextEncoderSource,
    out: Path,
    quantization: Quantization,
    *,
    overwrite: bool = False,
    figures: bool = True,
    tell: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Writes a bundle; until it is whole, nothing is at `out`.

    Args:
        source: the model.
        out: directory of the bundle.
        quantization: how its weights are stored.
        overwrite: replace a bundle that is there.
        figures: measure how its vectors compare with those of the source.
        tell: is told each step that begins.

    Raises:
        InvalidInputError: there is something at `out` that would be lost.
    """
    import onnx

    encoder = source.encoder
    network, preprocess = encoder.network, encoder.preprocess
    with new_bundle(out, overwrite=overwrite) as folder:
        tell(f"writing the graph ({quantization.name})")
        with WeightFile(folder / _WEIGHTS) as weights:
            onnx.save(text_encoder_graph(network, weights, quantization), folder / _GRAPH)
        preprocess.tokenizer.save(folder)
        write_json(folder / "config.json", source.raw_config)
        write_settings(folder, encoder.pooling, preprocess.longest, encoder.feature_size)
        config = network.config
        manifest = Manifest(
            source=source.name,
            licence=source.licence,
            family=source.family,
            quantization=quantization.name,
            decoder={
                "layers": config.layers,
                "vocabulary_size": config.vocabulary_size,
                "context_length": preprocess.longest,
            },
            graphs={TEXT_ENCODER: _GRAPH},
            interfaces={TEXT_ENCODER: interface(folder / _GRAPH)},
        )
        return _with_proof(encoder, folder, manifest, quantization, measured=figures, tell=tell)


def _with_proof(
    encoder: TextEncoder,
    folder: Path,
    manifest: Manifest,
    quantization: Quantization,
    *,
    measured: bool,
    tell: Callable[[str], None],
) -> Manifest:
    """The manifest with files, figures and goldens, written."""
    write_manifest(folder, replace(manifest, files=file_entries(folder)))
    bundle = TextEncoderBundle(folder)
    tell("making goldens and figures" if measured else "making goldens")
    questions = text(QUESTIONS).splitlines()
    write_embedding_goldens(bundle, [*questions[:4], text(EVALUATION)[:4000]], share=quantization.tolerance)
    figures = _figures(encoder, bundle, questions) if measured else {}
    finished = replace(manifest, files=file_entries(folder), figures=figures)
    write_manifest(folder, finished)
    return finished


def _figures(encoder: TextEncoder, bundle: TextEncoderBundle, questions: list[str]) -> dict[str, float]:
    """How vectors of the questions and of all lines of the shipped texts compare with the source's."""
    lines = [line for name in (EVALUATION, CALIBRATION) for line in text(name).splitlines() if line.strip()]
    texts = [*questions, *lines]
    exact, found = (unit(vectors) for vectors in (encoder.embed(texts).numpy(), bundle.embed(texts)))
    cosines = (exact * found).sum(1)
    same = _nearest(exact) == _nearest(found)
    measured = {"cosine": cosines.mean(), "cosine_least": cosines.min(), "same_nearest": same.mean()}
    return {name: round(float(value), 5) for name, value in measured.items()} | {"texts": float(len(texts))}


def _nearest(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The number of each vector's nearest other one."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    return likeness.argmax(1)
