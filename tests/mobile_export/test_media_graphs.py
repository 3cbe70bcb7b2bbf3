"""Graphs that read raw media, beside the torch modules that they repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from sensorium.encoders.errors import UnsupportedInputError
from sensorium.encoders.image.resample import resize
from sensorium.encoders.media import AudioData
from sensorium.mobile_export.decoder_runner import open_session
from sensorium.mobile_export.graphs import Graph, SoundGraphs, WeightFile
from sensorium.mobile_export.graphs.genai import write_placed, write_run_ends
from sensorium.mobile_export.graphs.linear import LinearWriter
from sensorium.mobile_export.graphs.resize import resize_graph, write_resize
from sensorium.mobile_export.media.sounds import ExportedTranscriber, SoundSessions, log_power
from sensorium.mobile_export.quantization import BlockFormat

from .small_media import small_transcriber

HEIGHT, WIDTH = 61, 47
SIZES = [(1, 1), (1, 700), (900, 2), (61, 47), (61, 48), (60, 46), (7, 5), (333, 517), (122, 94), (1201, 803)]


@pytest.fixture(scope="module")
def resizing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("resize")
    with WeightFile(folder / "weights.data") as weights:
        graph = Graph("resize", weights)
        pixels = graph.input("pixels", np.uint8, ("height", "width", 3))
        graph.output(write_resize(graph, pixels, HEIGHT, WIDTH, "bicubic"), "out", np.uint8, (3, HEIGHT, WIDTH))
        onnx.save(graph.model(), folder / "resize.onnx")
        with pytest.raises(UnsupportedInputError, match="nearest"):
            write_resize(graph, pixels, HEIGHT, WIDTH, "nearest")
    return open_session(folder / "resize.onnx")


def picture_of(kind: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    return noise if kind == "noise" else (noise // 128 * 255).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["noise", "edges"])
def test_every_resized_pixel_is_torch_s(kind: str, size: tuple[int, int], resizing: Any) -> None:
    pixels = picture_of(kind, size)
    (found,) = resizing.run(None, {"pixels": pixels})
    expected = resize(torch.from_numpy(pixels).permute(2, 0, 1), HEIGHT, WIDTH, "bicubic")
    assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_so_it_is_at_every_new_size(resample: Any, tmp_path: Path) -> None:
    with WeightFile(tmp_path / "weights.data") as weights:
        onnx.save(resize_graph(weights, resample), tmp_path / "resize.onnx")
    session = open_session(tmp_path / "resize.onnx")
    for size in SIZES:
        for new in ((61, 47), (1, 1), (7, 300), (512, 230)):
            pixels = picture_of("noise" if sum(new) % 2 else "edges", size)
            (found,) = session.run(None, {"pixels": pixels, "size": np.array(new, np.int64)})
            expected = resize(torch.from_numpy(pixels).permute(2, 0, 1), *new, resample)
            assert np.array_equal(found, expected.permute(1, 2, 0).numpy()), (size, new)


def exported(folder: Path, storage: Any) -> ExportedTranscriber:
    original = small_transcriber()
    with WeightFile(folder / "weights.data") as weights:
        writer = SoundGraphs(original, weights, LinearWriter(), storage)
        for name in ("spectrum", "encoder", "decoder"):
            onnx.save(getattr(writer, name)(), folder / f"{name}.onnx")
    sessions = SoundSessions(*(open_session(folder / f"{name}.onnx") for name in ("spectrum", "encoder", "decoder")))
    return ExportedTranscriber(sessions, original.tokenizer, original.tokens, window=152, positions=23)


@pytest.mark.parametrize("seconds", [0.01, 1.0, 45.0])
def test_a_spectrogram_is_the_torch_engine_s(seconds: float, tmp_path: Path) -> None:
    """45 seconds are computed in two parts."""
    samples = np.random.default_rng(3).standard_normal(int(seconds * 16_000)).astype(np.float32) * 0.2
    frames = -(-len(samples) // 160) + 152
    found = log_power(exported(tmp_path, "float32")._sessions.spectrum, samples, frames)
    expected = small_transcriber().encoder.mel(AudioData(samples), frames).numpy()
    assert np.abs((np.maximum(found, found.max() - 8) + 4) / 4 - expected).max() <= 1e-4


@pytest.mark.parametrize(("storage", "bound"), [("float32", 1e-5), ("float16", 5e-3), (BlockFormat(8, 32), 0.05)])
def test_what_is_heard_is_the_torch_engine_s(storage: Any, bound: float, tmp_path: Path) -> None:
    sound = AudioData(np.random.default_rng(5).standard_normal(20_000).astype(np.float32) * 0.3)
    logits = []
    for transcriber in (small_transcriber(), exported(tmp_path, storage)):
        read = transcriber.listen(sound, 152)(0)()
        logits.append(np.stack([read([21, 24]), read([3]), read([17])]))
    assert np.abs(logits[1] - logits[0]).max() <= bound * np.abs(logits[0]).max()


def test_places_of_a_picture_end_where_other_tokens_begin(tmp_path: Path) -> None:
    """``7 P P P 9 P P 4`` behind nothing, and ``P 3 4 P P P P P`` behind five positions, as the docstring draws it."""
    with WeightFile(tmp_path / "weights.data") as weights:
        graph = Graph("ends", weights)
        tokens = graph.input("input_ids", np.int64, ("rows", "new"))
        lengths = graph.input("lengths", np.int64, ("rows",))
        graph.output(write_run_ends(graph, tokens, 1, lengths), "ends", np.int64, ("rows", "new"))
        onnx.save(graph.model(), tmp_path / "ends.onnx")
    session = open_session(tmp_path / "ends.onnx")
    rows = np.array([[7, 1, 1, 1, 9, 1, 1, 4], [1, 3, 4, 1, 1, 1, 1, 1]])
    (found,) = session.run(None, {"input_ids": rows, "lengths": np.array([8, 13])})
    assert found.tolist() == [[0, 4, 4, 4, 0, 7, 7, 0], [6, 0, 0, 13, 13, 13, 13, 13]]
    (found,) = session.run(None, {"input_ids": np.array([[5]]), "lengths": np.array([3])})
    assert found.tolist() == [[0]]


def test_embeddings_of_pictures_stand_at_their_places(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "weights.data") as weights:
        graph = Graph("placed", weights)
        tokens = graph.input("input_ids", np.int64, ("rows", "new"))
        embedded = graph.input("embedded", np.float32, ("rows", "new", 3))
        graph.output(write_placed(graph, tokens, embedded, 1), "placed", np.float32, ("rows", "new", 3))
        onnx.save(graph.model(), tmp_path / "placed.onnx")
    session = open_session(tmp_path / "placed.onnx")
    tokens, words = np.array([[7, 1, 1, 9, 1, 1, 4]]), np.arange(21, dtype=np.float32).reshape(1, 7, 3)
    features = -1 - np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    expected = words.copy()
    expected[0, [1, 2, 4, 5]] = features.reshape(4, 3)
    given = {"input_ids": tokens, "embedded": words, "image_features": features}
    assert np.array_equal(session.run(None, given)[0], expected)
    # With fewer of them the other places are tokens as any others.
    expected[0, [4, 5]] = words[0, [4, 5]]
    assert np.array_equal(session.run(None, given | {"image_features": features[:1]})[0], expected)
    assert np.array_equal(session.run(None, given | {"image_features": features[0, :0]})[0], words)
