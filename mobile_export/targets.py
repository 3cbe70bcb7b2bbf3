"""What each kind of device asks of a bundle beyond what every bundle is.

onnx            ONNX Runtime on any system, its packages for Android and iOS among them
genai           onnxruntime-genai: nothing more, its configuration is in every bundle
web             ONNX Runtime Web: no file that a browser cannot hold; transformers.js is told how the files lie
android, ios    builds of ONNX Runtime made for this bundle alone: the decoder in ORT format, and its operators' names
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..encoders.errors import UnsupportedInputError

__all__ = ["OPERATORS", "TARGETS", "Target", "finish"]

#: The operators of a bundle in ORT format, as ``--include_ops_by_config`` of onnxruntime's build takes them.
OPERATORS = "required_operators.config"
_MOST = 2**31 - 1  # bytes: a browser's ArrayBuffer as of a flatbuffer


@dataclass(frozen=True, slots=True)
class Target:
    """What a bundle is exported for.

    Attributes:
        ort_format: its one graph is in ORT format. Such a graph holds its weights itself: a second graph would store
            them again, so there is none of all positions' logits, and none that reads media.
        bounded: no file may have 2 GiB or more.
        settings: are added to config.json.
    """

    ort_format: bool = False
    bounded: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


_TRANSFORMERS_JS = {"transformers.js_config": {"dtype": "fp32", "use_external_data_format": True}}
#: By name.
TARGETS: dict[str, Target] = {
    "onnx": Target(),
    "genai": Target(),
    "web": Target(bounded=True, settings=_TRANSFORMERS_JS),
    "android": Target(bounded=True, ort_format=True),
    "ios": Target(bounded=True, ort_format=True),
}


def finish(target: Target, folder: Path, graphs: Mapping[str, str], weights: str) -> dict[str, str]:
    """Turns a bundle's graphs and weights into what its target takes.

    Args:
        target: that it is exported for.
        folder: of the bundle.
        graphs: files by what they do.
        weights: file of their weights.

    Returns:
        The graphs' files now.

    Raises:
        UnsupportedInputError: the model is too large for the target.
    """
    if target.bounded:
        _check_sizes(folder, graphs, weights)
    if not target.ort_format:
        return dict(graphs)
    ((role, name),) = graphs.items()
    converted = _in_ort_format(folder / name)
    (folder / weights).unlink()
    _write_operators(folder / OPERATORS, converted)
    return {role: converted.name}


def _check_sizes(folder: Path, graphs: Mapping[str, str], weights: str) -> None:
    sizes = {weights: (folder / weights).stat().st_size} | {name: _held(folder / name) for name in graphs.values()}
    for name, size in sizes.items():
        if size > _MOST:
            raise UnsupportedInputError(
                "The model is too large for this target.",
                given=f"{name} with its weights has {size} bytes",
                expected=f"at most {_MOST}",
                hint="choose fewer bits (--quant int4), or the target onnx, which has no such limit",
            )


def _held(path: Path) -> int:
    """Bytes of a graph with its weights."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    entries = (entry for tensor in graph.initializer for entry in tensor.external_data if entry.key == "length")
    return path.stat().st_size + sum(int(entry.value) for entry in entries)


def _in_ort_format(path: Path) -> Path:
    """A graph as ONNX Runtime would run it, weights and all, in place of its file."""
    import onnxruntime

    out = path.with_suffix(".ort")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Beyond this level graphs are fitted to the processor that they are converted on.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    path.unlink()
    return out


def _write_operators(path: Path, graph: Path) -> None:
    processor = _processor()
    required: dict[str, dict[int, set[str]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to be closed by itself
        processor(str(graph), required, None).process()
    lines = [f"# Operators of {graph.name}: build.py --minimal_build --include_ops_by_config {path.name}"]
    for domain, versions in sorted(required.items()):
        lines += [f"{domain};{version};{','.join(sorted(names))}" for version, names in sorted(versions.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _processor() -> Any:
    """ONNX Runtime's reader of graphs in ORT format; its import sets up logging for the process, which is undone."""
    before = logging.root.handlers[:]
    from onnxruntime.tools.ort_format_model.ort_model_processor import OrtFormatModelProcessor

    logging.root.handlers[:] = before
    return OrtFormatModelProcessor
