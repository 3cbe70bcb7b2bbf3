"""LLaVA 1.5 against `transformers`: processing, ids, logits and answers; and directories that must be refused."""

from __future__ import annotations

import json
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
from tokenizers import AddedToken

Photos = Mapping[str, NDArray[np.uint8]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]
CLIP = {"size": {"shortest_edge": 35}, "crop_size": {"height": 35, "width": 35}}
SIGLIP = {"size": {"height": 35, "width": 35}}
# Decoder, tower, processor of images, and fields of config.json.
CASES: dict[str, tuple[str, str, tuple[str, dict[str, Any]], dict[str, Any]]] = {
    "llama": ("Llama", "CLIP", ("CLIP", CLIP), {}),
    "padded": ("Llama", "CLIP", ("Llava", CLIP | {"do_pad": True}), {"vision_feature_layer": -1}),
    "mistral": ("Mistral", "CLIP", ("CLIP", CLIP), {"vision_feature_layer": [-2, 1], "projector_hidden_act": "relu"}),
    "qwen2": ("Qwen2", "Siglip", ("Siglip", SIGLIP), {"vision_feature_select_strategy": "full"}),
    "classes-kept": ("Llama", "CLIP", ("CLIP", CLIP), {"vision_feature_select_strategy": "full"}),
    "wide": ("Llama", "CLIP", ("CLIP", {"size": {"shortest_edge": 41}, "crop_size": {"height": 35, "width": 35}}), {}),
    "no-bias": ("Llama", "CLIP", ("CLIP", CLIP), {"multimodal_projector_bias": False}),
}


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, tower: dict[str, Any], text: dict[str, Any]) -> Build:
    """A random LLaVA of a case."""

    def make(case: str) -> Any:
        decoder, vision, (processing, steps), fields = CASES[case]
        words = tiny_tokenizer(AddedToken("<image>", special=True, normalized=False))
        vision_config = getattr(transformers, f"{vision}VisionConfig")(**tower)
        config = transformers.LlavaConfig(
            vision_config=vision_config,
            text_config=getattr(transformers, f"{decoder}Config")(**text),
            image_token_index=words.convert_tokens_to_ids("<image>"),
            **fields,
        )
        strategy = config.vision_feature_select_strategy
        images = getattr(transformers, f"{processing}ImageProcessor")(**steps)
        extra = {"num_additional_image_tokens": int(vision == "CLIP"), "chat_template": words.chat_template}
        processor = transformers.LlavaProcessor(
            images, words, patch_size=5, vision_feature_select_strategy=strategy, **extra
        )
        return transformers.LlavaForConditionalGeneration(config), processor

    return lambda case: made(f"llava-{case}", lambda: make(case))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, photos: Photos, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", photos["chelsea"], "and", photos["odd"], "What is in them?"))


@pytest.mark.parametrize("name", ["coffee", "tall", "tiny", "rocket", "astronaut"])
@pytest.mark.parametrize("case", ["llama", "padded", "qwen2"])
def test_pixels_and_places_equal_the_processor_s(
    case: str, name: str, build: Build, photos: Photos, asking: Asking
) -> None:
    reference = build(case)
    inputs = reference.inputs(asking(photos[name], "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Image(photos[name]), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    connector = ours.engine.media.connector("image")  # type: ignore[attr-defined]
    assert torch.equal(connector.encoder.pixels(plan.items[0].media), inputs["pixel_values"][0])


def test_several_turns_and_a_system_message(
    build: Build, photos: Photos, equals_reference: Any, asking: Asking
) -> None:
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *asking(photos["coffee"], "What is this?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A cup."}]},
        *asking("And this?", photos["rocket"]),
    ]
    equals_reference(build("llama"), turns)


def test_text_alone_is_not_lost_in_the_template(build: Build, asking: Asking) -> None:
    reference = build("llama")
    ours = sdk.load(reference.folder)
    expected = reference.inputs(asking("What is a cat?"))["input_ids"][0].tolist()
    assert list(ours.encode("What is a cat?")) == expected
    assert list(ours.encode([{"role": "user", "content": "What is a cat?"}])) == expected


def test_raw_prompts_equal_the_processor_s(build: Build, photos: Photos) -> None:
    reference = build("llama")
    inputs = reference.processor(images=[photos["odd"]], text="See <image>: a cat", return_tensors="pt")
    ours = sdk.load(reference.folder)
    assert list(ours.encode("See ", sdk.Image(photos["odd"]), ": a cat", raw=True)) == inputs["input_ids"][0].tolist()


def test_a_batch_of_different_media_equals_one_by_one(
    build: Build, photos: Photos, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build("llama").folder, dtype="float32")
    prompts = [
        our_parts(asking(photos["chelsea"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        our_parts(asking(photos["odd"], "One", photos["tall"], "two")),
    ]
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    assert len(set(alone)) == 3


def test_a_picture_is_encoded_once(build: Build, photos: Photos) -> None:
    ours = sdk.load(build("llama").folder)
    for question in ("What is this?", "And now?"):
        ours.ask(question, sdk.Image(photos["odd"]), max_new_tokens=1)
    cache = ours.engine.media.cache  # type: ignore[attr-defined]
    assert (cache.misses, cache.hits) == (1, 1)


def test_a_user_cannot_spell_a_picture(build: Build, photos: Photos) -> None:
    ours = sdk.load(build("llama").folder)
    number = ours.tokenizer.token_id("<image>")
    plan = ours.encode("<image> <image>", sdk.Image(photos["odd"]), "<ima")
    assert sum(token == number for token in plan) == 49
    assert "<image> <image>" in ours.tokenizer.decode([token for token in plan if token != number])


# Spellings


def respelled(folder: Path, target: Path, *pairs: tuple[str, str]) -> Path:
    """A copy of a directory whose tensors have other names."""
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    for old, new in pairs:
        tensors = {
            new + name.removeprefix(old) if name.startswith(old) else name: tensor for name, tensor in tensors.items()
        }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_both_spellings_of_names_load(build: Build, tmp_path: Path, photos: Photos) -> None:
    folder = build("llama").folder
    published = respelled(folder, tmp_path / "4", ("vision_tower.", "vision_tower.vision_model."))
    newer = respelled(
        folder,
        tmp_path / "5",
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.", "model.vision_tower.vision_model."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
    )
    question = ("What?", sdk.Image(photos["odd"]))
    first, *others = (sdk.load(path) for path in (folder, published, newer))
    expected = first.logits(first.encode(*question))
    assert all(np.array_equal(model.logits(model.encode(*question)), expected) for model in others)


def test_files_of_transformers_4_load(build: Build, tmp_path: Path, photos: Photos) -> None:
    """Configurations name only what differs from their defaults, and each processor has a file of its own."""
    folder = build("llama").folder
    older = respelled(folder, tmp_path / "4", ("vision_tower.", "vision_tower.vision_model."))
    raw = json.loads((older / "config.json").read_text())
    for part, usual in (
        ("text_config", transformers.LlamaConfig()),
        ("vision_config", transformers.CLIPVisionConfig()),
    ):
        known = usual.to_dict()
        kept = {name: value for name, value in raw[part].items() if name == "model_type" or value != known.get(name)}
        assert len(kept) < len(raw[part])
        raw[part] = kept
    (older / "config.json").write_text(json.dumps(raw))
    processor = json.loads((older / "processor_config.json").read_text())
    (older / "preprocessor_config.json").write_text(json.dumps(processor.pop("image_processor")))
    (older / "processor_config.json").write_text(json.dumps(processor))
    template = (older / "chat_template.jinja").read_text()
    (older / "chat_template.jinja").unlink()
    (older / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    question = ("What?", sdk.Image(photos["odd"]))
    new, old = sdk.load(folder), sdk.load(older)
    assert np.array_equal(old.logits(old.encode(*question)), new.logits(new.encode(*question)))


def test_two_spellings_of_one_tensor_are_refused(build: Build, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build("llama").folder, tmp_path / "x"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["language_model.lm_head.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(sdk.CheckpointError, match="two spellings"):
        sdk.load(folder)


# What must be refused


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], None], **fields: Any) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | fields
    (target / "config.json").write_text(json.dumps(config))
    return target


WEIGHT = "multi_modal_projector.linear_2.weight"
DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any], tuple[str, ...]]] = {
    "projector-missing": (lambda found: found.pop(WEIGHT), {}, ("missing", "model.safetensors", WEIGHT)),
    "projector-misshapen": (
        lambda found: found.update({WEIGHT: torch.ones(30, 31)}),
        {},
        ("model.safetensors", WEIGHT, "[30, 31]", "[30, 30]"),
    ),
    "tower-missing": (
        lambda found: found.pop("vision_tower.encoder.layers.2.mlp.fc1.bias"),
        {},
        ("missing", "vision_tower.encoder.layers.2.mlp.fc1.bias"),
    ),
    "decoder-missing": (
        lambda found: found.pop("language_model.model.norm.weight"),
        {},
        ("missing", "language_model.model.norm.weight"),
    ),
    "surplus": (lambda found: found.update(audio_tower=torch.ones(3)), {}, ("does not use", "audio_tower")),
    "whole-numbers": (
        lambda found: found.update({WEIGHT: torch.ones(30, 30, dtype=torch.int8)}),
        {},
        (WEIGHT, "int8"),
    ),
    "no-tower": (lambda _: None, {"vision_config": None}, ("vision_config",)),
    "no-decoder": (lambda _: None, {"text_config": [1]}, ("text_config",)),
    "no-such-layer": (lambda _: None, {"vision_feature_layer": 7}, ("vision_feature_layer", "7")),
    "no-layers": (lambda _: None, {"vision_feature_layer": []}, ("vision_feature_layer",)),
    "strategy": (lambda _: None, {"vision_feature_select_strategy": "some"}, ("select_strategy", "some")),
    "no-such-token": (lambda _: None, {"image_token_index": 9999}, ("image_token_index", "9999")),
    "no-known-decoder": (lambda _: None, {"text_config": {"model_type": "mamba"}}, ("mamba", "llama")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_directories_are_refused_by_name(damage: str, build: Build, tmp_path: Path) -> None:
    change, fields, parts = DAMAGES[damage]
    folder = changed(build("llama").folder, tmp_path / damage, change, **fields)
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


# Facts and saving


def test_description_and_saving(build: Build, tmp_path: Path) -> None:
    reference = build("llama")
    info = sdk.describe(reference.folder)
    assert info.parameters == sum(parameter.numel() for parameter in reference.model.parameters())
    assert info.modalities == ("text", "image") and info.family == "llava"
    ours = sdk.load(reference.folder)
    assert ours.modalities == info.modalities
    with pytest.raises(sdk.UnsupportedInputError, match="text_only"):
        ours.save(tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    ours.save(tmp_path / "text", text_only=True)
    again = sdk.load(tmp_path / "text")
    assert again.modalities == ("text",)
    assert np.array_equal(again.logits([5, 6, 7]), ours.logits([5, 6, 7]))
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text")
    assert there.config.model_type == "llama"


def test_other_media_are_refused(build: Build) -> None:
    ours = sdk.load(build("llama").folder)
    with pytest.raises(sdk.UnsupportedInputError, match="audio"):
        ours.ask("What?", sdk.Audio(np.zeros(1600, np.float32), rate=16_000))
