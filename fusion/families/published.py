"""Families without public weights: shapes only, kept in our own checkpoint layout (`model_type` "sensorium")."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...encoders.errors import CheckpointError
from ..config import DecoderConfig, MixtureOfExperts, Rope, RopeScaling
from .family import Family, Rule

__all__ = ["FAMILY"]


def _read(raw: Mapping[str, Any]) -> DecoderConfig:
    names = {field.name for field in dataclasses.fields(DecoderConfig)}
    fields = {name: value for name, value in raw.items() if name in names}
    try:
        for name in ("rope", "sliding_rope"):
            if fields.get(name):
                fields[name] = _rope(fields[name])
        if fields.get("experts"):
            fields["experts"] = MixtureOfExperts(**fields["experts"])
        fields["layers_without_rope"] = frozenset(fields.get("layers_without_rope", ()))
        fields["layer_attention"] = tuple(fields.get("layer_attention", ()))
        return DecoderConfig(**fields)
    except TypeError as error:
        raise CheckpointError("config.json: fields of a sensorium model are missing or wrong.", given=error) from error


def _rope(raw: Mapping[str, Any]) -> Rope:
    scaling = dict(raw["scaling"]) if raw.get("scaling") else None
    if scaling:
        scaling |= {name: tuple(scaling.get(name, ())) for name in ("short_factors", "long_factors")}
    return Rope(theta=raw["theta"], dimensions=raw["dimensions"], scaling=RopeScaling(**scaling) if scaling else None)


def _write(config: DecoderConfig) -> dict[str, Any]:
    out = dataclasses.asdict(config)
    return out | {"layers_without_rope": sorted(config.layers_without_rope)}


def _rules(config: DecoderConfig) -> tuple[Rule, ...]:
    from ...encoders.storage import shapes_only
    from ..decoder import Decoder

    with shapes_only():
        names = [name for name, _ in Decoder(config).named_parameters()]
    return tuple(Rule(name, (name,)) for name in names)


FAMILY = Family(
    name="sensorium",
    model_types=("sensorium",),
    architecture="SensoriumForCausalLM",
    read=_read,
    write=_write,
    rules=_rules,
)
