"""Weight files on disk, and modules to read them into."""

from .building import materialise, shapes_only, without_initialisation
from .directory import read_json, tensor_files
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
