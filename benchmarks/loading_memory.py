"""What loading takes at its peak, as a multiple of the model's bytes, beside `transformers`.

    python -m benchmarks.loading_memory [--layers 24]

Each load runs in a process of its own and is followed by one token, so that weights which were only mapped are read.
What the process held before, imports and all, is not counted. Checkpoints: `nano`'s GGUF file (4 bits a weight on the
disk), and a synthetic Llama in bfloat16 safetensors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .measure import in_own_process, peak_memory, print_table

_WIDTH = 1024  # of the synthetic model: about 12 million weights a layer


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24, help="of the synthetic model")
    parser.add_argument("--load", nargs=3, metavar=("ENGINE", "PATH", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(_load(*arguments.load)))
        return
    from sensorium.sdk.hub import resolve

    with tempfile.TemporaryDirectory() as folder:
        _write_synthetic(Path(folder), arguments.layers)
        rows = []
        for name, path in (("nano, GGUF", resolve("nano")), ("synthetic, safetensors", Path(folder))):
            for dtype in ("bfloat16", "float32"):
                found = {engine: _measured(engine, path, dtype) for engine in ("sensorium", "transformers")}
                peaks = [f"{run['peak'] / run['model']:.2f}×" for run in found.values()]
                seconds = [f"{run['seconds']:.1f}" for run in found.values()]
                rows.append((name, dtype, f"{found['sensorium']['model'] / 1e6:.0f} MB", *peaks, *seconds))
    header = ("checkpoint", "loaded as", "model", "Sensorium", "transformers", "seconds", "transformers' seconds")
    print_table(header, rows)


def _measured(engine: str, path: Path, dtype: str) -> dict[str, Any]:
    return in_own_process("benchmarks.loading_memory", "--load", engine, str(path), dtype)


def _load(engine: str, path: str, dtype: str) -> dict[str, int]:
    """Bytes of the loaded model, and by how much the peak of this process rose."""
    import torch

    loader = {"sensorium": _sensorium, "transformers": _transformers}[engine](Path(path), getattr(torch, dtype))
    before = peak_memory()
    with torch.inference_mode():
        model = loader()
        model(torch.tensor([[1]]))
    held = {parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}
    return {"peak": peak_memory() - before, "model": sum(held.values())}


def _sensorium(path: Path, dtype: Any) -> Callable[[], Any]:
    from sensorium.fusion.checkpoints import load_decoder

    return lambda: load_decoder(path, dtype=dtype)


def _transformers(path: Path, dtype: Any) -> Callable[[], Any]:
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    is_file = path.is_file()
    where, options = (path.parent, {"gguf_file": path.name}) if is_file else (path, {})
    return lambda: LlamaForCausalLM.from_pretrained(where, dtype=dtype, **options)


def _write_synthetic(folder: Path, layers: int) -> None:
    """A Llama of random weights in two shards."""
    import torch
    from sensorium.encoders.storage import materialise, shapes_only
    from sensorium.fusion.checkpoints import save_decoder
    from sensorium.fusion.config import DecoderConfig, Rope
    from sensorium.fusion.decoder import Decoder

    sizes = {"hidden_size": _WIDTH, "mlp_size": 3 * _WIDTH, "vocabulary_size": 32_000, "context_length": 2048}
    heads = {"heads": 16, "kv_heads": 4, "head_size": _WIDTH // 16, "rope": Rope(dimensions=_WIDTH // 16)}
    with shapes_only():
        decoder = Decoder(DecoderConfig(family="llama", layers=layers, **sizes, **heads))  # type: ignore[arg-type]
    materialise(decoder, device="cpu", dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.uniform_(-0.05, 0.05)
    save_decoder(decoder, folder, shard_bytes=sum(parameter.nbytes for parameter in decoder.parameters()) * 2 // 3)


if __name__ == "__main__":
    main()
