"""How commands load the model that they are given by name."""

from __future__ import annotations

import sys
import time

from ..sdk import Model, load
from ..sdk.hub import resolve
from .terminal import waiting

__all__ = ["load_model"]


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str | None = None,
    engine: str = "auto",
    quiet: bool = False,
    timings: bool = False,
) -> Model:
    """Fetches a model if need be, and loads it.

    Args:
        name: card name, directory, .gguf file or hub repository.
        device, dtype, engine: as of `sensorium.sdk.load`.
        quiet: show neither progress nor what is waited for.
        timings: tell on standard error how long it took.

    Raises:
        SensoriumError: as `sensorium.sdk.load`.
    """
    resolve(name, quiet=quiet)
    begun = time.perf_counter()
    with waiting(f"Loading {name} …", quiet=quiet):
        loaded = load(name, device=device, dtype=dtype, engine=engine, quiet=quiet)
    if timings:
        print(f"[loaded in {time.perf_counter() - begun:.2f} s]", file=sys.stderr)
    return loaded
