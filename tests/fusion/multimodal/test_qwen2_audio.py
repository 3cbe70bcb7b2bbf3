"""Qwen2-Audio against `transformers`: processing, ids, logits and answers; longer sounds; what must be refused."""

from __future__ import annotations

import copy
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

Sounds = Mapping[str, NDArray[np.float32]]
Build = Callable[[str], Any]
Asking = Callable[..., list[dict[str, Any]]]
WEIGHTS = "model.safetensors"
CONTROL = ("<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
# Windows of 2 s; all sizes differ.
TOWER: dict[str, Any] = {
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "num_mel_bins": 128,
    "max_source_positions": 100,
}
CASES: dict[str, dict[str, Any]] = {"usual": {}, "relu": {"activation_function": "relu", "num_mel_bins": 80}}


@pytest.fixture(scope="module")
def build(made: Any, tiny_tokenizer: Any, text: dict[str, Any]) -> Build:
    """A random Qwen2-Audio of a case."""

    def make(case: str) -> Any:
        words = tiny_tokenizer(*(AddedToken(token, special=True, normalized=False) for token in CONTROL), template=None)
        tower = TOWER | CASES[case]
        config = transformers.Qwen2AudioConfig(
            audio_config={"model_type": "qwen2_audio_encoder"} | tower,
            text_config={"model_type": "qwen2"} | text,
            audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
        )
        extractor = transformers.WhisperFeatureExtractor(feature_size=tower["num_mel_bins"], chunk_length=2)
        return transformers.Qwen2AudioForConditionalGeneration(config), transformers.Qwen2AudioProcessor(
            extractor, words
        )

    return lambda case: made(f"qwen2-audio-{case}", lambda: make(case))


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case: str, build: Build, sounds: Sounds, equals_reference: Any, asking: Asking) -> None:
    equals_reference(build(case), asking("One", sounds["speech"], "and", sounds["chirp"], "What is in them?"))


def test_several_turns_and_a_system_message(
    build: Build, sounds: Sounds, equals_reference: Any, asking: Asking
) -> None:
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        *asking(sounds["click"], "What is this?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A click."}]},
        *asking("And this?", sounds["falling"]),
    ]
    equals_reference(build("usual"), turns)


def test_text_alone(build: Build, asking: Asking) -> None:
    reference = build("usual")
    expected = reference.inputs(asking("What is a cat?"))["input_ids"][0].tolist()
    ours = sdk.load(reference.folder)
    assert list(ours.encode("What is a cat?")) == expected
    assert list(ours.encode([{"role": "user", "content": "What is a cat?"}])) == expected


@pytest.mark.parametrize("samples", [321, 640, 641, 960, 961, 1279, 1280, 7777, 31_999, 32_000])
def test_places_equal_the_processor_s(
    samples: int, build: Build, sounds: Sounds, asking: Asking, spectrograms_equal: Any
) -> None:
    reference = build("usual")
    sound = sounds["long"][:samples]
    inputs = reference.inputs(asking(sound, "What?"))
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Audio(sound, rate=16_000), "What?")
    assert list(plan) == inputs["input_ids"][0].tolist()
    spectrograms_equal(ours, plan, inputs["input_features"])


def test_raw_prompts_equal_the_processor_s(build: Build, sounds: Sounds) -> None:
    reference = build("usual")
    text = "<|audio_bos|><|AUDIO|><|audio_eos|>Generate the caption in English:"
    inputs = reference.processor(text=text, audio=[sounds["chirp"]], return_tensors="pt")
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Audio(sounds["chirp"], rate=16_000), "Generate the caption in English:", raw=True)
    assert list(plan) == inputs["input_ids"][0].tolist()


def test_a_template_of_the_directory_comes_first(build: Build, sounds: Sounds, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build("usual").folder, tmp_path / "x"))
    source = "{% for part in messages[0].content %}{{ 'S <|audio_bos|><|AUDIO|><|audio_eos|>' }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(source)
    ours = sdk.load(folder)
    assert ours.tokenizer.chat_template == source
    assert ours.tokenizer.decode(ours.encode(sdk.Audio(sounds["chirp"], rate=16_000))).startswith("S ")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "audio_bos" in str(sdk.load(folder).tokenizer.chat_template)


# Longer than the tower's window: transformers cuts


@torch.no_grad()
def test_longer_sounds_are_read_in_windows(build: Build, sounds: Sounds) -> None:
    reference = build("usual")
    sound, total = sounds["long"], 241  # features of 20 ms; 4.8 s through a tower of 2 s
    ours = sdk.load(reference.folder, dtype=torch.float64)
    plan = ours.encode(sdk.Audio(sound, rate=16_000))
    assert -(-len(sound) // 320) == total and plan.items[0].slots == total // 2
    connector = ours.engine.media._connector("audio")  # type: ignore[attr-defined]
    found = connector.embed(plan.items[0].media)
    mel = connector.encoder.mel(plan.items[0].media, 2 * 304).double()
    model = copy.deepcopy(reference.model.model).double()
    pieces = []
    # First feature of a window, and those that are kept of it: half of each overlap of 48.
    for first, begin, end in ((0, 0, 76), (52, 76, 128), (104, 128, 180), (156, 180, 241)):
        attended = min(100, total - first)
        mask = torch.zeros(1, 1, 1, 100, dtype=torch.float64)
        mask[..., attended:] = -torch.inf
        features = model.audio_tower(mel[None, :, 2 * first : 2 * first + 200], attention_mask=mask)[0][0]
        pieces.append(features[(begin - first) // 2 : (end - first) // 2])
    expected = model.multi_modal_projector(torch.cat(pieces))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_the_shortest_sound_has_a_place(build: Build) -> None:
    """transformers gives 20 ms and less no place, and the sound is lost."""
    ours = sdk.load(build("usual").folder)
    for samples in (1, 320):
        plan = ours.encode(sdk.Audio(np.full(samples, 0.1, np.float32), rate=16_000), "What?")
        assert plan.items[0].slots == 1
        assert np.isfinite(ours.logits(plan)).all()


# Batches, caches, and what texts may say


def test_a_batch_of_different_media_equals_one_by_one(
    build: Build, sounds: Sounds, our_parts: Any, asking: Asking
) -> None:
    ours = sdk.load(build("usual").folder, dtype="float32")
    prompts = [
        our_parts(asking(sounds["chirp"], "What?")),
        [{"role": "user", "content": "A text alone."}],
        our_parts(asking(sounds["falling"], "One", sounds["speech"], "two")),
    ]
    alone = [ours.ask(prompt, max_new_tokens=9).tokens for prompt in prompts]
    assert [result.tokens for result in ours.batch(prompts, max_new_tokens=9)] == alone
    assert len(set(alone)) == 3


def test_a_user_cannot_spell_a_sound(build: Build, sounds: Sounds) -> None:
    ours = sdk.load(build("usual").folder)
    number = ours.tokenizer.token_id("<|AUDIO|>")
    mark = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    plan = ours.encode(f"{mark} <|AUDIO|>", sdk.Audio(sounds["chirp"], rate=16_000), "<|AUD")
    assert sum(token == number for token in plan) == plan.items[0].slots
    left = ours.tokenizer.decode([token for token in plan if token != number], skip_special=False)
    assert f"{mark} <|AUDIO|>" in left and "<|AUD" in left


# Spellings, and what must be refused


def test_names_in_memory_of_transformers_5_load(build: Build, sounds: Sounds, tmp_path: Path) -> None:
    reference = build("usual")
    folder = Path(shutil.copytree(reference.folder, tmp_path / "5"))
    save_file({name: tensor.clone() for name, tensor in reference.model.state_dict().items()}, folder / WEIGHTS)
    first, second = sdk.load(reference.folder), sdk.load(folder)
    plan = first.encode(sdk.Audio(sounds["chirp"], rate=16_000), "What?")
    assert np.array_equal(second.logits(plan), first.logits(plan))


def test_files_of_transformers_4_load(build: Build, sounds: Sounds, tmp_path: Path) -> None:
    """Configurations name only what differs from their defaults, and each processor has a file of its own."""
    reference = build("usual")
    folder = Path(shutil.copytree(reference.folder, tmp_path / "4"))
    raw = json.loads((folder / "config.json").read_text())
    for part, usual in (
        ("text_config", transformers.Qwen2Config()),
        ("audio_config", transformers.Qwen2AudioEncoderConfig()),
    ):
        known = usual.to_dict()
        kept = {name: value for name, value in raw[part].items() if name == "model_type" or value != known.get(name)}
        assert len(kept) < len(raw[part])
        raw[part] = kept
    (folder / "config.json").write_text(json.dumps(raw))
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(processor["feature_extractor"]))
    (folder / "chat_template.jinja").unlink()
    first, second = sdk.load(reference.folder), sdk.load(folder)
    question = (sdk.Audio(sounds["chirp"], rate=16_000), "What?")
    assert list(second.encode(*question)) == list(first.encode(*question))
    assert np.array_equal(second.logits(second.encode(*question)), first.logits(first.encode(*question)))


PROJECTOR = "multi_modal_projector.linear.weight"
DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "projector-missing": (lambda found: found.pop(PROJECTOR), {}, {}, ("missing", PROJECTOR)),
    "tower-missing": (
        lambda found: found.pop("audio_tower.layers.2.fc1.bias"),
        {},
        {},
        ("missing", "audio_tower.layers.2.fc1.bias"),
    ),
    "tower-misshapen": (
        lambda found: found.update({"audio_tower.conv1.weight": torch.ones(24, 80, 3)}),
        {},
        {},
        ("audio_tower.conv1.weight", "[24, 80, 3]", "[24, 128, 3]"),
    ),
    "surplus": (lambda found: found.update(vision_tower=torch.ones(3)), {}, {}, ("does not use", "vision_tower")),
    "no-decoder": (lambda _: None, {"text_config": [1]}, {}, ("text_config",)),
    "no-such-decoder": (lambda _: None, {"text_config": {"model_type": "mamba"}}, {}, ("mamba", "qwen2")),
    "no-tower": (lambda _: None, {"audio_config": [1]}, {}, ("audio_config", "list")),
    "odd-tower": (lambda _: None, {"audio_config": TOWER | {"max_source_positions": 99}}, {}, ("pool", "99")),
    "no-such-token": (lambda _: None, {"audio_token_index": 9999}, {}, ("audio_token_index", "9999")),
    "other-bins": (lambda _: None, {}, {"feature_size": 80}, ("feature_size", "80", "128")),
    "other-window": (lambda _: None, {}, {"chunk_length": 30}, ("chunk_length", "30", "2")),
    "other-rate": (lambda _: None, {}, {"sampling_rate": 8000}, ("sampling_rate", "8000", "16000")),
    "other-hop": (lambda _: None, {}, {"hop_length": "160"}, ("hop_length", "160")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_directories_are_refused_by_name(damage: str, build: Build, tmp_path: Path) -> None:
    change, fields, steps, parts = DAMAGES[damage]
    folder = Path(shutil.copytree(build("usual").folder, tmp_path / damage))
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "processor_config.json").read_text())
    processor["feature_extractor"] |= steps
    (folder / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(sdk.CheckpointError) as caught:
        sdk.load(folder)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_description(build: Build) -> None:
    reference = build("usual")
    info = sdk.describe(reference.folder)
    assert info.parameters == sum(parameter.numel() for parameter in reference.model.parameters())
    assert info.modalities == sdk.load(reference.folder).modalities == ("text", "audio")
    assert info.family == "qwen2_audio"
