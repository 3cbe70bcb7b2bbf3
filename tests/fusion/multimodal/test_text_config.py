"""What a text_config leaves out means what `transformers` means by it."""

from __future__ import annotations

from typing import Any

import pytest
from sensorium import sdk
from sensorium.fusion.families import family_of
from sensorium.fusion.multimodal.text_config import DEFAULTS, bare_text_config
from transformers import CONFIG_MAPPING


@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults_are_those_of_transformers(kind: str) -> None:
    theirs = CONFIG_MAPPING[kind]()
    known = theirs.to_dict() | {"rope_theta": theirs.rope_parameters.get("rope_theta")}
    assert {name: known[name] for name in DEFAULTS[kind]} == DEFAULTS[kind]
    bare = bare_text_config({"text_config": {"model_type": kind}})
    assert family_of(bare).read(bare) == family_of(bare).read(theirs.to_dict())


def test_a_published_text_config_reads() -> None:
    # LLaVA 1.5 7B's.
    text: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    raw = bare_text_config({"text_config": text | {"vocab_size": 32064, "torch_dtype": "float16"}})
    config = family_of(raw).read(raw)
    assert (config.layers, config.hidden_size, config.mlp_size, config.heads) == (32, 4096, 11_008, 32)
    assert (config.vocabulary_size, config.context_length, config.tied_head) == (32_064, 4096, False)


@pytest.mark.parametrize(("outer", "inner", "tied"), [(True, False, True), (False, True, True), (False, False, False)])
def test_either_of_the_two_ties_the_head(outer: bool, inner: bool, tied: bool) -> None:
    raw = bare_text_config({"tie_word_embeddings": outer, "text_config": {"tie_word_embeddings": inner}})
    assert family_of(raw).read(raw).tied_head is tied


@pytest.mark.parametrize("text", [None, [], "llama", {"model_type": ["llama"]}, {"model_type": "t5"}])
def test_nonsense_is_refused(text: object) -> None:
    with pytest.raises(sdk.CheckpointError, match="text_config"):
        bare_text_config({"text_config": text})
