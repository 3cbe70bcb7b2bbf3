"""Small random checkpoints that tests of several packages use."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from sensorium.sdk.testing import byte_tokenizer

__all__ = ["byte_llama"]


def byte_llama(folder: Path) -> Path:
    """Writes a Llama that reads bytes, with weights large enough to choose tokens by."""
    tokenizer = byte_tokenizer()
    tokenizer.save(folder)
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=1600,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder
