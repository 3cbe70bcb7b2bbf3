"""What a family is: how its configuration and its weight names translate into ours and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import DecoderConfig

__all__ = ["Family", "Rule", "Target", "expand"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of tensor in a checkpoint and what it is in our decoder; read in both directions.

    ``{layer}`` and ``{expert}`` in the names stand for every layer and expert.

    Attributes:
        theirs: the checkpoint's name.
        ours: our parameter; several share the checkpoint's rows in that order (a fused projection).
        transposed: the checkpoint keeps [in, out] (GPT-2's Conv1D).
        interleaved_heads: the checkpoint's rows pair neighbours for rotary positions, within this many heads; ours
            pair halves (GGUF files of Llama's kind).
        offset: the checkpoint's values are ours plus this (GGUF files of Gemma's norms).
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False
    interleaved_heads: int = 0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where one tensor of a checkpoint goes.

    Attributes:
        rule: how it gets there.
        ours: names of our parameters that share its rows in that order.
        expert: which of a stacked parameter's slots, or None.
    """

    rule: Rule
    ours: tuple[str, ...]
    expert: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of decoders.

    Attributes:
        name: ours.
        model_types: values of ``model_type`` in Hugging Face's config.json.
        architecture: the class named in the config.json that we write.
        read: config.json → `DecoderConfig`.
        write: `DecoderConfig` → config.json, without ``model_type`` and ``architectures``.
        rules: its weight names, for a given configuration.
        ignored: endings of names of tensors that carry no weights (masks, frequencies).
    """

    name: str
    model_types: tuple[str, ...]
    architecture: str
    read: Callable[[Mapping[str, Any]], DecoderConfig]
    write: Callable[[DecoderConfig], dict[str, Any]]
    rules: Callable[[DecoderConfig], tuple[Rule, ...]]
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)

    def targets(self, config: DecoderConfig) -> dict[str, Target]:
        """Every tensor that a checkpoint of this configuration holds, by its name there."""
        return expand(self.rules(config), config)


def expand(rules: tuple[Rule, ...], config: DecoderConfig) -> dict[str, Target]:
    """The targets of `rules`, for every layer and expert, by the checkpoint's names."""
    return {name: target for rule in rules for name, target in _expand(rule, config)}


def _expand(rule: Rule, config: DecoderConfig) -> Iterator[tuple[str, Target]]:
    for layer in range(config.layers) if "{layer}" in rule.theirs else (0,):
        ours = tuple(name.replace("{layer}", str(layer)) for name in rule.ours)
        theirs = rule.theirs.replace("{layer}", str(layer))
        if "{expert}" not in theirs:
            yield theirs, Target(rule, ours)
            continue
        for expert in range(config.experts.experts if config.experts else 0):
            yield theirs.replace("{expert}", str(expert)), Target(rule, ours, expert)
