"""One GGUF file is enough: weights, tokenizer and chat template, against the directory that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from sensorium import sdk
from sensorium.fusion.checkpoints import load_decoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from .gguf_files import SIZES, Original, metadata_of, random_model, tensors_of, write

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n")]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = [*BYTES, *("".join(pair) for pair in MERGES), "<|im_start|>", "<|im_end|>"]
START, END = len(VOCABULARY) - 2, len(VOCABULARY) - 1
FIELDS = SIZES | {"vocab_size": len(VOCABULARY), "num_hidden_layers": 2, "eos_token_id": END, "head_dim": 10}
FIELDS["max_position_embeddings"] = 256
KEYS: dict[str, Any] = {
    "rope.dimension_count": 10,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": VOCABULARY,
    "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
    "tokenizer.ggml.token_type": [*[gguf.TokenType.NORMAL] * START, *[gguf.TokenType.CONTROL] * 2],
    "tokenizer.ggml.eos_token_id": END,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}
CHAT = "The thin cat (the fat one) sat in the çöl, 漢字 👩‍👧!\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """A directory with everything in it."""
    made = random_model(tmp_path_factory.mktemp("original"), "Llama", **FIELDS)
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(VOCABULARY)}, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(made.directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, "eos_token": "<|im_end|>"}
    (made.directory / "tokenizer_config.json").write_text(json.dumps(config))
    return made


@pytest.fixture(scope="module")
def file(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    metadata = metadata_of(original.config) | KEYS
    folder = tmp_path_factory.mktemp("alone")
    return write(folder / "tiny.gguf", "llama", metadata, tensors_of(original, gguf.MODEL_ARCH.LLAMA))


def test_the_file_answers_as_the_directory(original: Original, file: Path) -> None:
    ours, theirs = sdk.load(file), sdk.load(original.directory)
    assert ours.encode(CHAT) == theirs.encode(CHAT)
    options: dict[str, Any] = {"max_new_tokens": 24, "min_new_tokens": 24}
    for drawn in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 5}):
        given, expected = ours.ask(CHAT, **options, **drawn), theirs.ask(CHAT, **options, **drawn)
        assert given.tokens == expected.tokens
        assert given.text == expected.text
        assert len(set(given.tokens)) > 1


def test_the_chat_is_that_of_transformers_on_the_same_file(file: Path) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    chat = [{"role": "user", "content": CHAT}]
    expected = oracle.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    given = sdk.load(file).tokenizer.encode_chat(chat, add_generation_prompt=True)
    assert given == expected
    assert given.count(START) == 2 and given.count(END) == 1
    assert VOCABULARY.index("the") in given and VOCABULARY.index("Ġthe") in given


def test_the_file_says_what_it_is_without_being_loaded(file: Path) -> None:
    info = sdk.describe(file)
    assert "llama" in str(info).lower()
    assert info.parameters == sum(parameter.numel() for parameter in load_decoder(file).parameters())


def test_a_model_from_a_file_is_saved_as_a_directory(file: Path, tmp_path: Path) -> None:
    model = sdk.load(file)
    model.save(tmp_path / "saved")
    again = sdk.load(tmp_path / "saved")
    assert again.encode(CHAT) == model.encode(CHAT)
    assert again.ask(CHAT, max_new_tokens=9).tokens == model.ask(CHAT, max_new_tokens=9).tokens


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1], ids=lambda kind: kind.name)
def test_quantized_files_answer_with_what_they_hold(kind: Kind, tmp_path: Path) -> None:
    """The logits are those of the dequantized weights, and near those of the original."""
    fields = FIELDS | {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "head_dim": 32}
    made = random_model(tmp_path / "original", "Llama", **fields)
    tensors = tensors_of(made, gguf.MODEL_ARCH.LLAMA)
    metadata = metadata_of(made.config) | KEYS | {"rope.dimension_count": 32}
    file = write(tmp_path / "tiny.gguf", "llama", metadata, tensors, kinds=lambda name: kind)
    held = {
        name: torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), kind), kind))
        if tensor.ndim == 2
        else tensor
        for name, tensor in ((name, tensor.contiguous()) for name, tensor in tensors.items())
    }
    plain = write(tmp_path / "plain.gguf", "llama", metadata, held)
    tokens = torch.randint(0, END, (2, 19), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        given, expected = load_decoder(file, dtype=torch.float32)(tokens), load_decoder(plain)(tokens)
        assert torch.equal(given, expected)
        far = float((given - made.model(tokens).logits).norm() / made.model(tokens).logits.norm())
    assert 1e-7 < far < (0.05 if kind in (Kind.F16, Kind.BF16, Kind.Q8_0) else 0.5)
    assert sdk.describe(file).parameters == made.model.num_parameters()


def test_logits_that_are_not_numbers_are_an_error_of_the_engine(original: Original, tmp_path: Path) -> None:
    """A file with weights that are not numbers loads; what cannot be computed with them is said when it is asked."""
    tensors = tensors_of(original, gguf.MODEL_ARCH.LLAMA)
    tensors["blk.1.attn_q.weight"][3, 4] = torch.nan
    path = write(tmp_path / "nan.gguf", "llama", metadata_of(original.config) | KEYS, tensors)
    model = sdk.load(path)
    for options in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 5}):
        with pytest.raises(sdk.EngineError):
            model.ask(CHAT, max_new_tokens=3, **options)
    with pytest.raises(sdk.EngineError):
        list(model.stream(CHAT, max_new_tokens=3))


def test_a_file_without_a_tokenizer_is_refused_by_name(original: Original, tmp_path: Path) -> None:
    keys = {name: value for name, value in KEYS.items() if not name.startswith("tokenizer")}
    metadata, tensors = metadata_of(original.config) | keys, tensors_of(original, gguf.MODEL_ARCH.LLAMA)
    path = write(tmp_path / "bare.gguf", "llama", metadata, tensors)
    assert load_decoder(path).config.layers == 2  # the weights alone are a decoder
    with pytest.raises(sdk.TokenizerError):
        sdk.load(path)


def test_a_tokenizer_larger_than_the_model_is_refused(original: Original, tmp_path: Path) -> None:
    tensors = tensors_of(original, gguf.MODEL_ARCH.LLAMA)
    for name in ("token_embd.weight", "output.weight"):
        tensors[name] = tensors[name][:-1]
    path = write(tmp_path / "short.gguf", "llama", metadata_of(original.config) | KEYS, tensors)
    with pytest.raises(sdk.CheckpointError, match="belong together"):
        sdk.load(path)


def test_gemmas_norms_keep_their_precision_in_bfloat16(tmp_path: Path) -> None:
    """The file holds weight + 1, of which bfloat16 would keep but two digits of a small weight."""
    made = random_model(tmp_path / "original", "Gemma", **SIZES | {"head_dim": 10})
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.mul_(0.02)
    made.model.bfloat16().save_pretrained(made.directory)
    tensors = {name: tensor.float() for name, tensor in tensors_of(made, gguf.MODEL_ARCH.GEMMA).items()}
    exact = {name: tensor.float() + 1 for name, tensor in made.tensors().items() if name.endswith("norm.weight")}
    tensors["output_norm.weight"] = exact["model.norm.weight"]
    for layer in range(3):
        for theirs, ours in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            tensors[f"blk.{layer}.{theirs}.weight"] = exact[f"model.layers.{layer}.{ours}.weight"]
    path = write(tmp_path / "g.gguf", "gemma", metadata_of(made.config), tensors, kinds=lambda name: Kind.BF16)
    decoder, theirs = load_decoder(path), dict(made.model.named_parameters())
    assert decoder.dtype == torch.bfloat16
    for name, parameter in decoder.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.allclose(parameter.float(), theirs[name].float(), rtol=0, atol=1e-4), name
        else:
            assert torch.equal(parameter, theirs[name]), name
