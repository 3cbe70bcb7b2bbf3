"""What onnxruntime-genai reads of a bundle: ``genai_config.json``."""

from __future__ import annotations

from typing import Any

from ..encoders.text import Tokenizer
from ..fusion.config import DecoderConfig

__all__ = ["genai_config"]


def genai_config(config: DecoderConfig, tokenizer: Tokenizer, length: int, graph: str) -> dict[str, Any]:
    """The configuration of a text model.

    Args:
        config: of the decoder.
        tokenizer: whose ends of turns end an answer.
        length: positions that the graph can hold.
        graph: its file.
    """
    ends = sorted(tokenizer.stop_ids)
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": graph,
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
    search = {"max_length": length, "do_sample": False, "past_present_share_buffer": True}
    return {"model": model, "search": search}


def _number(tokenizer: Tokenizer, found: int | None, ends: list[int]) -> int:
    return found if found is not None else next(iter(ends), 0)
