"""Checkpoints on disk: Hugging Face directories and GGUF files in, Hugging Face directories out."""

from .load import Checkpoint, load_checkpoint, load_decoder, load_media, open_checkpoint
from .low_rank import LowRank, low_rank_updates, merge_low_rank
from .save import save_decoder

__all__ = [
    "Checkpoint",
    "LowRank",
    "load_checkpoint",
    "load_decoder",
    "load_media",
    "low_rank_updates",
    "merge_low_rank",
    "open_checkpoint",
    "save_decoder",
]
