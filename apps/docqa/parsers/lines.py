"""Collects lines into blocks."""

from __future__ import annotations

from ..document import Block, BlockKind

__all__ = ["LineBlocks"]


class LineBlocks:
    """Blocks made line by line."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._lines: list[str] = []
        self._kind: BlockKind = "paragraph"

    @property
    def open(self) -> bool:
        """Whether a block has begun that the next line may continue."""
        return bool(self._lines)

    def line(self, text: str, kind: BlockKind = "paragraph") -> None:
        """One more line; of another kind than the block so far, it begins a new one."""
        if self._lines and kind != self._kind:
            self.close()
        self._kind = kind
        self._lines.append(text)

    def heading(self, text: str, level: int) -> None:
        """A heading, which is a block of its own."""
        self.close()
        if text.strip():
            self._blocks.append(Block("heading", text.strip(), level=level))

    def close(self) -> None:
        """Ends the block."""
        text = "\n".join(self._lines).strip("\n")
        if text.strip():
            self._blocks.append(Block(self._kind, text))
        self._lines = []

    def done(self) -> list[Block]:
        """All blocks."""
        self.close()
        return self._blocks
