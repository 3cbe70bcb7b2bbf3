"""Weight files on disk, and modules to read them into.

Names are imported where they are first used, so that JSON files can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .building import materialise, shapes_only, without_initialisation
    from .directory import tensor_files
    from .json_file import read_json
    from .module_weights import load_weights
    from .naming import is_tensor_name, listed, shortened
    from .pickle_file import PickleFile
    from .safetensors_file import SafetensorsFile
    from .tensor_file import TensorFile, holds_weights

__all__ = [
    "PickleFile",
    "SafetensorsFile",
    "TensorFile",
    "holds_weights",
    "is_tensor_name",
    "listed",
    "load_weights",
    "materialise",
    "read_json",
    "shapes_only",
    "shortened",
    "tensor_files",
    "without_initialisation",
]

_HOMES = {
    "PickleFile": "pickle_file",
    "SafetensorsFile": "safetensors_file",
    "TensorFile": "tensor_file",
    "holds_weights": "tensor_file",
    "is_tensor_name": "naming",
    "listed": "naming",
    "load_weights": "module_weights",
    "materialise": "building",
    "read_json": "json_file",
    "shapes_only": "building",
    "shortened": "naming",
    "tensor_files": "directory",
    "without_initialisation": "building",
}

__getattr__ = lazy_names(__name__, _HOMES)
