"""The shared decoder, its attention, caches and checkpoints. Needs torch."""

__all__: list[str] = []
