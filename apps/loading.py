"""How commands load the model that they are given by name."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from ..sdk import Model, Rolling, load
from ..sdk.hub import resolve
from .terminal import waiting

__all__ = ["Loading", "load_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How a model is run: what `sensorium.sdk.load` takes, as a command line says it.

    Attributes:
        device, dtype, engine, adapter, offload: as of `sensorium.sdk.load`.
        cache: its `cache_precision`.
        rolling: positions in the window of its `rolling`, behind the sinks; None for a text that must end.
        sinks: positions at the beginning of a rolling text that stay.
    """

    device: str = "auto"
    dtype: str | None = None
    engine: str = "auto"
    adapter: str | None = None
    cache: str = "exact"
    rolling: int | None = None
    sinks: int = 4
    offload: str | None = None

    def load(self, name: str, *, quiet: bool) -> Model:
        """The model of that name; raises as `sensorium.sdk.load`."""
        return load(
            name,
            device=self.device,
            dtype=self.dtype,
            engine=self.engine,
            adapter=self.adapter,
            cache_precision=self.cache,
            rolling=None if self.rolling is None else Rolling(self.sinks, self.rolling),
            offload=self.offload,
            quiet=quiet,
        )


def load_model(name: str, loading: Loading | None = None, *, quiet: bool = False, timings: bool = False) -> Model:
    """Fetches a model if need be, and loads it.

    Args:
        name: card name, directory, .gguf file or hub repository.
        loading: how it is run; as the model needs it if not given.
        quiet: show neither progress nor what is waited for.
        timings: tell on standard error how long it took.

    Raises:
        SensoriumError: as `sensorium.sdk.load`.
    """
    resolve(name, quiet=quiet)
    begun = time.perf_counter()
    with waiting(f"Loading {name} …", quiet=quiet):
        loaded = (loading or Loading()).load(name, quiet=quiet)
    if timings:
        print(f"[loaded in {time.perf_counter() - begun:.2f} s]", file=sys.stderr)
    return loaded
