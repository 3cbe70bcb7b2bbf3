"""Loading holds the model once and one tensor beside it: measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

# 280 MB in bfloat16, of which the largest tensor is 33 MB.
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 16_001,
    "hidden_size": 1_024,
    "intermediate_size": 3_072,
    "num_hidden_layers": 9,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
FEWER = CONFIG | {"num_hidden_layers": 2}
SMALL = CONFIG | {"vocab_size": 37, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
LARGEST = 16_001 * 1_024  # weights
SLACK = 12 << 20  # bytes: buffers of a few megabytes, and what the allocator keeps
PROGRAM = """
import json, sys, torch
from pathlib import Path
from sensorium.fusion.checkpoints import load_decoder

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

torch.set_num_threads(1)
out = {}
for name, path, dtype in json.loads(sys.argv[1]):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    decoder = load_decoder(path, dtype=getattr(torch, dtype))
    held = {p.data_ptr(): p.nbytes for p in decoder.parameters()}
    out[name] = {"grown": status("VmHWM") - before, "model": sum(held.values())}
    del decoder, held
print(json.dumps(out))
"""


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of a Llama's tensors, by Hugging Face's names."""
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["hidden_size"] // 16
    kv = head * config["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    found |= {"lm_head.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        found |= {at + f"self_attn.{part}_proj.weight": (width, width) for part in "qo"}
        found |= {at + f"self_attn.{part}_proj.weight": (kv, width) for part in "kv"}
        found |= {at + f"mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        found |= {at + "mlp.down_proj.weight": (width, inner), at + "input_layernorm.weight": (width,)}
        found |= {at + "post_attention_layernorm.weight": (width,)}
    return found


def safetensors_directory(folder: Path, config: dict[str, Any], *, shards: int = 1) -> Path:
    """Zeros, which take no room on the disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    items, where = list(shapes(config).items()), {}
    for shard in range(shards):
        header, offset = {}, 0
        for name, shape in items[shard::shards]:
            size = 2 * prod(shape)
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        file = f"model-{shard}.safetensors" if shards > 1 else "model.safetensors"
        where |= dict.fromkeys(header, file)
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + offset)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def gguf_file(path: Path, config: dict[str, Any], kind: Kind) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    total, (block, size) = 0, gguf.GGML_QUANT_SIZES[kind]
    for name, shape in shapes(config).items():
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs is not None
        one = len(shape) == 1
        nbytes = 4 * shape[0] if one else shape[0] * shape[1] // block * size
        raw = Kind.F32 if one else kind
        stored = shape if one else (shape[0], shape[1] // block * size)
        writer.add_tensor_info(theirs, stored, np.dtype(np.float32 if one else np.uint8), nbytes, raw_dtype=raw)
        total += -(-nbytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        start = -(-path.stat().st_size // 32) * 32
        file.truncate(start + total)
    return path


pytestmark = pytest.mark.slow  # writes and loads a gigabyte in all
CASES = ("safetensors", "shards", "converted", "Q8_0", "Q4_K")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """For each case the bytes of the model, and the most by which the process had grown while it was loaded."""
    folder, runs = tmp_path_factory.mktemp("memory"), []
    for name in CASES:
        half = "float32" if name == "converted" else "bfloat16"
        fewer = name in ("converted", "Q4_K")
        for size, config in (("small", SMALL), ("large", FEWER if fewer else CONFIG)):  # the small one only warms
            path = folder / f"{name}-{size}"
            if name in Kind.__members__:
                gguf_file(path, config, Kind[name])
            else:
                safetensors_directory(path, config, shards=3 if name == "shards" else 1)
            runs.append((name, str(path), half))
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # what is freed goes back at once
    command = [sys.executable, "-c", PROGRAM, json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", CASES)
def test_the_model_is_held_once(name: str, measured: dict[str, dict[str, int]]) -> None:
    grown, model = measured[name]["grown"], measured[name]["model"]
    # Read in place, converted from one tensor, or put in order in copies of one projection.
    beside = {"converted": 2 * LARGEST, "Q8_0": 4 << 20, "Q4_K": 4 << 20}.get(name, 0)
    assert model > (100_000_000 if name == "Q4_K" else 200_000_000)
    assert grown >= 0.95 * model  # the measure sees the model
    assert grown <= model + beside + SLACK
