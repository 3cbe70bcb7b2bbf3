"""Decoder families: each translates its checkpoints' configuration and weight names into ours and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...encoders.errors import UnknownFamilyError
from .family import Family, Rule, Target, expand
from .gemma import GEMMA1, GEMMA2, GEMMA3
from .gpt import GPT1, GPT2
from .grok import FAMILY as GROK
from .llama import FAMILY as LLAMA
from .mistral import FAMILY as MISTRAL
from .mixtral import FAMILY as MIXTRAL
from .phi3 import FAMILY as PHI3
from .published import FAMILY as PUBLISHED
from .qwen import QWEN2, QWEN3
from .smollm3 import FAMILY as SMOLLM3

__all__ = ["FAMILIES", "Family", "Rule", "Target", "expand", "family_of"]

_ALL = (GPT1, GPT2, LLAMA, SMOLLM3, MISTRAL, MIXTRAL, GEMMA1, GEMMA2, GEMMA3, QWEN2, QWEN3, PHI3, GROK, PUBLISHED)

#: Every family by its name.
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
_BY_MODEL_TYPE = {kind: family for family in _ALL for kind in family.model_types}


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family that reads this config.json.

    Raises:
        UnknownFamilyError: its ``model_type`` is not one that we know.
    """
    kind = raw.get("model_type")
    family = _BY_MODEL_TYPE.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise UnknownFamilyError(
            "config.json names a model type that Sensorium does not know.",
            given=f"model_type = {kind!r}, architectures = {raw.get('architectures')!r}",
            expected=f"one of {', '.join(sorted(_BY_MODEL_TYPE))}",
        )
    return family
