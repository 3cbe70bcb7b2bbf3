"""Weight files on disk, and modules to read them into."""

from .building import materialise, shapes_only, without_initialisation
from .directory import read_json, tensor_files
from .module_weights import load_weights
from .pickle_file import PickleFile
from .safetensors_file import SafetensorsFile
from .tensor_file import TensorFile

__all__ = [
    "PickleFile",
    "SafetensorsFile",
    "TensorFile",
    "load_weights",
    "materialise",
    "read_json",
    "shapes_only",
    "tensor_files",
    "without_initialisation",
]
