"""What is true of every model that hears: equality with `transformers`, batches, spellings, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sensorium import sdk

from .hearing import CASES, WEIGHTS, Asking, Build, Sounds, model_of

FAMILIES = ("qwen2-audio", "ultravox", "voxtral")
IN_TRANSFORMERS = ("qwen2-audio", "voxtral")
PLACEHOLDERS = {"qwen2-audio": "<|AUDIO|>", "voxtral": "[AUDIO]"}
MARKS = {"qwen2-audio": "<|audio_bos|><|AUDIO|><|audio_eos|>", "voxtral": "[BEGIN_AUDIO][AUDIO]"}


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, text: dict[str, Any]) -> Build:
    """A random model of a case."""
    return lambda case: made(case, lambda: model_of(case, tiny_tokenizer, text))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, sounds: Sounds, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", sounds["speech"], "and ", sounds["chirp"], "What is in them?"))


@pytest.mark.parametrize("family", FAMILIES)
def test_several_turns(family: str, build: Build, sounds: Sounds, equals_reference: Any, asking: Asking) -> None:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A click."}]}
    turns = [*asking(sounds["click"], "What is this?"), answer, *asking("And this?", sounds["falling"])]
    equals_reference(build(family), turns)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_alone(family: str, build: Build, asking: Asking) -> None:
    reference = build(family)
    expected = reference.inputs(asking("What is a cat?"))["input_ids"][0].tolist()
    ours = sdk.load(reference.folder)
    assert list(ours.encode("What is a cat?")) == expected
    assert list(ours.encode([{"role": "user", "content": "What is a cat?"}])) == expected


@pytest.mark.parametrize("samples", [321, 640, 641, 960, 961, 1279, 1280, 7777, 31_999, 32_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_places_and_spectrograms_equal_the_processor_s(
    family: str, samples: int, build: Build, sounds: Sounds, asking: Asking, spectrograms_equal: Any
) -> None:
    reference = build(family)
    sound = sounds["long"][:samples]
    inputs = reference.inputs(asking(sound, "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Audio(sound, rate=16_000), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    spectrograms_equal(ours, plan, inputs["input_features"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_different_media_equals_one_by_one(
    family: str, build: Build, sounds: Sounds, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build(family).folder, dtype="float32")
    prompts = [
        our_parts(asking(sounds["chirp"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        our_parts(asking(sounds["falling"], "One", sounds["speech"], "two")),
    ]
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize("family", IN_TRANSFORMERS)
def test_a_user_cannot_spell_a_sound(family: str, build: Build, sounds: Sounds) -> None:
    ours = sdk.load(build(family).folder)
    placeholder, mark = PLACEHOLDERS[family], MARKS[family]
    number = ours.tokenizer.token_id(placeholder)
    plan = ours.encode(f"{mark} {placeholder}", sdk.Audio(sounds["chirp"], rate=16_000), placeholder[:-2])
    assert sum(token == number for token in plan) == plan.items[0].slots
    left = ours.tokenizer.decode([token for token in plan if token != number], skip_special=False)
    assert f"{mark} {placeholder}" in left and left.count(placeholder[:-2]) >= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_is_encoded_once(family: str, build: Build, sounds: Sounds) -> None:
    ours = sdk.load(build(family).folder)
    for question in ("What is this?", "And now?"):
        ours.ask(question, sdk.Audio(sounds["chirp"], rate=16_000), max_new_tokens=1)
    cache = ours.engine.media.cache  # type: ignore[attr-defined]
    assert (cache.misses, cache.hits) == (1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_description_and_saving(family: str, build: Build, tmp_path: Path) -> None:
    reference = build(family)
    info = sdk.describe(reference.folder)
    assert info.parameters == sum(parameter.numel() for parameter in reference.model.parameters())
    ours = sdk.load(reference.folder)
    assert info.modalities == ours.modalities == ("text", "audio")
    assert info.family == family.replace("-", "_")
    ours.save(tmp_path / "text", text_only=True)
    assert np.array_equal(sdk.load(tmp_path / "text").logits([5, 6, 7]), ours.logits([5, 6, 7]))
    with pytest.raises(sdk.UnsupportedInputError, match="image"):
        ours.ask("What?", sdk.Image(np.zeros((8, 8, 3), np.uint8)))


# Spellings, and what must be refused


@pytest.mark.parametrize("family", IN_TRANSFORMERS)
def test_names_in_memory_of_transformers_5_load(family: str, build: Build, sounds: Sounds, tmp_path: Path) -> None:
    reference = build(family)
    folder = Path(shutil.copytree(reference.folder, tmp_path / "5"))
    tensors = {name: tensor.clone() for name, tensor in reference.model.state_dict().items()}
    assert tensors.keys() != load_file(folder / WEIGHTS).keys()
    save_file(tensors, folder / WEIGHTS)
    first, second = sdk.load(reference.folder), sdk.load(folder)
    plan = first.encode(sdk.Audio(sounds["chirp"], rate=16_000), "What?")
    assert np.array_equal(second.logits(plan), first.logits(plan))


CONV = "audio_tower.conv1.weight"
LAYER = "audio_tower.layers.2.fc1.bias"
DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any], tuple[str, ...]]] = {
    "projector-missing": (
        lambda found: [found.pop(name) for name in list(found) if name.startswith("multi_modal")],
        {},
        ("missing", "multi_modal_projector.linear"),
    ),
    "tower-missing": (lambda found: found.pop(LAYER), {}, ("missing", LAYER)),
    "tower-misshapen": (
        lambda found: found.update({CONV: torch.ones(24, 80, 3)}),
        {},
        (CONV, "[24, 80, 3]", "[24, 128, 3]"),
    ),
    "surplus": (lambda found: found.update(vision_tower=torch.ones(3)), {}, ("does not use", "vision_tower")),
    "no-decoder": (lambda _: None, {"text_config": [1]}, ("text_config",)),
    "no-such-decoder": (lambda _: None, {"text_config": {"model_type": "mamba"}}, ("mamba", "qwen2")),
    "no-tower": (lambda _: None, {"audio_config": [1]}, ("audio_config", "list")),
    "no-such-token": (lambda _: None, {"audio_token_index": 9999, "audio_token_id": 9999}, ("audio_token", "9999")),
}


ANYWHERE = ("projector-missing", "tower-missing", "surplus", "no-decoder", "no-such-decoder", "no-tower")


@pytest.mark.parametrize(
    ("family", "damage"),
    # Ultravox's configuration names no token, and its tower has 80 bins.
    [(family, damage) for family in FAMILIES for damage in DAMAGES if family != "ultravox" or damage in ANYWHERE],
)
def test_damaged_directories_are_refused_by_name(family: str, damage: str, build: Build, tmp_path: Path) -> None:
    change, fields, parts = DAMAGES[damage]
    folder = Path(shutil.copytree(build(family).folder, tmp_path / damage))
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("feature_size", 80, "128"),
        ("chunk_length", 30, "2"),
        ("sampling_rate", 8000, "16000"),
        ("hop_length", "160", "160"),
        ("n_fft", 512, "400"),
        ("dither", 0.1, "0"),
    ],
)
def test_other_spectrograms_are_refused(name: str, given: object, expected: str, build: Build, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build("voxtral").folder, tmp_path / "x"))
    steps = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(steps | {name: given}))
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in (name, str(given), expected)), str(caught.value)
