"""Opens a bundle and runs it: numpy, onnxruntime and tokenizers are all that it needs."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, EngineError, OptionError
from ..encoders.storage import listed
from ..encoders.text import Tokenizer
from .adapters import ADAPTER_SUFFIX, check_adapter, read_adapter
from .bundle import Manifest, check_files, read_manifest
from .decoder_runner import DecoderRunner, DecoderShape, RunnerState, open_session

__all__ = [
    "DECODER",
    "EMBEDDING",
    "ENCODERS",
    "MEDIA_DECODER",
    "MEDIA_PROMPTS",
    "MEDIA_SCORING",
    "PROMPTS",
    "SCORING",
    "Bundle",
    "read_bundle",
]

#: Roles of graphs in a manifest: of the next token alone, and of all positions.
DECODER, SCORING = "decoder", "scoring"
#: What reads long prompts in place of the decoder, of tokens and of embeddings.
PROMPTS, MEDIA_PROMPTS = "prompts", "media-prompts"
#: The same for embeddings rather than tokens, and the table that turns tokens into them.
MEDIA_DECODER, MEDIA_SCORING, EMBEDDING = "media-decoder", "media-scoring", "embedding"
#: Graphs that run once for an item, or for each frame or half minute of it.
ENCODERS = ("image", "image-resize", "audio-spectrum", "audio-encoder", "clip")
_SCORED = 256  # positions whose logits are computed in one pass; bounds memory
_SIZES = ("layers", "kv_heads", "head_size", "vocabulary_size", "context_length")


def read_bundle(path: Path) -> Manifest:
    """The manifest of a bundle, which describes a decoder; its files are not looked at.

    Raises:
        CheckpointError: it is no bundle, of a newer format, or its decoder is not described.
        IntegrityError: the manifest is not as it was written.
    """
    manifest = read_manifest(path)
    missing = [name for name in _SIZES if name not in manifest.decoder]
    if missing or DECODER not in manifest.graphs:
        given = ", ".join(missing) or f"no {DECODER}"
        hint = "it embeds texts: sdk.load_embedder" if "text-encoder" in manifest.graphs else None
        raise CheckpointError("The manifest does not describe a decoder.", given=given, hint=hint)
    bits = manifest.decoder.get("cache_bits", 32)
    if bits not in (8, 32):
        raise CheckpointError("Keys and values of so many bits are not kept here.", given=bits, expected="8 or 32")
    return manifest


class Bundle:
    """An exported bundle. Graphs are opened when they are first needed.

    Args:
        path: its directory.
        threads: that it computes with; None for ``OMP_NUM_THREADS``, or one a core that this process may use.
        adapter: name of one that is beside it, or a file with the ending ``.onnx_adapter``; None for none.

    Raises:
        CheckpointError: it is no bundle, of a newer format, or incomplete; or the file is no adapter.
        OptionError: it has no such adapter.
        IntegrityError: a file is not the one that was exported. Sizes of all files and the content of all but the
            weights are compared; `verify` compares the weights too.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        adapter: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_bundle(self.path)
        check_files(self.path, self.manifest, all_of_them=False)
        self._threads = threads
        self._sessions: dict[str, Any] = {}
        self._tokenizer: Tokenizer | None = None
        self._adapter_file = None if adapter is None else self._found(adapter)
        self._adapter = {} if self._adapter_file is None else read_adapter(self._adapter_file)

    def _found(self, adapter: str | os.PathLike[str]) -> Path:
        """The file of an adapter by its name, or where it lies."""
        named = self.manifest.adapters.get(str(adapter))
        path = Path(adapter) if named is None else self.path / named
        if path.suffix != ADAPTER_SUFFIX or not path.is_file():
            raise OptionError(
                "The bundle has no such adapter.",
                given=str(adapter),
                expected=listed([*self.manifest.adapters, f"a file FILE{ADAPTER_SUFFIX}"]),
                hint="sensorium export MODEL OUT --adapter-beside DIR writes a LoRA directory beside a bundle",
            )
        return path

    @property
    def shape(self) -> DecoderShape:
        """Sizes of the decoder."""
        sizes = {name: self.manifest.decoder[name] for name in _SIZES}
        return DecoderShape(**sizes, cache_bits=self.manifest.decoder.get("cache_bits", 32))

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_directory(self.path)
        return self._tokenizer

    def decoder(self) -> DecoderRunner:
        """Gives the logits of the next token."""
        return self._runner(DECODER, PROMPTS)

    def scoring(self) -> DecoderRunner:
        """Gives the logits after every token.

        Raises:
            CheckpointError: the bundle was made without this graph.
        """
        return self._runner(SCORING)

    def media_decoder(self) -> DecoderRunner:
        """As `decoder`, for embeddings, and with the adapter for the rows that want it.

        Raises:
            CheckpointError: the bundle reads text alone.
        """
        return self._runner(MEDIA_DECODER, MEDIA_PROMPTS)

    def media_scoring(self) -> DecoderRunner:
        """As `scoring`, for embeddings; raises as `media_decoder`."""
        return self._runner(MEDIA_SCORING)

    def scores(self, state: RunnerState, new: NDArray) -> NDArray[np.float32]:
        """Appends to a state of one row: int64 [1, T] or float32 [1, T, D] → the logits [T, V] after every position.

        A bundle without a graph for it reads one position at a time.

        Raises:
            CheckpointError: embeddings, and the bundle reads text alone.
            EngineError: the graph failed.
        """
        if new.ndim == 3:
            runner, count = self.media_scoring(), _SCORED
        elif SCORING in self.manifest.graphs:
            runner, count = self.scoring(), _SCORED
        else:
            runner, count = self.decoder(), 1
        parts = [runner.step(state, new[:, first:last])[0] for first, last in state.passes(new.shape[1], count)]
        return np.concatenate(parts)

    @property
    def reads_media(self) -> bool:
        """Whether `media_decoder` is open."""
        return MEDIA_DECODER in self._sessions

    def release(self, *roles: str) -> None:
        """Lets go of graphs' memory; they are opened again when they are needed."""
        for role in roles:
            self._sessions.pop(role, None)

    def embeddings(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The decoder's embeddings of tokens: int64 [...] → float32 [..., hidden size].

        Raises:
            CheckpointError: the bundle reads text alone.
            EngineError: the graph failed.
        """
        session = self.session(EMBEDDING)
        try:
            (found,) = session.run(None, {"input_ids": tokens.reshape(1, -1)})
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise EngineError("The embeddings' graph failed.", given=str(error)[:300]) from error
        return found.reshape(*tokens.shape, found.shape[-1])

    def session(self, role: str) -> Any:
        """The session of a graph, opened when it is first needed.

        Raises:
            CheckpointError: the bundle was made without this graph, or it is damaged.
        """
        if role not in self._sessions:
            if role not in self.manifest.graphs:
                raise CheckpointError(f"This bundle has no {role} graph.", given=", ".join(self.manifest.graphs))
            path, often = self.path / self.manifest.graphs[role], role not in ENCODERS
            self._sessions[role] = open_session(path, threads=self._threads, keeps_memory=often)
        return self._sessions[role]

    def _runner(self, role: str, prompts: str = "") -> DecoderRunner:
        session = self.session(role)
        if self._adapter_file is not None:
            inputs = {entry.name: entry.shape for entry in session.get_overridable_initializers()}
            check_adapter(self._adapter_file, self._adapter, inputs)
        reads = partial(self._runner, prompts) if prompts in self.manifest.graphs else None
        return DecoderRunner(session, self.shape, self._adapter, reads)
