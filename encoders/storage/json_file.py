"""JSON files of checkpoints. Needs no torch."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

__all__ = ["read_json"]

_LARGEST_JSON = 64 << 20  # bytes


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size.

    Raises:
        CheckpointError: the file is missing, too large, or no JSON object.
    """
    try:
        status = path.stat()
        if status.st_size > _LARGEST_JSON:
            given, expected = f"{status.st_size} bytes", f"at most {_LARGEST_JSON}"
            raise CheckpointError(f"{path.name} is too large.", given=given, expected=expected)
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise CheckpointError(f"{path.name} is not a file.", given=stat.filemode(status.st_mode))
        loaded = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        hint = "give the directory of a checkpoint, or a GGUF file"
        raise CheckpointError(f"There is no {path.name} in {path.parent}.", hint=hint) from error
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path.name} is not valid JSON.", given=error) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path.name} is not a JSON object.", given=type(loaded).__name__)
    return loaded
