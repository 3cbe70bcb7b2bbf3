"""The on-device bundle: a directory of graphs, weights, tokenizer and proof, and what its manifest says of them."""

from .archive import pack, unpack
from .files import check_files, file_entries, write_json
from .manifest import FORMAT, MANIFEST, FileEntry, Manifest, MediaEntry, read_manifest, write_manifest
from .writing import new_bundle

__all__ = [
    "FORMAT",
    "MANIFEST",
    "FileEntry",
    "Manifest",
    "MediaEntry",
    "check_files",
    "file_entries",
    "new_bundle",
    "pack",
    "read_manifest",
    "unpack",
    "write_json",
    "write_manifest",
]
