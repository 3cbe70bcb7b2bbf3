"""One of two ranks on separate hosts; run by test_ring_hosts.py.

python ring_host_worker.py ADDRESS RANK RANKS TEXT
"""

from __future__ import annotations

import json
import socket
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from sensorium import sdk
from sensorium.fusion import parallel
from sensorium.sdk.generation import Generation

LENGTH, NEW = 1_009, 12  # tokens


def main() -> None:
    """Prints what both ranks found together, what this one finds alone, and what network it has."""
    address, rank, ranks, text = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    model = sdk.load("nano", device="cpu", dtype="float32")
    prompt = model.tokenizer.encode(text.read_text(encoding="utf-8"))[:LENGTH]
    options = sdk.GenerationOptions(max_new_tokens=NEW, min_new_tokens=NEW)

    def continued() -> list[int]:
        (result,) = Generation(model.engine, model.tokenizer, [prompt], options).results()
        return list(result.tokens)

    timeout = timedelta(seconds=300)
    dist.init_process_group("gloo", init_method=f"tcp://{address}", rank=rank, world_size=ranks, timeout=timeout)
    with parallel():
        together = continued()
    dist.destroy_process_group()
    interfaces = [name for _, name in socket.if_nameindex()]
    print(json.dumps({"together": together, "alone": continued(), "interfaces": interfaces}))


if __name__ == "__main__":
    main()
