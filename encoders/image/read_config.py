"""Hugging Face's ``config.json`` and ``preprocessor_config.json`` to our configurations. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, UnknownFamilyError
from .config import PixelBudget, PreprocessConfig, Resample, VisionConfig

__all__ = ["read_activation", "read_preprocess_config", "read_vision_config", "vision_model_types"]

_ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
}
_SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
# What each family's configuration class assumes where a file says nothing: published files leave much out.
_VIT = _SIZES | {"image_size": 224, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
_CLIP = _SIZES | {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP = _SIZES | {"image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_NAFLEX = _SIGLIP | {"num_patches": 256}
_IDEFICS3 = _SIGLIP | {"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": _VIT,
    "clip": _CLIP,
    "siglip": _SIGLIP,
    "siglip2": _NAFLEX,
    "idefics3": _IDEFICS3,
}
_FAMILIES = {
    "vit": "vit",
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "siglip2": "siglip2",
    "siglip2_vision_model": "siglip2",
    "idefics3": "idefics3",
    "idefics3_vision": "idefics3",
    "smolvlm": "idefics3",
    "smolvlm_vision": "idefics3",
}
_HALF = (0.5, 0.5, 0.5)
_OPENAI_MEAN, _OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# What each processor class assumes; `square` says what a size that is one number means.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"size": 224, "square": True, "resample": 2, "image_mean": _HALF, "image_std": _HALF},
    "clip": {
        "size": {"shortest_edge": 224},
        "crop_size": 224,
        "do_center_crop": True,
        "square": False,
        "resample": 3,
        "image_mean": _OPENAI_MEAN,
        "image_std": _OPENAI_STD,
    },
    "siglip": {"size": 224, "square": True, "resample": 3, "image_mean": _HALF, "image_std": _HALF},
    "siglip2": {
        "max_num_patches": 256,
        "patch_size": 16,
        "square": True,
        "resample": 2,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
}
_PROCESSORS["gemma3"] = _PROCESSORS["siglip"] | {"resample": 2}
_PROCESSORS["idefics3"] = _PROCESSORS["siglip"] | {"resample": 1}
_PROCESSORS["qwen2vl"] = {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "patch_size": 14,
    "merge_size": 2,
    "resample": 3,
    "image_mean": _OPENAI_MEAN,
    "image_std": _OPENAI_STD,
}
_PROCESSORS["qwen2vlvideo"] = _PROCESSORS["qwen2vl"] | {
    "size": {"shortest_edge": 28 * 28 * 128, "longest_edge": 28 * 28 * 768}
}
# What do_pad asks for: a square before resizing, or tiles of nothing up to the number that another image has.
_PROCESSORS["llava"] = _PROCESSORS["clip"] | {"do_pad_means": "square"}
_PROCESSORS["llavanext"] = _PROCESSORS["clip"] | {"do_pad_means": "batch"}
_RESAMPLES: dict[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Steps that this preprocessing takes; any other that a file asks for is refused rather than left out.
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}


def vision_model_types() -> tuple[str, ...]:
    """Every ``model_type`` that `read_vision_config` knows, sorted."""
    return tuple(sorted(_FAMILIES))


def read_vision_config(raw: Mapping[str, Any], *, tensors: Mapping[str, tuple[int, ...]] | None = None) -> VisionConfig:
    """The tower of a config.json, or the one inside it under ``vision_config``.

    Args:
        raw: the configuration of a tower, or of a model with one.
        tensors: names, without the tower's prefix, and shapes of what the checkpoint holds: which heads there are is
            not written in config.json. None: those that the family's plain model has.

    Raises:
        UnknownFamilyError: its model type is not one that we know.
        CheckpointError: a field is missing or is not what its name calls for.
    """
    inner = raw.get("vision_config")
    tower: Mapping[str, Any] = inner if isinstance(inner, Mapping) else raw
    kind = tower.get("model_type", raw.get("model_type"))
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        given = f"model_type = {ascii(kind)[:80]}"
        expected = f"one of {', '.join(vision_model_types())}"
        raise UnknownFamilyError(
            "config.json names no image network that Sensorium knows.", given=given, expected=expected
        )
    fields = _DEFAULTS[family] | {name: value for name, value in tower.items() if value is not None}
    return VisionConfig(**_shared(family, fields), **_particular(family, fields), **_heads(family, fields, tensors))


def _shared(family: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    epsilon = fields["layer_norm_eps"]
    if not isinstance(epsilon, (int, float)):
        raise CheckpointError("config.json: layer_norm_eps is no number.", given=ascii(epsilon)[:80])
    patch = _square(fields, "patch_size")
    if family == "siglip2":
        side = _whole_root(fields["num_patches"])
        image = side * patch
    else:
        image = _square(fields, "image_size")
    return {
        "family": family,
        "hidden_size": fields["hidden_size"],
        "layers": fields["num_hidden_layers"],
        "heads": fields["num_attention_heads"],
        "mlp_size": fields["intermediate_size"],
        "patch_size": patch,
        "image_size": image,
        "channels": fields.get("num_channels", 3),
        "activation": read_activation(fields["hidden_act"]),
        "norm_epsilon": float(epsilon),
    }


def read_activation(name: object) -> Any:
    """What `VisionConfig.activation` calls an activation of config.json.

    Raises:
        CheckpointError: none that we know.
    """
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise CheckpointError("config.json: unknown activation.", given=ascii(name)[:80], expected=sorted(_ACTIVATIONS))
    return _ACTIVATIONS[name]


def _particular(family: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    if family == "vit":
        return {"class_token": True, "pooling": "class", "qkv_bias": bool(fields.get("qkv_bias", True))}
    if family == "clip":
        return {
            "class_token": True,
            "first_norm": True,
            "patch_bias": False,
            "final_norm": "pooled",
            "pooling": "class",
        }
    if family == "idefics3":
        return {"positions": "fractional"}
    pooling = "attention" if fields.get("vision_use_head", True) else "none"
    return {"pooling": pooling} | ({"linear_patches": True, "positions": "resized"} if family == "siglip2" else {})


def _heads(family: str, fields: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]] | None) -> dict[str, Any]:
    """Sizes of the heads that the checkpoint holds: one class's directory has a classifier, another's a pooler."""
    if tensors is None:
        size = fields.get("pooler_output_size") or fields["hidden_size"]
        return {"pooler_size": size} if family == "vit" else {}
    names = {"pooler_size": "pooler.dense.weight", "labels": "classifier.weight"} if family == "vit" else {}
    if family == "clip":
        names = {"projection_size": "visual_projection.weight"}
    return {field: tensors[name][0] for field, name in names.items() if tensors.get(name)}


def _square(fields: Mapping[str, Any], name: str) -> int:
    value = fields[name]
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        expected = "one positive number, or two that are equal"
        raise CheckpointError(f"config.json: {name} is no usable size.", given=ascii(value)[:80], expected=expected)
    return value


def _whole_root(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 16:
        root = round(value**0.5)
        if root * root == value:
            return root
    raise CheckpointError("config.json: num_patches is no square number.", given=ascii(value)[:80])


def read_preprocess_config(raw: Mapping[str, Any] | None, config: VisionConfig | None) -> PreprocessConfig:
    """The steps that a preprocessor_config.json asks for.

    Args:
        raw: the file, or None if there is none: the family's usual steps at the network's own size.
        config: of the network; says what fields that the file leaves out mean if the file's own name for its kind does
            not, which it must where this is None.

    Raises:
        CheckpointError: a field is not what its name calls for, or asks for a step that we do not know.
    """
    given = {name: value for name, value in (raw or {}).items() if value is not None}
    kind = str(given.get("image_processor_type", given.get("feature_extractor_type", "")))
    named = re.sub(r"(ImageProcessor|FeatureExtractor|(?<=Video)Processor)(Fast|Pil)?$", "", kind).lower()
    fields = _PROCESSORS[named if config is None or named in _PROCESSORS else config.family]
    if raw is None and config is not None:
        fields = fields | _own_size(config)
    fields = fields | given
    known = _STEPS | ({"do_pad"} if "do_pad_means" in fields else set())
    unknown = sorted(name for name in given if name.startswith("do_") and name not in known and given[name] is True)
    if unknown:
        problem = "preprocessor_config.json asks for steps that Sensorium does not know."
        raise CheckpointError(problem, given=", ".join(unknown)[:200], expected=", ".join(sorted(known)))
    normalised = fields.get("do_normalize", True)
    return PreprocessConfig(
        square=_colour(fields) if fields.get("do_pad") and fields.get("do_pad_means") == "square" else None,
        **(_size(fields) if fields.get("do_resize", True) else {}),
        crop=_crop(fields["crop_size"]) if fields.get("do_center_crop") else None,
        resample=_resample(fields["resample"]),
        scale=_number(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 1.0,
        mean=_channels(fields, "image_mean") if normalised else (0.0, 0.0, 0.0),
        std=_channels(fields, "image_std") if normalised else (1.0, 1.0, 1.0),
    )


def _colour(fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """The mean as a colour of a raw image."""
    red, green, blue = (int(value * 255) for value in _channels(fields, "image_mean"))
    return red, green, blue


def _own_size(config: VisionConfig) -> dict[str, Any]:
    if config.family == "siglip2":
        return {"patch_size": config.patch_size, "max_num_patches": config.side * config.side}
    if config.family == "clip":
        return {"size": {"shortest_edge": config.image_size}, "crop_size": config.image_size}
    return {"size": config.image_size}


def _size(fields: Mapping[str, Any]) -> dict[str, Any]:
    if "max_num_patches" in fields:
        return {"most_patches": fields["max_num_patches"], "patch_size": fields["patch_size"]}
    size = fields["size"]
    if "merge_size" in fields and isinstance(size, Mapping):
        return {"budget": _budget(fields, size)}
    if isinstance(size, int):
        return {"height": size, "width": size} if fields["square"] else {"shortest_edge": size}
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return {"height": size[0], "width": size[1]}
    if isinstance(size, Mapping) and set(size) in ({"height", "width"}, {"shortest_edge"}):
        return dict(size)
    expected = "height and width, or shortest_edge"
    raise CheckpointError("preprocessor_config.json: unknown size.", given=ascii(size)[:80], expected=expected)


def _budget(fields: Mapping[str, Any], size: Mapping[str, Any]) -> PixelBudget:
    """Of Qwen2-VL's files: older ones name the pixels, newer ones call them edges."""
    whole = {name: fields[name] for name in ("patch_size", "merge_size")}
    whole["least"] = fields.get("min_pixels", size.get("shortest_edge"))
    whole["most"] = fields.get("max_pixels", size.get("longest_edge"))
    wrong = {name: value for name, value in whole.items() if type(value) is not int}
    if wrong:
        raise CheckpointError("preprocessor_config.json: a size is no whole number.", given=ascii(wrong)[:80])
    return PixelBudget(least=whole["least"], most=whole["most"], unit=whole["patch_size"] * whole["merge_size"])


def _crop(size: object) -> tuple[Any, Any]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return size[0], size[1]
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return size["height"], size["width"]
    raise CheckpointError("preprocessor_config.json: unknown crop_size.", given=ascii(size)[:80])


def _resample(code: object) -> Resample:
    found = _RESAMPLES.get(code) if isinstance(code, int) else None
    if found is None:
        expected = ", ".join(f"{number} ({name})" for number, name in _RESAMPLES.items())
        raise CheckpointError("preprocessor_config.json: unknown resample.", given=ascii(code)[:80], expected=expected)
    return found


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError("preprocessor_config.json: a field is no number.", given=ascii(value)[:80])
    return float(value)


def _channels(fields: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    values = fields[name]
    if isinstance(values, (int, float)):
        values = (values,) * 3
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise CheckpointError(f"preprocessor_config.json: {name} needs three numbers.", given=ascii(values)[:80])
    first, second, third = map(_number, values)
    return first, second, third
