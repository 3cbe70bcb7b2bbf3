"""The shared decoder, its attention, caches and checkpoints. Needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context_parallel import parallel

__all__ = ["parallel"]


def __getattr__(name: str) -> Any:
    """`parallel` is imported where it is first used: the SDK imports parts of this package without torch."""
    if name == "parallel":
        from .context_parallel import parallel

        return parallel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
