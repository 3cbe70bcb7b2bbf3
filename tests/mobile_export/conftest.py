"""Small bundles that several of these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from sensorium import sdk
from sensorium.sdk.testing import byte_tokenizer

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1600,
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that reads bytes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = byte_tokenizer()
    tokenizer.save(folder)
    torch.manual_seed(7)
    config = transformers.LlamaConfig(vocab_size=tokenizer.vocabulary_size, tie_word_embeddings=True, **SIZES)
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of that model, with 4-bit weights."""
    out = tmp_path_factory.mktemp("bundles") / "int4"
    sdk.export(checkpoint, out, quant="int4")
    return out
