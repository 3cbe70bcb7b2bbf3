"""LoRA directories that PEFT writes, merged as checkpoints are read: the logits of PEFT's own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sensorium import sdk
from sensorium.fusion.checkpoints import load_checkpoint, low_rank_updates, merge_low_rank, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")

TOKENS = torch.tensor([[3, 17, 5, 40, 1, 22, 9]])
SIZES = {"vocab_size": 53, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
LLAMA = transformers.LlamaConfig(**SIZES, intermediate_size=56, num_key_value_heads=1)
BASES: dict[str, tuple[Any, list[str]]] = {
    "llama": (LLAMA, ["q_proj", "v_proj", "down_proj"]),
    "a fused matrix": (
        transformers.Phi3Config(**SIZES, intermediate_size=56, num_key_value_heads=1, pad_token_id=0),
        ["qkv_proj", "gate_up_proj"],
    ),
    "stored transposed": (
        transformers.GPT2Config(vocab_size=53, n_embd=48, n_layer=2, n_head=3),
        ["c_attn", "c_fc"],
    ),
}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"r": 5, "lora_alpha": 7},
    "rank-stabilised": {"r": 3, "lora_alpha": 5, "use_rslora": True},
    "patterns": {"r": 4, "rank_pattern": {r"(layers|h)\.0\..*": 2}, "alpha_pattern": {r"(layers|h)\.1\..*": 3.5}},
}


def trained(config: Any, folder: Path, **options: Any) -> Any:
    """A random base in `folder`/base and a random adapter in `folder`/adapter; PEFT's model of both."""
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_config(config).eval()
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder / "adapter")
    return model.eval()


def merged_logits(folder: Path) -> torch.Tensor:
    checkpoint = open_checkpoint(folder / "base")
    try:
        merge_low_rank(checkpoint, folder / "adapter")
        with torch.no_grad():
            return load_checkpoint(checkpoint, dtype=torch.float32)(TOKENS)
    finally:
        checkpoint.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("base", BASES)
def test_a_merged_adapter_gives_the_logits_of_peft(base: str, way: str, tmp_path: Path) -> None:
    config, targets = BASES[base]
    model = trained(config, tmp_path, target_modules=targets, **WAYS[way])
    with torch.no_grad():
        expected = model(TOKENS).logits
        with model.disable_adapter():
            assert (model(TOKENS).logits - expected).abs().max() > 0.01
    assert (merged_logits(tmp_path) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_sum_is_rounded_once(tmp_path: Path) -> None:
    model = trained(LLAMA, tmp_path, target_modules=["o_proj"], r=4, lora_alpha=8)
    whole = model.merge_and_unload().model.layers[1].self_attn.o_proj.weight
    checkpoint = open_checkpoint(tmp_path / "base")
    merge_low_rank(checkpoint, tmp_path / "adapter")
    found = load_checkpoint(checkpoint, dtype=torch.bfloat16).model.layers[1].self_attn.o_proj.weight
    checkpoint.close()
    assert torch.equal(found, whole.bfloat16())


def without_alpha(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": "many"}))


def of_another_kind(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))


def with_dora(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))


def without_half(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, adapter / "adapter_model.safetensors")


def of_another_size(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_A" in name)
    save_file(tensors | {name: torch.zeros(4, 9)}, adapter / "adapter_model.safetensors")


def of_another_layer(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.1", "layers.7"): value for name, value in tensors.items()},
        adapter / "adapter_model.safetensors",
    )


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_alpha, "many"),
        (of_another_kind, "IA3"),
        (with_dora, "DoRA"),
        (without_half, "lora_B"),
        (of_another_size, r"\[32, 9\]|\[48, 9\]"),
        (of_another_layer, r"layers\.7"),
        (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda adapter: (adapter / "adapter_model.safetensors").write_bytes(b"no"), "adapter_model.safetensors"),
    ],
)
def test_what_cannot_be_merged_is_told(damage: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    trained(LLAMA, tmp_path, target_modules=["q_proj"], r=4, lora_alpha=8)
    damage(tmp_path / "adapter")
    with pytest.raises(sdk.SensoriumError, match=told):
        merged_logits(tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("base", BASES)
def test_updates_apart_are_what_would_be_merged(base: str, way: str, tmp_path: Path) -> None:
    config, targets = BASES[base]
    trained(config, tmp_path, target_modules=targets, **WAYS[way])
    checkpoint = open_checkpoint(tmp_path / "base")
    try:
        updates = low_rank_updates(checkpoint, tmp_path / "adapter")
        before = dict(load_checkpoint(checkpoint, dtype=torch.float32).named_parameters())
        merge_low_rank(checkpoint, tmp_path / "adapter")
        after = dict(load_checkpoint(checkpoint, dtype=torch.float32).named_parameters())
    finally:
        checkpoint.close()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == updates.keys()
    for name, update in updates.items():
        torch.testing.assert_close(before[name] + update.up @ update.down, after[name], rtol=0, atol=1e-6)
