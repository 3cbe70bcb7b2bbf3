"""Gemma 3 against `transformers`: pixels, prompts, the mask within pictures, logits and answers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sensorium import sdk
from sensorium.fusion.multimodal.pan_and_scan import PanAndScan, read_pan_and_scan
from tokenizers import AddedToken

Photos = Mapping[str, NDArray[np.uint8]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]
# As the published checkpoints write it, but for its complaints.
TEMPLATE = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}"
    "{%- set first = messages[0]['content'] + '\n\n' -%}{%- else -%}"
    "{%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}{%- set rest = messages[1:] -%}"
    "{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}{%- for message in rest -%}"
    "{%- if message['role'] == 'assistant' -%}{%- set role = 'model' -%}{%- else -%}{%- set role = message['role'] -%}"
    "{%- endif -%}{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}"
    "{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}"
)
ROLES = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
STEPS = {"size": {"height": 35, "width": 35}}
PIECES = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 30, "pan_and_scan_max_num_crops": 3}
# Fields of the decoder, the tower, the whole and the processor of images.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "narrow": ({"sliding_window": 5}, {}, {}, {}),
    "wide": ({"sliding_window": 40}, {"vision_use_head": False}, {}, {}),
    "full": ({"layer_types": ["full_attention"] * 3}, {}, {"mm_tokens_per_image": 1}, {"resample": 3}),
    "pieces": ({"sliding_window": 7}, {}, {"mm_tokens_per_image": 4}, PIECES),
}


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, tower: dict[str, Any], text: dict[str, Any]) -> Build:
    """A random Gemma 3 of a case."""

    def make(case: str) -> Any:
        decoder, vision, fields, steps = CASES[case]
        named = [*ROLES.values(), "<start_of_turn>", "<end_of_turn>"]
        words = tiny_tokenizer(
            *[AddedToken(name, special=True, normalized=False) for name in named], template=TEMPLATE, roles=ROLES
        )
        sizes = text | {"layer_types": LAYERS, "query_pre_attn_scalar": 13} | decoder
        numbers = {f"{name}_index": words.convert_tokens_to_ids(token) for name, token in ROLES.items()}
        fields = {"mm_tokens_per_image": 9} | fields
        config = transformers.Gemma3Config(
            vision_config=transformers.SiglipVisionConfig(**tower | vision),
            text_config=transformers.Gemma3TextConfig(**sizes),
            image_token_index=numbers.pop("image_token_index"),
            boi_token_index=numbers.pop("boi_token_index"),
            eoi_token_index=numbers.pop("eoi_token_index"),
            **fields,
        )
        images = transformers.Gemma3ImageProcessor(**STEPS | steps)
        count = fields["mm_tokens_per_image"]
        processor = transformers.Gemma3Processor(images, words, TEMPLATE, image_seq_length=count)
        # What is asked of the images' processor is else overruled by what the whole takes for granted.
        processor.images_kwargs = {**processor.images_kwargs, **{name: steps[name] for name in PIECES if name in steps}}
        return transformers.Gemma3ForConditionalGeneration(config), processor

    return lambda case: made(f"gemma3-{case}", lambda: make(case))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", photos["tall"], "and", photos["odd"], "What is in them?"))


@pytest.mark.parametrize("name", ["coffee", "tall", "tiny", "rocket", "astronaut", "odd"])
@pytest.mark.parametrize("case", ["narrow", "full", "pieces"])
def test_pixels_and_places_equal_the_processor_s(
    case: str, name: str, build: Build, photos: Photos, asking: Asking
) -> None:
    reference = build(case)
    inputs = reference.inputs(asking(photos[name], "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Image(photos[name]), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    connector = ours.engine.media.connector("image")  # type: ignore[attr-defined]
    assert torch.equal(connector.pixels(plan.items[0].media), inputs["pixel_values"])
    spans = ours.engine.media.bidirectional(plan)  # type: ignore[attr-defined]
    marked = torch.zeros(len(plan), dtype=torch.int64)
    for first, last in spans:
        marked[first:last] = 1
    assert len(spans) == len(inputs["pixel_values"]) and torch.equal(marked, inputs["token_type_ids"][0])


def test_several_turns_and_a_system_message(
    build: Build, photos: Photos, equals_reference: Any, asking: Asking
) -> None:
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *asking(photos["tiny"], photos["odd"], "What is this?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
        *asking("And this?", photos["rocket"]),
    ]
    equals_reference(build("narrow"), turns)


# The engine


def prompts_of(photos: Photos, our_parts: Any, asking: Asking) -> list[Any]:
    return [
        our_parts(asking(photos["chelsea"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        our_parts(asking(photos["odd"], "One", photos["tall"], "two")),
    ]


def test_a_batch_of_different_media_equals_one_by_one(
    build: Build, photos: Photos, our_parts: Any, asking: Asking
) -> None:
    ours, prompts = sdk.load(build("narrow").folder, dtype="float32"), prompts_of(photos, our_parts, asking)
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    plans = [ours.encode(prompt) for prompt in prompts]
    state, _ = ours.engine.prefill(plans)
    together = ours.engine.step(state, [5, 6, 7])
    for plan, token, row in zip(plans, (5, 6, 7), together, strict=True):
        state, _ = ours.engine.prefill([plan])
        np.testing.assert_allclose(row, ours.engine.step(state, [token])[0], rtol=0, atol=1e-5 * np.abs(row).max())


@pytest.mark.parametrize("size", [1, 4, 9, 13, 30])
@pytest.mark.parametrize("case", ["narrow", "wide", "full"])
def test_a_prompt_in_chunks_equals_the_whole(
    case: str, size: int, build: Build, photos: Photos, our_parts: Any, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture is read in part, however small a chunk is."""
    from sensorium.sdk import torch_engine

    ours = sdk.load(build(case).folder, dtype=torch.float64, device="cpu")
    plan = ours.encode(prompts_of(photos, our_parts, asking)[2])
    expected = ours.logits(plan)[-1]
    monkeypatch.setattr(torch_engine, "_PREFILL_CHUNK", size)
    _, found = ours.engine.prefill([plan])
    assert np.abs(found[0] - expected).max() <= 1e-6 * np.abs(expected).max()  # both were rounded to float32


def test_a_state_keeps_no_part_of_a_picture(build: Build, photos: Photos) -> None:
    ours = sdk.load(build("wide").folder, dtype="float32")
    plan = ours.encode("What?", sdk.Image(photos["tiny"]))
    ((first, last),) = ours.engine.media.bidirectional(plan)  # type: ignore[attr-defined]
    state, _ = ours.engine.prefill([plan])
    for place in (first + 1, last - 1):
        with pytest.raises(sdk.InvalidInputError, match=f"a cut at {place}"):
            state.truncate([place])
    assert state.lengths == (len(plan),)
    state.truncate([last])
    state.truncate([first])
    assert state.lengths == (first,)


def test_a_prefix_ends_before_a_picture_or_behind_it(
    build: Build, photos: Photos, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build("wide").folder, dtype=torch.float64, device="cpu")
    first = ours.encode(our_parts(asking("Look", photos["tiny"], "at it.")))
    ((begin, end),) = ours.engine.media.bidirectional(first)  # type: ignore[attr-defined]
    for texts, kept, expected in (
        (("Look", photos["tiny"], "again."), end + 3, range(end, end + 4)),
        (("Look", photos["odd"], "at it."), begin, range(begin, begin + 1)),
        (("Look", photos["tiny"], "at it."), begin + 3, range(begin, begin + 1)),
    ):
        plan = ours.encode(our_parts(asking(*texts)))
        state, _ = ours.engine.prefill([first])
        _, logits, reused = ours.engine.resume(state, plan, kept)  # type: ignore[attr-defined]
        assert reused in expected
        whole = ours.logits(plan)[-1]
        assert np.abs(logits[0] - whole).max() <= 1e-6 * np.abs(whole).max()


@pytest.mark.parametrize("span", [(5, 8), (6, 9), (2, 12)])
def test_a_decoder_reads_no_part_of_a_span(span: tuple[int, int], build: Build) -> None:
    decoder = sdk.load(build("wide").folder).engine.decoder  # type: ignore[attr-defined]
    tokens, cache = torch.arange(5, 12)[None], decoder.new_cache()
    decoder(tokens, cache=cache, bidirectional=[(2, 5), (9, 12)])
    with pytest.raises(sdk.InvalidInputError, match="in one pass"):
        decoder(tokens[:, :3], cache=cache, bidirectional=[span])
    with pytest.raises(sdk.InvalidInputError, match="in one pass"):
        decoder(tokens, bidirectional=[span])
    assert cache.lengths == [7]


def test_spans_change_what_is_before_their_end_alone(build: Build) -> None:
    decoder = sdk.load(build("full").folder, dtype=torch.float64, device="cpu").engine.decoder  # type: ignore[attr-defined]
    tokens = torch.arange(5, 18)[None]
    with torch.no_grad():
        usual, spanned = decoder(tokens), decoder(tokens, bidirectional=[(3, 7)])
        one = decoder(tokens, bidirectional=[(3, 4)])
    assert torch.equal(usual[:, :3], spanned[:, :3]) and torch.equal(usual, one)
    assert bool((usual[0, 3:] != spanned[0, 3:]).any(-1).all())


# Pieces


@pytest.mark.parametrize(("smallest", "most", "ratio"), [(256, 4, 1.2), (30, 3, 1.0), (7, 7, 1.9), (16, 1, 1.5)])
def test_pieces_are_those_of_the_reference(smallest: int, most: int, ratio: float) -> None:
    numbers = random.Random(4)
    sizes = [(1, 1), (1, 5000), (5000, 1), (300, 3000), (3000, 300), (256, 512), (512, 256)]
    sizes += [(numbers.randint(1, 1500), numbers.randint(1, 1500)) for _ in range(400)]
    reference = transformers.Gemma3ImageProcessor()
    for height, width in sizes:
        image = torch.arange(height)[:, None] * width + torch.arange(width)
        theirs = reference.pan_and_scan_batched(image, smallest, most, ratio)
        ours = [image[piece] for piece in PanAndScan(smallest, most, ratio).pieces(height, width)]
        assert len(ours) == len(theirs)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_the_picture_in_the_docstring() -> None:
    pieces = PanAndScan(3, 3, 1.0).pieces(3, 11)
    assert pieces == [(slice(0, 3), slice(0, 4)), (slice(0, 3), slice(4, 8)), (slice(0, 3), slice(8, 11))]


def test_pieces_are_cut_only_if_asked_for() -> None:
    assert read_pan_and_scan({"do_pan_and_scan": None, "pan_and_scan_max_num_crops": "x"}) is None
    assert read_pan_and_scan({"do_pan_and_scan": True, "pan_and_scan_min_crop_size": None}) == PanAndScan(256, 4, 1.2)
    assert read_pan_and_scan(PIECES | {"pan_and_scan_min_ratio_to_activate": 2}) == PanAndScan(30, 3, 2.0)


# Spellings, and what must be refused


def changed(folder: Path, target: Path, fields: Mapping[str, Any], steps: Mapping[str, Any]) -> Path:
    """A copy of a directory with other fields."""
    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text()) | fields
    (target / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    images = processor["image_processor"] | steps.get("image", {})
    processor |= {"image_processor": images} | steps.get("processor", {})
    (target / "processor_config.json").write_text(json.dumps(processor))
    return target


def test_files_of_transformers_4_load(build: Build, tmp_path: Path, photos: Photos) -> None:
    """Configurations name only what differs from their defaults, and the processor of images has a file of its own."""
    folder = build("narrow").folder
    older = Path(shutil.copytree(folder, tmp_path / "4"))
    raw = json.loads((older / "config.json").read_text())
    for part, usual in (
        ("text_config", transformers.Gemma3TextConfig()),
        ("vision_config", transformers.SiglipVisionConfig()),
    ):
        known = usual.to_dict()
        kept = {name: value for name, value in raw[part].items() if value != known.get(name)}
        assert len(kept) < len(raw[part])
        raw[part] = {name: value for name, value in kept.items() if name != "model_type"}
    (older / "config.json").write_text(json.dumps(raw))
    processor = json.loads((older / "processor_config.json").read_text())
    (older / "preprocessor_config.json").write_text(json.dumps(processor.pop("image_processor")))
    (older / "processor_config.json").write_text(json.dumps(processor))
    tensors = load_file(older / "model.safetensors")
    newer = {
        name.replace("language_model.model.", "model.language_model.")
        .replace("vision_tower.", "model.vision_tower.vision_model.")
        .replace("multi_modal_projector.", "model.multi_modal_projector."): tensor
        for name, tensor in tensors.items()
    }
    assert not set(newer) & set(tensors)
    save_file(newer, older / "model.safetensors")
    question = ("What?", sdk.Image(photos["tall"]))
    new, old = sdk.load(folder), sdk.load(older)
    assert np.array_equal(old.logits(old.encode(*question)), new.logits(new.encode(*question)))


def test_without_files_of_processors_the_usual_steps_are_taken(build: Build, tmp_path: Path, photos: Photos) -> None:
    folder = Path(shutil.copytree(build("narrow").folder, tmp_path / "x"))
    (folder / "processor_config.json").unlink()
    pixels = transformers.Gemma3ImageProcessor(**STEPS)(photos["chelsea"], return_tensors="pt")["pixel_values"]
    connector = sdk.load(folder).engine.media.connector("image")  # type: ignore[attr-defined]
    assert torch.equal(connector.pixels(sdk.Image(photos["chelsea"]).data), pixels)


DAMAGES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "no-square": ({"mm_tokens_per_image": 8}, {}, ("mm_tokens_per_image", "8 embeddings of 7 x 7")),
    "too-many": ({"mm_tokens_per_image": 64}, {}, ("mm_tokens_per_image", "64 embeddings of 7 x 7")),
    "no-equal-squares": ({"mm_tokens_per_image": 25}, {}, ("mm_tokens_per_image", "25 embeddings of 7 x 7")),
    "no-count": ({"mm_tokens_per_image": "9"}, {}, ("mm_tokens_per_image", "9")),
    "slots": ({}, {"processor": {"image_seq_length": 256}}, ("image_seq_length", "256", "9")),
    "size": ({}, {"image": {"size": {"height": 35, "width": 30}}}, ("(35, 30)", "35 x 35")),
    "unresized": ({}, {"image": {"do_resize": False}}, ("35 x 35",)),
    "pieces": ({}, {"image": {"do_pan_and_scan": True, "pan_and_scan_max_num_crops": 0}}, ("pan_and_scan", "0")),
    "many-pieces": ({}, {"image": PIECES | {"pan_and_scan_max_num_crops": 31}}, ("pan_and_scan", "31")),
    "ratio": ({}, {"image": PIECES | {"pan_and_scan_min_ratio_to_activate": 0.5}}, ("pan_and_scan", "0.5")),
    "no-tower": ({"vision_config": None}, {}, ("vision_config",)),
    "no-such-token": ({"image_token_index": 9999}, {}, ("image_token_index", "9999")),
    "no-beginning": ({"boi_token_index": 9999}, {}, ("boi_token_index", "9999")),
    "no-end": ({"eoi_token_index": -1}, {}, ("eoi_token_index", "-1")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_contradictions_are_refused(damage: str, build: Build, tmp_path: Path) -> None:
    fields, steps, parts = DAMAGES[damage]
    folder = changed(build("narrow").folder, tmp_path / damage, fields, steps)
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_description_and_saving(build: Build, tmp_path: Path) -> None:
    reference = build("wide")
    info = sdk.describe(reference.folder)
    assert info.parameters == sum(parameter.numel() for parameter in reference.model.parameters())
    assert info.modalities == ("text", "image") and info.family == "gemma3"
    ours = sdk.load(reference.folder)
    ours.save(tmp_path / "text", text_only=True)
    again = sdk.load(tmp_path / "text")
    assert again.modalities == ("text",)
    assert np.array_equal(again.logits([5, 6, 7]), ours.logits([5, 6, 7]))
