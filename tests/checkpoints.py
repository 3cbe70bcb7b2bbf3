"""Small random checkpoints that tests of several packages use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from sensorium.sdk.testing import byte_tokenizer

__all__ = ["LETTERS", "TEXT_ENCODERS", "byte_llama", "save_letters", "text_encoder"]

_SIZES: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 19,
}
_ROBERTA = _SIZES | {"max_position_embeddings": 21, "type_vocab_size": 1, "pad_token_id": 1}
TEXT_ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**_SIZES)),
    "bert-masked": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**_SIZES, hidden_act="gelu_new")),
    "bert-classifier": lambda: transformers.BertForSequenceClassification(
        transformers.BertConfig(**_SIZES, hidden_act="relu", type_vocab_size=3)
    ),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**_ROBERTA)),
    "xlm-roberta": lambda: transformers.XLMRobertaForMaskedLM(transformers.XLMRobertaConfig(**_ROBERTA)),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


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


def text_encoder(name: str, folder: Path) -> Any:
    """Writes a text encoder of `TEXT_ENCODERS` that reads letters; gives the network of `transformers`."""
    torch.manual_seed(7)
    model = TEXT_ENCODERS[name]().eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    save_letters(folder)
    return model.base_model


def save_letters(folder: Path) -> None:
    """A WordPiece tokenizer of letters, with the special tokens of both families at their usual ids."""
    words = ["[PAD]", "<pad>", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in "abcdefgh")]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    backend.enable_truncation(6)  # as sentence-transformers saves it; must not be obeyed
    backend.save(str(folder / "tokenizer.json"))
