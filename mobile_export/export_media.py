"""What a model reads besides text, as graphs and files of its bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..encoders.media import Modality
from ..encoders.text import Tokenizer
from ..fusion.connectors import PictureWords
from ..fusion.decoder import Decoder
from ..fusion.model import MultimodalModel
from .bundle import MediaEntry
from .graphs import DecoderGraph, WeightFile, decoder_graph, embedding_graph, picture_graph
from .graphs.linear import LinearWriter
from .quantization import Quantization
from .runtime import EMBEDDING, MEDIA_DECODER, MEDIA_SCORING

__all__ = ["ExportedParts", "MediaSource", "MediaWriter", "interface"]

_DECODERS = {MEDIA_DECODER: "media.onnx", MEDIA_SCORING: "media_scoring.onnx"}
_TABLE = "embedding.onnx"


@dataclass(frozen=True, slots=True)
class MediaSource:
    """What is exported.

    Attributes:
        model: whose connectors read media.
        adapter: name of the adapter that its decoder has, or "".
        limits: of what the SDK reads of each modality, numbers by name.
    """

    model: MultimodalModel
    adapter: str = ""
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportedParts:
    """What was written: files of graphs by role, what the manifest says of each modality, and the adapter's name."""

    graphs: dict[str, str]
    entries: dict[str, MediaEntry]
    adapter: str


@dataclass(frozen=True, slots=True)
class MediaWriter:
    """Writes what belongs to media.

    Attributes:
        decoder, tokenizer: of the model.
        linears, quantization: as for its decoder's graphs.
        length: positions that these hold.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    linears: LinearWriter
    quantization: Quantization
    length: int

    def write(self, source: MediaSource, folder: Path, weights: WeightFile) -> ExportedParts:
        """Graphs and words of every modality that can be exported."""
        import onnx

        graphs, entries = dict(_DECODERS), {}
        for role, name in _DECODERS.items():
            kind = DecoderGraph(embedded=True, all_logits=role == MEDIA_SCORING, context_length=self.length)
            onnx.save(decoder_graph(self.decoder, weights, self.linears, self.quantization, kind), folder / name)
        onnx.save(embedding_graph(self.decoder, weights, self.linears, self.quantization), folder / _TABLE)
        graphs[EMBEDDING] = _TABLE
        for modality in source.model.modalities:
            connector = source.model.connector(modality) if modality in _READ else None
            if isinstance(connector, PictureWords):
                graphs[modality] = f"{modality}.onnx"
                graph = picture_graph(connector, weights, self.quantization.linear)
                onnx.save(graph, folder / graphs[modality])
                entries[modality] = self._pictures(connector, folder, source.limits.get(modality, {}))
        return ExportedParts(graphs, entries, source.adapter)

    def _pictures(self, connector: PictureWords, folder: Path, limits: Mapping[str, float]) -> MediaEntry:
        """Words of pictures, spelled."""
        name = "media/image.json"
        lists = {key: [self._spelled(" " + word) for word in words] for key, words in connector.lists.items()}
        _write_words(folder / name, lists, self._spelled(","))
        longest = {key: max(map(len, words)) for key, words in lists.items()}
        names = max(longest["label"], longest["name"])
        most = longest["kind"] + max(3 * names + 2, longest["colour"] + longest["shape"])
        return MediaEntry(connector.placeholder, name, 2, most, dict(limits))

    def _spelled(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special=False, parse_special=False))


_READ: frozenset[Modality] = frozenset(("image",))


def _write_words(path: Path, lists: Mapping[str, Sequence[Sequence[int]]], comma: Sequence[int]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"lists": lists, "comma": comma}, separators=(",", ":")) + "\n", encoding="utf-8")


def interface(path: Path) -> dict[str, dict[str, str]]:
    """``inputs`` and ``outputs`` of a graph, each as its type and shape by name: ``uint8 [height, width, 3]``."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return {"inputs": _described(graph.input), "outputs": _described(graph.output)}


def _described(values: Sequence[Any]) -> dict[str, str]:
    from onnx import helper

    described = {}
    for value in values:
        kind = value.type.tensor_type
        shape = ", ".join(side.dim_param or str(side.dim_value) for side in kind.shape.dim)
        described[value.name] = f"{helper.tensor_dtype_to_np_dtype(kind.elem_type)} [{shape}]"
    return described
