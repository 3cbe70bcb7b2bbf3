"""onnxruntime-genai opens our bundles as they are, and generates the same tokens."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from safetensors.torch import save_file
from sensorium import sdk
from sensorium.encoders.image.config import PreprocessConfig
from sensorium.fusion.multimodal.pan_and_scan import PanAndScan, PieceLayout
from sensorium.fusion.plan import TextSpan
from sensorium.mobile_export import export_media
from sensorium.mobile_export.bundle import read_manifest
from sensorium.mobile_export.genai import has_pipeline
from sensorium.mobile_export.media.parts import PictureParts, PiecedPicture, WholePicture
from sensorium.mobile_export.proof import greedy, reader
from sensorium.mobile_export.runtime import Bundle
from sensorium.sdk.ready import ready_bundle
from skimage import data

from .small_towers import small_gemma3, small_llava
from .test_tower_bundles import photos

QUESTIONS = (
    "What is the capital of France?",
    "Count from 1 to 10.",
    "Write a short poem about the sea.",
    "Name three animals.",
    "Why is the sky blue?",
    "Translate 'good morning' into French.",
    "What is 2 + 2?",
    "List the days of the week.",
    "Who was Marie Curie?",
    "Tell me a joke about cats, please, and explain it.",
)
COUNT = 16


def generated(model: genai.Model, prompt: list[int]) -> list[int]:
    """The tokens that onnxruntime-genai takes after a prompt, each the likeliest."""
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=len(prompt) + COUNT, do_sample=False)
    generator = genai.Generator(model, options)
    generator.append_tokens(prompt)
    found: list[int] = []
    while not generator.is_done() and len(found) < COUNT:
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    return found


def assert_same(folder: Path) -> None:
    bundle, model = Bundle(folder), genai.Model(str(folder))
    tokenizer = bundle.tokenizer()
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        prompt = list(tokenizer.encode_chat(messages) if tokenizer.has_chat_template else tokenizer.encode(question))
        ours = greedy(reader(bundle.decoder()), prompt, COUNT, tokenizer.stop_ids)
        theirs = generated(model, prompt)
        assert theirs[: len(ours)] == ours  # they give out the end's token, too
        assert len(theirs) <= len(ours) + 1 and set(theirs[len(ours) :]) <= tokenizer.stop_ids


@pytest.mark.parametrize("quant", ["fp32", "int8", "int4", "int4-fast", "int4-fp32"])
def test_a_small_model_generates_the_same(quant: str, checkpoint: Path, tmp_path: Path) -> None:
    sdk.export(checkpoint, tmp_path / "out", quant=quant)
    assert_same(tmp_path / "out")


def test_a_bundle_with_mixed_blocks_generates_the_same(bundle: Path) -> None:
    assert_same(bundle)


@pytest.mark.slow
def test_the_default_model_generates_the_same() -> None:
    """In the bundle that it runs as: ours and theirs are the checkpoint's tokens (tests/sdk/test_ready.py)."""
    folder = ready_bundle("nano")
    assert_same(folder)
    theirs = genai.Tokenizer(genai.Model(str(folder))).encode(QUESTIONS[0])
    assert list(theirs) == list(sdk.load("nano").tokenizer.encode(QUESTIONS[0]))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of Gemma 3 with as many places of a picture as its makers gave it, 256."""
    folder = tmp_path_factory.mktemp("gemma3")
    checkpoint = small_gemma3(folder / "checkpoint", side=160, slots=256, tied=False)
    sdk.export(checkpoint, folder / "out", quant="fp32", figures=False)
    return folder / "out"


def saved(photo: NDArray[np.uint8], path: Path) -> Path:
    PILImage.fromarray(photo).save(path)
    return path


def framed(text: str) -> str:
    """A question as the chat template of this checkpoint writes it."""
    return f"<s><|im_start|>User: {text}<end_of_utterance>\nAssistant:"


def begun(model: genai.Model, inputs: genai.NamedTensors) -> genai.Generator:
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=1000, do_sample=False)
    generator = genai.Generator(model, options)
    generator.set_inputs(inputs)
    return generator


def next_tokens(generator: genai.Generator) -> list[int]:
    """Nine, each the likeliest."""
    found = []
    for _ in range(9):
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    return found


def answered(model: genai.Model, inputs: genai.NamedTensors) -> tuple[list[int], NDArray[np.float32]]:
    """Tokens, and the logits of the first."""
    generator = begun(model, inputs)
    logits = generator.get_logits()[0, -1].copy()
    return next_tokens(generator), logits


def assert_sees_the_same(folder: Path, text: str, paths: list[Path], *, most: int) -> tuple[int, ...]:
    """Prompt, tokens and logits are ours, and no pixel is further from ours than `most`. Gives the tokens."""
    model, ours = genai.Model(str(folder)), sdk.load(folder)
    images = genai.Images.open(*map(str, paths))
    inputs = model.create_multimodal_processor()(framed(text), images=images)
    pictures = [sdk.Image(path) for path in paths]
    parts = [part for pair in zip_longest(text.split("<start_of_image>"), pictures) for part in pair if part]
    plan = ours.encode(*parts)
    assert inputs["input_ids"].as_numpy()[0].tolist() == list(plan.tokens)
    found, expected = list(ours.ask(*parts, max_new_tokens=9).tokens), ours.logits(plan)[-1]

    tokens, logits = answered(model, inputs)
    assert tokens == found
    assert np.abs(logits - expected).max() <= 1e-3 * np.abs(expected).max()
    tower = ours.engine.media.connector("image")  # type: ignore[attr-defined]
    resized = [tower._reader._resized(picture.data.pixels.transpose(2, 0, 1), 160, 160) for picture in pictures]
    pixels = np.stack(resized).transpose(0, 2, 3, 1).astype(np.float32)
    assert np.abs(inputs["pixel_values"].as_numpy() - pixels).max() <= most
    # With our own pixels nothing but the order of sums is left.
    inputs["pixel_values"] = np.ascontiguousarray(pixels)
    tokens, logits = answered(model, inputs)
    assert tokens == found
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    return tuple(found)


def test_its_pipeline_sees_pictures_as_our_loop_does(seeing: Path, tmp_path: Path) -> None:
    shown = [data.coffee(), data.chelsea(), data.chelsea()[:180, 40:100], *photos()[2:4]]
    asked = "What is this?<start_of_image>"
    answers = {
        assert_sees_the_same(seeing, asked, [saved(photo, tmp_path / f"{number}.png")], most=1)
        for number, photo in enumerate(shown)
    }
    assert len(answers) > 1  # they depend on the picture
    # It decodes JPEG files otherwise.
    assert_sees_the_same(seeing, asked, [saved(data.astronaut(), tmp_path / "photo.jpg")], most=8)


def test_its_pipeline_sees_several_pictures_and_none(seeing: Path, tmp_path: Path) -> None:
    paths = [saved(photo, tmp_path / f"{number}.png") for number, photo in enumerate(photos()[:2])]
    asked = "One<start_of_image>and<start_of_image>What is in them?"
    assert_sees_the_same(seeing, asked, paths, most=2)
    processor = (model := genai.Model(str(seeing))).create_multimodal_processor()
    with pytest.raises(RuntimeError, match="Prompt contained 2 image tokens but received 1 images"):
        processor(framed(asked), images=genai.Images.open(str(paths[0])))
    tokens, _ = answered(model, processor(framed("What is a cat?")))
    assert tokens == list(sdk.load(seeing).ask("What is a cat?", max_new_tokens=9).tokens)
    assert_same(seeing)


def test_its_pipeline_goes_on_after_an_answer(seeing: Path, tmp_path: Path) -> None:
    """It has not read the token that it generated last, so that token is taken back and appended with the new ones."""
    model, ours = genai.Model(str(seeing)), sdk.load(seeing)
    path = saved(photos()[3][:32, :32].repeat(5, 0).repeat(5, 1), tmp_path / "photo.png")  # of the tower's size
    images = genai.Images.open(str(path))
    inputs = model.create_multimodal_processor()(framed("<start_of_image>What is this?"), images=images)
    generator = begun(model, inputs)
    answer, more = next_tokens(generator), ours.tokenizer.encode("And now?", add_special=False)
    generator.rewind_to(generator.token_count() - 1)
    generator.append_tokens([answer[-1], *more])
    plan = ours.encode(sdk.Image(path), "What is this?")
    expected = ours.logits(replace(plan, spans=(*plan.spans, TextSpan((*answer, *more)))))[-1]
    assert np.abs(generator.get_logits()[0, -1] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_its_pipeline_runs_weights_of_fewer_bits(tmp_path: Path) -> None:
    checkpoint = small_gemma3(tmp_path / "checkpoint", side=160, slots=256, tied=False)
    sdk.export(checkpoint, tmp_path / "out", quant="int4-fp32", figures=False)
    photo = saved(data.chelsea(), tmp_path / "photo.png")
    assert_sees_the_same(tmp_path / "out", "<start_of_image>What is this?", [photo], most=1)


def test_its_pipeline_stores_no_weights(seeing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_media, "has_pipeline", lambda parts: False)
    sdk.export(seeing.parent / "checkpoint", tmp_path / "out", quant="fp32", figures=False)
    assert (tmp_path / "out" / "model.onnx_data").read_bytes() == (seeing / "model.onnx_data").read_bytes()
    added = read_manifest(seeing).files.keys() - read_manifest(tmp_path / "out").files.keys()
    assert added == {"genai_image.onnx", "genai_embedding.onnx", "genai_decoder.onnx", "genai_processor.json"}
    assert sum((seeing / name).stat().st_size for name in added) < 100_000
    assert sdk.verify(seeing).passed
    graphs = read_manifest(seeing).interfaces
    assert graphs["genai-image"]["inputs"] == {"pixel_values": "float32 [pictures, 160, 160, 3]"}
    assert graphs["genai-image"]["outputs"] == {"image_features": "float32 [pictures, 256, 30]"}
    assert graphs["genai-embedding"]["inputs"]["image_features"] == "float32 [...]"
    assert_opens_texts_alone(tmp_path / "out")


def assert_opens_texts_alone(folder: Path) -> None:
    model = genai.Model(str(folder))
    with pytest.raises(RuntimeError, match="llama is not a registered multi-modal model type"):
        model.create_multimodal_processor()
    assert_same(folder)


def test_other_towers_open_as_models_of_texts(tmp_path: Path) -> None:
    sdk.export(small_llava(tmp_path / "checkpoint", "clip"), tmp_path / "out", quant="fp32", figures=False)
    assert_opens_texts_alone(tmp_path / "out")


def test_beside_an_adapter_it_opens_as_a_model_of_texts(seeing: Path, tmp_path: Path) -> None:
    """For its pipeline would leave the adapter out, without a word."""
    beside, layer = tmp_path / "pirate", "base_model.model.language_model.model.layers.0.self_attn.q_proj"
    beside.mkdir()
    (beside / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}', encoding="utf-8")
    parts = {f"{layer}.lora_A.weight": torch.ones(2, 30), f"{layer}.lora_B.weight": torch.ones(60, 2)}
    save_file(parts, beside / "adapter_model.safetensors")
    checkpoint = seeing.parent / "checkpoint"
    sdk.export(checkpoint, tmp_path / "out", quant="fp32", adapters_beside=[beside], figures=False)
    assert read_manifest(tmp_path / "out").adapters.keys() == {"pirate"}
    assert_opens_texts_alone(tmp_path / "out")


def steps(**fields: Any) -> PreprocessConfig:
    return PreprocessConfig(**{"height": 896, "width": 896, "resample": "bilinear"} | fields)


def pieces(slots: int = 256, begin: str = "<start_of_image>", cut: bool = False, **fields: Any) -> PiecedPicture:
    tokens = ("<image_soft_token>", begin, "<end_of_image>")
    whole = WholePicture(steps(**fields), slots, tokens[0])
    return PiecedPicture(whole, PieceLayout(PanAndScan() if cut else None, slots, tokens))


@pytest.mark.parametrize(
    "parts",
    [
        pieces(slots=64),
        pieces(begin="<image>"),
        pieces(cut=True),
        pieces(crop=(896, 896)),
        pieces(square=(0, 0, 0)),
        pieces(height=None, width=None, crop=(896, 896)),
        WholePicture(steps(), 256, "<image_soft_token>"),
    ],
)
def test_what_its_pipeline_would_read_otherwise_is_not_given_to_it(parts: PictureParts) -> None:
    assert has_pipeline(pieces())
    assert not has_pipeline(parts)
