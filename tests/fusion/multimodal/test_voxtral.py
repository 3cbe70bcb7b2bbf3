"""What Voxtral alone does: whole windows for longer sounds, its chats, its configuration."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensorium import sdk
from sensorium.encoders.text.pre_tokenizers import TEKKEN
from sensorium.fusion.multimodal import multimodal_family
from transformers import VoxtralConfig

from .hearing import VOXTRAL_TOWER, Asking, Sounds, model_of


@pytest.fixture(scope="module")
def reference(made: Any, tiny_tokenizer: Any, text: dict[str, Any]) -> Any:
    """A random Voxtral."""
    return made("voxtral", lambda: model_of("voxtral", tiny_tokenizer, text))


def test_longer_sounds(reference: Any, sounds: Sounds, equals_reference: Any, asking: Asking) -> None:
    """4.8 s through a tower of 2 s."""
    equals_reference(reference, asking("One", sounds["long"], "and", sounds["click"], "What is in them?"))
    plan = sdk.load(reference.folder).encode(sdk.Audio(sounds["long"], rate=16_000))
    assert plan.items[0].slots == 75


def test_a_system_message(reference: Any, sounds: Sounds) -> None:
    ours = sdk.load(reference.folder)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What?"},
        {"role": "assistant", "content": " A cat.  "},
        {"role": "user", "content": "A cat? "},
    ]
    tokens = ours.encode(turns)
    expected = "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST] What?[/INST] A cat.</s>[INST]A cat? [/INST]"
    assert ours.tokenizer.decode(tokens, skip_special=False) == expected
    spelled = [ours.tokenizer.token_id(token) for token in ("<s>", "[SYSTEM_PROMPT]", "[INST]", "</s>")]
    assert [token for token in tokens if token in spelled] == [spelled[number] for number in (0, 1, 2, 3, 2)]
    heard = {"role": "user", "content": [sdk.Audio(sounds["click"], rate=16_000)]}
    with pytest.raises(sdk.ChatTemplateError, match="no system message beside sounds"):
        ours.encode([turns[0], heard])


def test_mistral_s_own_tokenizer(reference: Any, sounds: Sounds, tmp_path: Path) -> None:
    """The published directories have a tekken.json alone."""
    folder = Path(shutil.copytree(reference.folder, tmp_path / "x"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"audio_token_id": 24}))
    with pytest.raises(sdk.TokenizerError, match=r"tekken\.json"):
        sdk.load(folder)
    control = {1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]"}
    vocab = [{"rank": value, "token_bytes": base64.b64encode(bytes([value])).decode()} for value in range(256)]
    content = {
        "config": {"pattern": TEKKEN, "default_vocab_size": 296, "default_num_special_tokens": 40, "version": "v11"},
        "special_tokens": [{"rank": rank, "token_str": text} for rank, text in control.items()],
        "vocab": vocab,
    }
    (folder / "tekken.json").write_text(json.dumps(content))
    plan = sdk.load(folder).encode("A", sdk.Audio(sounds["chirp"], rate=16_000), "B?")
    assert list(plan) == [1, 3, 40 + ord("A"), 25, *[24] * 25, 40 + ord("B"), 40 + ord("?"), 4]


@pytest.mark.parametrize(("bare", "tied"), [({}, False), ({"vocab_size": 99, "tie_word_embeddings": True}, True)])
def test_what_a_text_config_leaves_out(bare: dict[str, Any], tied: bool) -> None:
    raw = {"model_type": "voxtral", "text_config": bare}
    theirs = VoxtralConfig(text_config=bare).text_config.to_dict()
    family = multimodal_family(raw)
    assert family is not None
    from sensorium.fusion.families import family_of

    ours = family.text_config(raw)
    assert family_of(ours).read(ours) == family_of(theirs).read(theirs)
    assert family_of(ours).read(ours).tied_head is tied


@pytest.mark.parametrize("sizes", [{"intermediate_size": 97}, {"intermediate_size": 72}, {"intermediate_size": 12}])
def test_features_that_make_no_groups_are_refused(sizes: dict[str, int], reference: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reference.folder, tmp_path / "x"))
    config = json.loads((folder / "config.json").read_text())
    config["audio_config"] = VOXTRAL_TOWER | sizes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(sdk.CheckpointError, match="groups") as caught:
        sdk.load(folder)
    assert str(sizes["intermediate_size"]) in str(caught.value)


def test_the_shortest_sound_fills_a_window(reference: Any) -> None:
    ours = sdk.load(reference.folder)
    plan = ours.encode(sdk.Audio(np.full(1, 0.1, np.float32), rate=16_000), "What?")
    assert plan.items[0].slots == 25
    assert np.isfinite(ours.logits(plan)).all()
