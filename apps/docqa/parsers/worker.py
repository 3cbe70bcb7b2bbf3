"""The helper process for documents: a file becomes blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ....sdk.helper import Bounds, Reply, serve
from ..document import DocumentLimits
from .parse import damaged_document, parse

__all__ = ["main"]


def main() -> None:
    """Works until standard input ends."""
    serve(_handle, _bounds, damaged_document)


def _bounds(request: dict[str, Any]) -> Bounds:
    return Bounds(request["limits"]["seconds"], request["limits"]["memory_bytes"])


def _handle(request: dict[str, Any]) -> Reply:
    limits = DocumentLimits(**request["limits"])
    blocks = parse(Path(request["path"]).read_bytes(), request["kind"], request["name"], limits)
    body = json.dumps([[block.kind, block.text, block.page, block.level] for block in blocks]).encode()
    return Reply({"bytes": len(body)}, [body])
