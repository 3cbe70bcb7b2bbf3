"""What a model reads besides text, as graphs and files of its bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..encoders.audio import WhisperTranscriber
from ..encoders.errors import UnsupportedInputError
from ..encoders.media import Modality
from ..encoders.text import Tokenizer
from ..fusion.connectors import ClipWords, Connector, HasStandIn, PictureWords, TorchClipReader, TranscriptWords
from ..fusion.connectors.clip_choice import COUNTS, EVENTS
from ..fusion.connectors.clip_heads import ClipHeads
from ..fusion.decoder import Decoder
from ..fusion.model import MultimodalModel
from ..fusion.multimodal.qwen2_vl import Qwen2VLImages
from ..fusion.multimodal.sounds import SoundConnector
from .bundle import MediaEntry
from .export_towers import frame_details, native_details, picture_tower
from .genai import PIPELINE, PROCESSOR, TABLE, TOWER, has_pipeline, processor_config
from .graphs import (
    DecoderGraph,
    SoundGraphs,
    WeightFile,
    clip_graph,
    decoder_graph,
    each_picture,
    embedding_graph,
    listener_graph,
    native_tower_graph,
    picture_graph,
    resize_graph,
    spectrum_graph,
    tower_graph,
)
from .graphs.linear import LinearWriter
from .media.open import CLIP, RESIZE, SOUND_ROLES, SOUNDS
from .quantization import Quantization
from .runtime import EMBEDDING, MEDIA_DECODER, MEDIA_PROMPTS, MEDIA_SCORING

__all__ = ["ExportedParts", "MediaSource", "MediaWriter", "interface"]

_DECODERS = {MEDIA_DECODER: "media.onnx", MEDIA_SCORING: "media_scoring.onnx"}
_READS_PROMPTS = "media_prompts.onnx"
_TABLE = "embedding.onnx"
_TOWER = {"image": "image.onnx", RESIZE: "image_resize.onnx"}
_PICTURES = "media/image.json"


@dataclass(frozen=True, slots=True)
class MediaSource:
    """What is exported.

    Attributes:
        model: whose connectors read media.
        limits: of each modality that is exported, what the SDK reads of it: numbers by name.
        adapter: name of the adapter that its decoder has, or "".
    """

    model: MultimodalModel
    limits: Mapping[Modality, Mapping[str, float]]
    adapter: str = ""


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
        pipeline: whether onnxruntime-genai's pipeline for pictures is written, too, where it can express them.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    linears: LinearWriter
    quantization: Quantization
    length: int
    pipeline: bool = True

    def write(self, source: MediaSource, folder: Path, weights: WeightFile) -> ExportedParts:
        """Graphs and words of every modality that is exported."""
        import onnx

        graphs: dict[str, str] = _DECODERS | ({MEDIA_PROMPTS: _READS_PROMPTS} if self.quantization.prompts else {})
        entries: dict[str, MediaEntry] = {}
        for role, name in graphs.items():
            plan = self.quantization.of_prompts() if role == MEDIA_PROMPTS else self.quantization
            kind = DecoderGraph(
                embedded=True,
                both_ways=bool(source.model.both_ways),
                all_logits=role == MEDIA_SCORING,
                many=role == MEDIA_PROMPTS,
                context_length=self.length,
            )
            onnx.save(decoder_graph(self.decoder, weights, self.linears, plan, kind), folder / name)
        onnx.save(embedding_graph(self.decoder, weights, self.linears, self.quantization), folder / _TABLE)
        graphs[EMBEDDING] = _TABLE
        for modality in source.limits:
            more, entry = _WRITERS[modality](self, source, folder, weights)
            graphs |= more
            entries[modality] = entry
        graphs |= self._pipeline(source, folder, weights)
        return ExportedParts(graphs, entries, source.adapter)

    def pictures(self, source: MediaSource, folder: Path, weights: WeightFile) -> _Part:
        """What reads pictures: words that are seen in them, or the embeddings of a tower."""
        import onnx

        connector = source.model.connector("image")
        if isinstance(connector, Qwen2VLImages):
            return self._native_tower(connector, source, folder, weights)
        if not isinstance(connector, PictureWords):
            return self._tower(connector, source, folder, weights)
        counting = _clip_heads(source) if "video" in source.limits else None
        onnx.save(picture_graph(connector, weights, self.quantization.media, counting), folder / "image.onnx")
        lists = self._write_words(folder / _PICTURES, connector.lists)
        longest = {key: max(map(len, words)) for key, words in lists.items()}
        names = max(longest["label"], longest["name"])
        most = longest["kind"] + max(3 * names + 2, longest["colour"] + longest["shape"])
        return {"image": "image.onnx"}, MediaEntry(
            connector.placeholder, _PICTURES, 2, most, dict(source.limits["image"])
        )

    def _tower(self, connector: Connector, source: MediaSource, folder: Path, weights: WeightFile) -> _Part:
        """A tower and its projector, and what resizes pictures for it."""
        import onnx

        tower = picture_tower(connector)
        steps, storage = tower.encoder.preprocess, self.quantization.media
        reads = tower_graph(tower.modules, steps, tower.size, weights, self.linears, storage, tower.newline)
        onnx.save(reads, folder / _TOWER["image"])
        onnx.save(resize_graph(weights, steps.config.resample), folder / _TOWER[RESIZE])
        told = {"mark": connector.mark, "both_ways": "image" in source.model.both_ways}
        _write_json(folder / _PICTURES, told | tower.parts.details())
        limits = dict(source.limits["image"])
        return _TOWER, MediaEntry(connector.placeholder, _PICTURES, tower.parts.slots, tower.parts.most, limits)

    def _native_tower(self, connector: Qwen2VLImages, source: MediaSource, folder: Path, weights: WeightFile) -> _Part:
        """The same of one that reads pictures in their own shape."""
        import onnx

        reader = connector.reader
        onnx.save(native_tower_graph(reader, weights, self.linears, self.quantization.media), folder / _TOWER["image"])
        onnx.save(resize_graph(weights, reader.steps.resample), folder / _TOWER[RESIZE])
        _write_json(folder / _PICTURES, native_details(reader))
        limits = dict(source.limits["image"])
        return _TOWER, MediaEntry(connector.placeholder, _PICTURES, 1, self.length, limits)

    def _pipeline(self, source: MediaSource, folder: Path, weights: WeightFile) -> dict[str, str]:
        """Graphs of onnxruntime-genai's pipeline for pictures around the bundle's own weights; none where it would read
        pictures otherwise than they are read here."""
        import onnx

        if not self.pipeline or "image" not in source.limits or "image" not in source.model.both_ways:
            return {}
        tower = picture_tower(source.model.connector("image"))
        if not has_pipeline(tower.parts):
            return {}
        place = self.tokenizer.token_id(source.model.connector("image").placeholder)
        kind = DecoderGraph(embedded=True, place=place, context_length=self.length)
        common = self.decoder, weights, self.linears, self.quantization
        onnx.save(
            each_picture(onnx.load(folder / _TOWER["image"], load_external_data=False)), folder / "genai_image.onnx"
        )
        onnx.save(embedding_graph(*common, place), folder / "genai_embedding.onnx")
        onnx.save(decoder_graph(*common, kind), folder / "genai_decoder.onnx")
        _write_json(folder / PROCESSOR, processor_config(tower.encoder.preprocess.config))
        return {TOWER: "genai_image.onnx", TABLE: "genai_embedding.onnx", PIPELINE: "genai_decoder.onnx"}

    def sounds(self, source: MediaSource, folder: Path, weights: WeightFile) -> _Part:
        """What hears: words that are said, or the embeddings of a tower."""
        import onnx

        heard = source.model.connector("audio")
        if isinstance(heard, SoundConnector):
            return self._listener(heard, source, folder, weights)
        connector = _of(TranscriptWords, source, "audio")
        transcriber = connector.transcriber
        assert isinstance(transcriber, WhisperTranscriber), "a model is exported from torch"
        writer = SoundGraphs(transcriber, weights, self.linears, self.quantization.media)
        files = {role: f"{role.replace('-', '_')}.onnx" for role in SOUND_ROLES}
        models = (writer.spectrum(), writer.encoder(), writer.decoder())
        for name, model in zip(files.values(), models, strict=True):
            onnx.save(model, folder / name)
        transcriber.tokenizer.save(folder / SOUNDS)
        tokens = transcriber.tokens
        config = transcriber.decoder.config
        sizes = {"window": transcriber.encoder.config.window_frames}
        sizes |= {"positions": config.positions, "vocabulary": config.vocabulary_size}
        suppressed = {"suppress_tokens": tokens.suppressed, "begin_suppress_tokens": tokens.suppressed_first}
        details = "media/audio.json"
        _write_json(folder / details, sizes | suppressed)
        return files, MediaEntry(connector.placeholder, details, 0, self.length, dict(source.limits["audio"]))

    def _listener(self, connector: SoundConnector, source: MediaSource, folder: Path, weights: WeightFile) -> _Part:
        """A tower that hears and its projector, and what computes spectrograms for it."""
        import onnx

        files = {role: f"{role.replace('-', '_')}.onnx" for role in SOUND_ROLES[:2]}
        network, plan, storage = connector.encoder.network, connector.plan, self.quantization.media
        hears = listener_graph(network, connector.projector, plan.group, weights, self.linears, storage)
        models = spectrum_graph(network.config.mel_bins, weights), hears
        for name, model in zip(files.values(), models, strict=True):
            onnx.save(model, folder / name)
        details = "media/audio.json"
        told = {"mark": connector.mark, "around": connector.around, "plan": asdict(plan)}
        told |= {"stand_in": connector.stand_in} if isinstance(connector, HasStandIn) else {}
        _write_json(folder / details, told)
        return files, MediaEntry(connector.placeholder, details, 1, self.length, dict(source.limits["audio"]))

    def clips(self, source: MediaSource, folder: Path, weights: WeightFile) -> _Part:
        """What watches; frames are read, and sound tracks heard, with what reads pictures and sounds."""
        import onnx

        name, details = f"{CLIP}.onnx", "media/video.json"
        connector, limits = source.model.connector("video"), dict(source.limits["video"])
        if not isinstance(connector, ClipWords):
            told, least = frame_details(connector, source.model.connector("image"))
            _write_json(folder / details, told)
            return {}, MediaEntry(connector.placeholder, details, least, self.length, limits)
        onnx.save(clip_graph(_clip_heads(source), weights, self.quantization.media), folder / name)
        self._write_words(folder / details, {"event": EVENTS, "count": COUNTS})
        return {CLIP: name}, MediaEntry(connector.placeholder, details, 1, self.length, limits)

    def _write_words(self, path: Path, lists: Mapping[str, Sequence[str]]) -> dict[str, list[list[int]]]:
        """Writes words as the decoder spells them, and gives them."""
        spelled = {key: [self._spelled(" " + word) for word in words] for key, words in lists.items()}
        _write_json(path, {"lists": spelled, "comma": self._spelled(",")})
        return spelled

    def _spelled(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special=False, parse_special=False))


_Part = tuple[dict[str, str], MediaEntry]
_WRITERS: dict[Modality, Callable[[MediaWriter, MediaSource, Path, WeightFile], _Part]] = {
    "image": MediaWriter.pictures,
    "audio": MediaWriter.sounds,
    "video": MediaWriter.clips,
}
_Kind = TypeVar("_Kind")


def _of(kind: type[_Kind], source: MediaSource, modality: Modality) -> _Kind:
    connector = source.model.connector(modality)
    if not isinstance(connector, kind):
        given, expected = type(connector).__name__, kind.__name__
        raise UnsupportedInputError(f"What reads {modality} is not exported.", given=given, expected=expected)
    return connector


def _clip_heads(source: MediaSource) -> ClipHeads:
    reader = _of(ClipWords, source, "video").reader
    assert isinstance(reader, TorchClipReader), "a model is exported from torch"
    return reader.heads


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")


def interface(path: Path) -> dict[str, dict[str, str]]:
    """``inputs`` and ``outputs`` of a graph, each as its type and shape by name: ``uint8 [height, width, 3]``, or
    ``float32 [...]`` where no shape is said."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return {"inputs": _described(graph.input), "outputs": _described(graph.output)}


def _described(values: Sequence[Any]) -> dict[str, str]:
    from onnx import helper

    described = {}
    for value in values:
        kind = value.type.tensor_type
        sides = [side.dim_param or str(side.dim_value) for side in kind.shape.dim]
        shape = ", ".join(sides if kind.HasField("shape") else ["..."])
        described[value.name] = f"{helper.tensor_dtype_to_np_dtype(kind.elem_type)} [{shape}]"
    return described
