"""Fusion: the shared decoder, its attention, caches and checkpoints. Needs torch."""
