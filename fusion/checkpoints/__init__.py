"""Checkpoints on disk: Hugging Face directories and GGUF files in, Hugging Face directories out."""

from .load import Checkpoint, load_checkpoint, load_decoder, load_media, open_checkpoint
from .save import save_decoder

__all__ = ["Checkpoint", "load_checkpoint", "load_decoder", "load_media", "open_checkpoint", "save_decoder"]
