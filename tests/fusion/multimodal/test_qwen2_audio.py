"""What Qwen2-Audio alone does: its templates, sounds longer than the tower's window, older files."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sensorium import sdk

from .hearing import QWEN2_AUDIO_TOWER, Asking, Sounds, model_of


@pytest.fixture(scope="module")
def reference(made: Any, tiny_tokenizer: Any, text: dict[str, Any]) -> Any:
    """A random Qwen2-Audio."""
    return made("qwen2-audio", lambda: model_of("qwen2-audio", tiny_tokenizer, text))


def test_a_system_message(reference: Any, sounds: Sounds, equals_reference: Any, asking: Asking) -> None:
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    equals_reference(reference, [system, *asking("Hear", sounds["falling"])])


def test_raw_prompts_equal_the_processor_s(reference: Any, sounds: Sounds) -> None:
    text = "<|audio_bos|><|AUDIO|><|audio_eos|>Generate the caption in English:"
    inputs = reference.processor(text=text, audio=[sounds["chirp"]], return_tensors="pt")
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Audio(sounds["chirp"], rate=16_000), "Generate the caption in English:", raw=True)
    assert list(plan) == inputs["input_ids"][0].tolist()


def test_a_template_of_the_directory_comes_first(reference: Any, sounds: Sounds, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reference.folder, tmp_path / "x"))
    source = "{% for part in messages[0].content %}{{ 'S <|audio_bos|><|AUDIO|><|audio_eos|>' }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(source)
    ours = sdk.load(folder)
    assert ours.tokenizer.chat_template == source
    assert ours.tokenizer.decode(ours.encode(sdk.Audio(sounds["chirp"], rate=16_000))).startswith("S ")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "audio_bos" in str(sdk.load(folder).tokenizer.chat_template)


# Longer than the tower's window: transformers cuts


@torch.no_grad()
def test_longer_sounds_are_read_in_windows(reference: Any, sounds: Sounds) -> None:
    sound, total = sounds["long"], 241  # features of 20 ms; 4.8 s through a tower of 2 s
    ours = sdk.load(reference.folder, dtype=torch.float64)
    plan = ours.encode(sdk.Audio(sound, rate=16_000))
    assert -(-len(sound) // 320) == total and plan.items[0].slots == total // 2
    connector = ours.engine.media.connector("audio")  # type: ignore[attr-defined]
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


def test_the_shortest_sound_has_a_place(reference: Any) -> None:
    """transformers gives 20 ms and less no place, and the sound is lost."""
    ours = sdk.load(reference.folder)
    for samples in (1, 320):
        plan = ours.encode(sdk.Audio(np.full(samples, 0.1, np.float32), rate=16_000), "What?")
        assert plan.items[0].slots == 1
        assert np.isfinite(ours.logits(plan)).all()


def test_files_of_transformers_4_load(reference: Any, sounds: Sounds, tmp_path: Path) -> None:
    """Configurations name only what differs from their defaults, and each processor has a file of its own."""
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


def test_a_tower_that_cannot_pool_is_refused(reference: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reference.folder, tmp_path / "x"))
    config = json.loads((folder / "config.json").read_text())
    config["audio_config"] = QWEN2_AUDIO_TOWER | {"max_source_positions": 99}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(sdk.CheckpointError, match="positions 99"):
        sdk.load(folder)
