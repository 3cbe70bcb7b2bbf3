"""One of three processes that continue a long text with the default model; run by test_ring_generation.py.

python ring_generation_worker.py STORE RANK RANKS TEXT
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from sensorium import sdk
from sensorium.fusion import parallel
from sensorium.sdk.generation import Generation

LENGTH, NEW = 4_003, 8  # tokens


def main() -> None:
    """Prints the tokens that ranks 0 and 1 found together, rank 2 alone, and all three together."""
    store, rank, ranks, text = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    timeout = timedelta(seconds=300)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timeout)
    pair = dist.new_group([0, 1])
    model = sdk.load("nano", device="cpu", dtype="float32")
    prompt = model.tokenizer.encode(Path(text).read_text(encoding="utf-8") * 4)[:LENGTH]
    options = sdk.GenerationOptions(max_new_tokens=NEW, logprobs=3)

    def continued() -> dict[str, object]:
        (result,) = Generation(model.engine, model.tokenizer, [prompt], options).results()
        assert result.logprobs is not None
        return {
            "prompt": len(prompt),
            "tokens": result.tokens,
            "logprobs": [[one for _, one in token.top] for token in result.logprobs],
        }

    with parallel(pair) if rank < 2 else nullcontext():
        first = continued()
    with parallel():
        both = continued()
    print(json.dumps([first, both]), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
