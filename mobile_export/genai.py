"""What onnxruntime-genai reads of a bundle: ``genai_config.json``, and how it prepares pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..encoders.image.config import PreprocessConfig
from ..encoders.text import Tokenizer
from ..fusion.config import DecoderConfig
from .media.parts import PictureParts, PiecedPicture
from .runtime import DECODER

__all__ = ["PIPELINE", "PROCESSOR", "TABLE", "TOWER", "genai_config", "has_pipeline", "processor_config"]

#: Roles of the graphs of its pipeline for pictures.
TOWER, TABLE, PIPELINE = "genai-image", "genai-embedding", "genai-decoder"
#: The file that says how it prepares pictures.
PROCESSOR = "genai_processor.json"

# What it writes for a picture, whatever the model's configuration says.
_SLOTS = 256
_WRITTEN = f"\n\n<start_of_image>{'<image_soft_token>' * _SLOTS}<end_of_image>\n\n"
_FILTERS = {"bilinear": "LINEAR", "bicubic": "CUBIC", "lanczos": "LANCZOS"}


def has_pipeline(parts: PictureParts) -> bool:
    """Whether its pipeline for Gemma 3 makes of every picture the prompt and the one part that we make of it.

    Args:
        parts: how pictures are cut and shown.
    """
    if not isinstance(parts, PiecedPicture) or parts.shown.cutting is not None:
        return False
    steps = parts.part.steps
    plain = steps.height is not None and steps.crop is None and steps.square is None
    return plain and steps.resample in _FILTERS and parts.layout(1, 1) == _WRITTEN


def processor_config(steps: PreprocessConfig) -> dict[str, Any]:
    """How pictures are prepared: raw pixels of the tower's size, as floats from 0 to 255; its graph does the rest.

    Args:
        steps: to one size, by a filter that both know; as of parts for which `has_pipeline`.
    """
    size = {"height": steps.height, "width": steps.width, "keep_aspect_ratio": 0}
    operations = {
        "DecodeImage": {"color_space": "RGB"},
        "Resize": size | {"interpolation": _FILTERS[steps.resample]},
        "Rescale": {"rescale_factor": 1.0},
    }
    transforms = [
        {"operation": {"name": kind.lower(), "domain": "com.microsoft.extensions", "type": kind, "attrs": attributes}}
        for kind, attributes in operations.items()
    ]
    return {"processor": {"name": "image_processing", "transforms": transforms}}


def genai_config(config: DecoderConfig, tokenizer: Tokenizer, length: int, graphs: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a model that reads texts, and pictures if there are graphs that do.

    Args:
        config: of the decoder.
        tokenizer: whose ends of turns end an answer.
        length: positions that the graphs can hold.
        graphs: the bundle's, by what they do.
    """
    ends = sorted(tokenizer.stop_ids)
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": graphs[DECODER],
        "head_size": config.head_size,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "llama",  # the plain loop over one graph; the graph itself may be of any family
        "vocab_size": config.vocabulary_size,
        "context_length": length,
        "bos_token_id": _number(tokenizer, tokenizer.bos_id, ends),
        "eos_token_id": ends or [0],
        "pad_token_id": _number(tokenizer, tokenizer.pad_id, ends),
        "decoder": decoder,
    }
    if TOWER in graphs:
        model |= _pipeline(decoder, graphs)
    search = {"max_length": length, "do_sample": False, "past_present_share_buffer": True}
    return {"model": model, "search": search}


def _pipeline(decoder: dict[str, Any], graphs: Mapping[str, str]) -> dict[str, Any]:
    """What a model that reads pictures has otherwise, and besides."""
    features, embeddings = {"image_features": "image_features"}, {"inputs_embeds": "inputs_embeds"}
    inputs = {"pixel_values": "pixel_values"}
    return {
        "type": "gemma3",
        "decoder": decoder | {"filename": graphs[PIPELINE], "inputs": decoder["inputs"] | embeddings},
        "vision": {
            "filename": graphs[TOWER],
            "config_filename": PROCESSOR,
            "inputs": inputs,
            "outputs": features,
        },
        "embedding": {
            "filename": graphs[TABLE],
            "inputs": {"input_ids": "input_ids"} | features,
            "outputs": embeddings,
        },
    }


def _number(tokenizer: Tokenizer, found: int | None, ends: list[int]) -> int:
    return found if found is not None else next(iter(ends), 0)
