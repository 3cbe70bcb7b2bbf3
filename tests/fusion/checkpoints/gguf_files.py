"""Writes GGUF files as llama.cpp's conversion does, with the `gguf` package's own writer and table of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from torch import Tensor

VOCABULARY = 37
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_CONFIGS = {"Gemma3": "Gemma3TextConfig"}
_TURNED = (gguf.MODEL_ARCH.LLAMA, gguf.MODEL_ARCH.SMOLLM3)
_OFFSET = (gguf.MODEL_ARCH.GEMMA, gguf.MODEL_ARCH.GEMMA2, gguf.MODEL_ARCH.GEMMA3)
_EXPERT = "model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight"


@dataclass(frozen=True, slots=True)
class Original:
    """A random model of `transformers`, and the directory that it was saved in."""

    model: Any
    directory: Path

    @property
    def config(self) -> Any:
        return self.model.config

    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.directory / "model.safetensors")


def write(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    kinds: Callable[[str], Kind] = lambda name: Kind.F32,
    change: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> Path:
    """One GGUF file.

    Args:
        path: of the file.
        architecture: its name in the file.
        metadata: keys behind ``<architecture>.``, or whole ones where they begin with ``general`` or ``tokenizer``.
        tensors: by GGUF's names.
        kinds: how each is stored; what has one dimension, or rows that are not whole blocks, stays float32.
        change: adds more to the writer.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if value is None:
            continue
        name = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        _add(writer, name, value)
    for name, tensor in tensors.items():
        kind, array = kinds(name), tensor.float().contiguous().numpy()
        if tensor.ndim < 2 or tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Kind.F32
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def metadata_of(config: Any) -> dict[str, Any]:
    """What llama.cpp's conversion keeps of a configuration; each family's own keys are added by its case."""
    heads = getattr(config, "head_dim", None)
    ropes = getattr(config, "rope_parameters", None) or {}
    rope = ropes.get("full_attention", ropes)
    return {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None),
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        "attention.layer_norm_epsilon": getattr(config, "layer_norm_epsilon", None),
        "attention.key_length": heads,
        "attention.value_length": heads,
        "rope.freq_base": rope.get("rope_theta"),
        "expert_count": getattr(config, "num_local_experts", None),
        "expert_used_count": getattr(config, "num_experts_per_tok", None),
        "vocab_size": config.vocab_size,
    }


def tensors_of(original: Original, architecture: gguf.MODEL_ARCH, *, split_experts: bool = False) -> dict[str, Tensor]:
    """The model's tensors under GGUF's names and in its layout."""
    config, found = original.config, original.tensors()
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    found |= _stacked_experts(found, config, split=split_experts)
    out = {}
    for name, tensor in found.items():
        if name.startswith("blk."):
            out[name] = tensor
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        out[theirs] = _laid_out(name, tensor, architecture, config)
    return out


def _laid_out(name: str, tensor: Tensor, architecture: gguf.MODEL_ARCH, config: Any) -> Tensor:
    if architecture in _TURNED and "q_proj" in name:
        return interleaved(tensor, config.num_attention_heads)
    if architecture in _TURNED and "k_proj" in name:
        return interleaved(tensor, config.num_key_value_heads)
    if architecture in _OFFSET and name.endswith("norm.weight"):
        return tensor + 1
    if architecture == gguf.MODEL_ARCH.GPT2 and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.T
    return tensor


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows i and i + d / 2 of each head become neighbours, as llama.cpp rotates them."""
    first, second = rows.unflatten(0, (heads, 2, -1)).unbind(1)
    return torch.stack((first, second), dim=2).reshape(rows.shape)


def _stacked_experts(found: dict[str, Tensor], config: Any, *, split: bool) -> dict[str, Tensor]:
    """Takes the experts out of `found`; gives them as one tensor a layer, or as older files have them."""
    out: dict[str, Tensor] = {}
    for layer in range(config.num_hidden_layers if getattr(config, "num_local_experts", None) else 0):
        for part, theirs in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
            experts = range(config.num_local_experts)
            all_of = [found.pop(_EXPERT.format(layer=layer, expert=expert, part=part)) for expert in experts]
            if split:
                out |= {f"blk.{layer}.ffn_{theirs}.{expert}.weight": all_of[expert] for expert in experts}
            else:
                out[f"blk.{layer}.ffn_{theirs}_exps.weight"] = torch.stack(all_of)
    return out


def random_model(folder: Path, prefix: str, **fields: Any) -> Original:
    """A model of `transformers` with random weights, saved in `folder`."""
    config = getattr(transformers, _CONFIGS.get(prefix, f"{prefix}Config"))(**fields)
    config._attn_implementation = config._experts_implementation = "eager"
    torch.manual_seed(1)
    model = getattr(transformers, prefix + ("LMHeadModel" if prefix == "GPT2" else "ForCausalLM"))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return Original(model, folder)
