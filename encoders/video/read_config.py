"""Hugging Face's ``config.json`` and ``preprocessor_config.json`` of video models to our configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, UnknownFamilyError
from ..image.config import PreprocessConfig, Resample
from ..storage.naming import shortened
from .config import Activation, VideoConfig

__all__ = ["read_video_config", "read_video_preprocess", "video_model_types"]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
_SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
# What each family's configuration class assumes where a file says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "videomae": _SIZES
    | {"num_frames": 16, "tubelet_size": 2, "patch_size": 16, "image_size": 224, "hidden_act": "gelu"}
    | {"layer_norm_eps": 1e-12, "qv_bias": True, "use_mean_pooling": True, "num_channels": 3},
    "vivit": _SIZES
    | {"num_frames": 32, "tubelet_size": [2, 16, 16], "image_size": 224, "hidden_act": "gelu_fast"}
    | {"layer_norm_eps": 1e-6, "qkv_bias": True, "num_channels": 3},
}
_RESAMPLES: dict[object, Resample] = {2: "bilinear", 3: "bicubic"}
# Steps that this preprocessing takes; any other that a file asks for is refused rather than left out.
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
_HALF = (0.5, 0.5, 0.5)


def video_model_types() -> tuple[str, ...]:
    """Every ``model_type`` that `read_video_config` knows, sorted."""
    return tuple(sorted(_DEFAULTS))


def read_video_config(raw: Mapping[str, Any]) -> VideoConfig:
    """The network that a config.json describes.

    Raises:
        UnknownFamilyError: its model type is not one that we know; lists them.
        CheckpointError: a field is not what its name calls for.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        problem, known = "config.json names no video network that Sensorium knows.", ", ".join(video_model_types())
        raise UnknownFamilyError(problem, given=f"model_type = {shortened(kind)}", expected=f"one of {known}")
    fields = _DEFAULTS[kind] | {name: value for name, value in raw.items() if value is not None}
    if fields["num_channels"] != 3:
        raise CheckpointError("config.json: frames have three channels.", given=shortened(fields["num_channels"]))
    particular = _videomae(fields) if kind == "videomae" else _vivit(fields)
    return VideoConfig(**_shared(fields), **particular)


def _shared(fields: Mapping[str, Any]) -> dict[str, Any]:
    activation, epsilon = fields["hidden_act"], fields["layer_norm_eps"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        expected = ", ".join(sorted(_ACTIVATIONS))
        raise CheckpointError("config.json: unknown activation.", given=shortened(activation), expected=expected)
    return {
        "hidden_size": fields["hidden_size"],
        "layers": fields["num_hidden_layers"],
        "heads": fields["num_attention_heads"],
        "mlp_size": fields["intermediate_size"],
        "frames": fields["num_frames"],
        "image_size": _pair(fields, "image_size"),
        "activation": _ACTIVATIONS[activation],
        "norm_epsilon": _number(epsilon, "layer_norm_eps"),
    }


def _videomae(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "family": "videomae",
        "tubelet": (fields["tubelet_size"], *_pair(fields, "patch_size")),
        "query_value_bias": bool(fields.get("qkv_bias", fields["qv_bias"])),
        "final_norm": not fields["use_mean_pooling"],
    }


def _vivit(fields: Mapping[str, Any]) -> dict[str, Any]:
    tubelet, bias = fields["tubelet_size"], bool(fields["qkv_bias"])
    if not isinstance(tubelet, (list, tuple)) or len(tubelet) != 3:
        expected = "three sizes: frames, height, width"
        raise CheckpointError("config.json: unknown tubelet_size.", given=shortened(tubelet), expected=expected)
    return {
        "family": "vivit",
        "tubelet": tuple(tubelet),
        "query_value_bias": bias,
        "key_bias": bias,
        "class_token": True,
        "positions": "learned",
        "final_norm": True,
    }


def read_video_preprocess(raw: Mapping[str, Any] | None, config: VideoConfig) -> PreprocessConfig:
    """The steps that a preprocessor_config.json asks for.

    Args:
        raw: the file, or None if there is none: the family's usual steps at the network's own size.
        config: of the network, which the results must fit.

    Raises:
        CheckpointError: a field is not what its name calls for, asks for a step that we do not know, or the results
            have another size than the network reads.
    """
    fields = _usual(config) | {name: value for name, value in (raw or {}).items() if value is not None}
    unknown = sorted(name for name in fields if name.startswith("do_") and name not in _STEPS and fields[name] is True)
    unknown = [name for name in unknown if name != "do_sample_frames"]  # which frames is not said there
    if unknown:
        problem = "preprocessor_config.json asks for steps that Sensorium does not know."
        raise CheckpointError(problem, given=shortened(unknown), expected=", ".join(sorted(_STEPS)))
    rescaled, normalised = bool(fields["do_rescale"]), bool(fields["do_normalize"])
    mean = _channels(fields, "image_mean") if normalised else (0.0, 0.0, 0.0)
    shift = 1.0 if rescaled and fields["offset"] else 0.0  # ViViT's pixels are of -1..1 before they are normalised
    steps = PreprocessConfig(
        **(_size(fields) if fields["do_resize"] else {}),
        crop=_pair(fields, "crop_size") if fields["do_center_crop"] else None,
        resample=_resample(fields["resample"]),
        scale=_number(fields["rescale_factor"], "rescale_factor") if rescaled else 1.0,
        mean=(mean[0] + shift, mean[1] + shift, mean[2] + shift),
        std=_channels(fields, "image_std") if normalised else (1.0, 1.0, 1.0),
    )
    if steps.fixed_size != config.image_size:
        given = f"frames of {steps.fixed_size or 'any size'}"
        raise CheckpointError(
            "preprocessor_config.json does not fit config.json.", given=given, expected=config.image_size
        )
    return steps


def _usual(config: VideoConfig) -> dict[str, Any]:
    edge, is_vivit = max(config.image_size), config.family == "vivit"
    return {
        "do_resize": True,
        # ViViT's usual steps cut a margin off: 224 of 256 pixels are kept.
        "size": {"shortest_edge": -(-edge * 8 // 7) if is_vivit else edge},
        "do_center_crop": True,
        "crop_size": list(config.image_size),
        "do_rescale": True,
        "rescale_factor": 1 / 127.5 if is_vivit else 1 / 255,
        "offset": is_vivit,
        "do_normalize": True,
        "image_mean": _HALF,
        "image_std": _HALF,
        "resample": 2,
    }


def _size(fields: Mapping[str, Any]) -> dict[str, Any]:
    size = fields["size"]
    if isinstance(size, int):
        return {"shortest_edge": size}
    if isinstance(size, Mapping) and set(size) in ({"height", "width"}, {"shortest_edge"}):
        return dict(size)
    expected = "height and width, or shortest_edge"
    raise CheckpointError("preprocessor_config.json: unknown size.", given=shortened(size), expected=expected)


def _pair(fields: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """Height and width: one number for both, a list of two, or a dictionary."""
    value = fields[name]
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        return value["height"], value["width"]
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value[0], value[1]
    if isinstance(value, int):
        return value, value
    raise CheckpointError(f"{name} is no height and width.", given=shortened(value), expected="one size or two")


def _resample(code: object) -> Resample:
    if isinstance(code, int) and code in _RESAMPLES:
        return _RESAMPLES[code]
    expected = ", ".join(f"{number} ({name})" for number, name in _RESAMPLES.items())
    raise CheckpointError("preprocessor_config.json: unknown resample.", given=shortened(code), expected=expected)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError(f"{name} is no number.", given=shortened(value))
    return float(value)


def _channels(fields: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    values = fields[name]
    if isinstance(values, (int, float)):
        values = (values,) * 3
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise CheckpointError(f"{name} needs three numbers.", given=shortened(values))
    first, second, third = (_number(value, name) for value in values)
    return first, second, third
