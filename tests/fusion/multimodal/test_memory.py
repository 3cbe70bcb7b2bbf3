"""Loading a multimodal checkpoint holds the model once and one tensor beside it: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sensorium.fusion.checkpoints import open_checkpoint
from sensorium.fusion.decoder import Decoder
from sensorium.fusion.families import family_of
from sensorium.fusion.multimodal import multimodal_family
from tokenizers import AddedToken

# 76 MB of tower in bfloat16, in tensors of 2 MB at most; the decoder is small.
WIDER = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
LARGEST = 2048 * 512 * 4  # bytes, in float32
SLACK = 12 << 20  # bytes: buffers of a few megabytes, and what the allocator keeps
PROGRAM = """
import json, sys, torch
from pathlib import Path
from sensorium import sdk

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

torch.set_num_threads(1)
warm, folder = sys.argv[1:]
sdk.load(warm, device="cpu")
out = {}
for dtype in ("bfloat16", "float32"):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    model = sdk.load(folder, dtype=dtype, device="cpu")
    out[dtype] = status("VmHWM") - before
    del model
print(json.dumps(out))
"""


@pytest.fixture
def folders(tiny_tokenizer: Any, tower: dict[str, Any], text: dict[str, Any], tmp_path: Path) -> tuple[Path, Path]:
    """A tiny and a larger LLaVA of zeros in bfloat16."""
    words = tiny_tokenizer(AddedToken("<image>", special=True, normalized=False))
    paths = (tmp_path / "tiny", tmp_path / "larger")
    for path, sizes in zip(paths, ({}, WIDER), strict=True):
        words.save_pretrained(path)
        vision = {"model_type": "clip_vision_model"} | tower | sizes
        number = words.convert_tokens_to_ids("<image>")
        raw = {"model_type": "llava", "vision_config": vision, "text_config": text, "image_token_index": number}
        (path / "config.json").write_text(json.dumps(raw))
        save_file(zeros(raw), path / "model.safetensors")
    return paths


def zeros(raw: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor that a configuration calls for."""
    family = multimodal_family(raw)
    assert family is not None
    bare = family.text_config(raw)
    config = family_of(bare).read(bare)
    with torch.device("meta"):
        decoder, media = Decoder(config), family.modules(raw, config)
    shapes = {f"language_model.{name}": tensor for name, tensor in decoder.named_parameters()} | media.state_dict()
    return {name: torch.zeros(tensor.shape, dtype=torch.bfloat16) for name, tensor in shapes.items()}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the highest use of memory")
def test_loading_holds_one_model_and_one_tensor(folders: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    checkpoint = open_checkpoint(folders[1])
    weights = checkpoint.parameters
    checkpoint.close()
    grown = json.loads(done.stdout)
    assert grown["bfloat16"] <= 2 * weights + LARGEST + SLACK, grown
    assert grown["float32"] <= 4 * weights + LARGEST + SLACK, grown
