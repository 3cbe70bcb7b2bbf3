"""Opens a bundle and runs it: numpy, onnxruntime and tokenizers are all that it needs."""

from __future__ import annotations

import os
from pathlib import Path

from ..encoders.errors import CheckpointError
from ..encoders.text import Tokenizer
from .bundle import Manifest, check_files, read_manifest
from .decoder_runner import DecoderRunner, DecoderShape, open_session

__all__ = ["DECODER", "SCORING", "Bundle"]

#: Roles of graphs in a manifest: of the next token alone, and of all positions.
DECODER, SCORING = "decoder", "scoring"
_SIZES = ("layers", "kv_heads", "head_size", "vocabulary_size", "context_length")


class Bundle:
    """An exported bundle. Graphs are opened when they are first needed.

    Args:
        path: its directory.
        threads: that it computes with; None for one a core that this process may use.

    Raises:
        CheckpointError: it is no bundle, of a newer format, or incomplete.
        IntegrityError: a file is not the one that was exported. Sizes of all files and the content of all but the
            weights are compared; `verify` compares the weights too.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        check_files(self.path, self.manifest, all_of_them=False)
        self._threads = threads
        self._runners: dict[str, DecoderRunner] = {}
        missing = [name for name in _SIZES if name not in self.manifest.decoder]
        if missing or DECODER not in self.manifest.graphs:
            given = ", ".join(missing) or f"no {DECODER}"
            raise CheckpointError("The manifest does not describe a decoder.", given=given)

    @property
    def shape(self) -> DecoderShape:
        """Sizes of the decoder."""
        return DecoderShape(**{name: self.manifest.decoder[name] for name in _SIZES})

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return Tokenizer.from_directory(self.path)

    def decoder(self) -> DecoderRunner:
        """Gives the logits of the next token."""
        return self._runner(DECODER)

    def scoring(self) -> DecoderRunner:
        """Gives the logits after every token.

        Raises:
            CheckpointError: the bundle was made without this graph.
        """
        return self._runner(SCORING)

    def _runner(self, role: str) -> DecoderRunner:
        if role not in self._runners:
            if role not in self.manifest.graphs:
                raise CheckpointError(f"This bundle has no {role} graph.", given=", ".join(self.manifest.graphs))
            session = open_session(self.path / self.manifest.graphs[role], threads=self._threads)
            self._runners[role] = DecoderRunner(session, self.shape)
        return self._runners[role]
