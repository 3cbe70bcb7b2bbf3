"""A Whisper in CTranslate2's layout, seen under transformers' names.

CTranslate2 stacks the query, key and value projections into one; here each is its rows again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import CheckpointError, UnknownFamilyError
from .config import AudioConfig, audio_config
from .ctranslate2_file import CTranslate2File

__all__ = ["CTranslate2Whisper"]

_SPECIFICATION = "WhisperSpec"
_NORM = {"weight": "gamma", "bias": "beta"}
_LINEAR = {"weight": "weight", "bias": "bias"}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Part `part` of `parts` equal ones of a variable."""

    variable: str
    part: int = 0
    parts: int = 1


class CTranslate2Whisper:
    """The tensors of a CTranslate2 Whisper, named as in transformers' `WhisperForConditionalGeneration`.

    A `TensorFile`, so `encoders.storage.load_weights` reads from it.

    Args:
        file: closed by `close`.

    Raises:
        UnknownFamilyError: it is another kind of model.
        CheckpointError: its variables are not a Whisper's.
    """

    def __init__(self, file: CTranslate2File) -> None:
        if file.specification != _SPECIFICATION:
            given, expected = ascii(file.specification)[:80], _SPECIFICATION
            raise UnknownFamilyError(f"{file.name} is another kind of model.", given=given, expected=expected)
        self._file = file
        self._rows = {name: rows for name, rows in _layout(file) if rows.variable in file.shapes}
        self._shapes = {name: _shape(file, name, rows) for name, rows in self._rows.items()}

    @property
    def name(self) -> str:
        """The file's name."""
        return self._file.name

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return self._shapes

    @property
    def config(self) -> AudioConfig:
        """The encoder's shape, from those of its tensors.

        Raises:
            CheckpointError: a tensor that tells it is missing or of no possible shape.
        """
        convolution = self._dimensions("model.encoder.conv1.weight", 3)
        fields = {"d_model": convolution[0], "num_mel_bins": convolution[1]}
        fields["max_source_positions"] = self._dimensions("model.encoder.embed_positions.weight", 2)[0]
        fields["encoder_layers"] = self.layers("encoder")
        fields["encoder_attention_heads"] = self.heads("encoder")
        fields["encoder_ffn_dim"] = self._dimensions("model.encoder.layers.0.fc1.weight", 2)[0]
        return audio_config({"model_type": "whisper", **fields})

    def layers(self, part: str) -> int:
        """How many layers ``encoder`` or ``decoder`` has."""
        names = (name.split(".") for name in self._shapes)
        return len({name[3] for name in names if name[1] == part and name[2] == "layers"})

    def heads(self, part: str) -> int:
        """How many attention heads ``encoder`` or ``decoder`` has."""
        return int(self._file.scalar(f"{part}/num_heads"))

    def dtype(self, name: str) -> str:
        """The stored element type."""
        return self._file.dtype(self._rows[name].variable)

    def read(self, name: str, destination: Tensor) -> None:
        """Writes a tensor into `destination` of the same shape."""
        rows = self._rows[name]
        first = rows.part * destination.shape[0]
        self._file.read_rows(rows.variable, destination, first)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _dimensions(self, name: str, rank: int) -> tuple[int, ...]:
        shape = self._shapes.get(name)
        if shape is None or len(shape) != rank:
            given = "no such tensor" if shape is None else list(shape)
            raise CheckpointError(f"{self.name}: {name} is not a Whisper's.", given=given, expected=f"{rank} sizes")
        return shape


def _shape(file: CTranslate2File, name: str, rows: _Rows) -> tuple[int, ...]:
    shape = file.shapes[rows.variable]
    if not shape or shape[0] % rows.parts:
        expected = f"rows for {rows.parts} projections"
        raise CheckpointError(f"{file.name}: {name} cannot be split off.", given=list(shape), expected=expected)
    return (shape[0] // rows.parts, *shape[1:])


def _layout(file: CTranslate2File) -> Iterator[tuple[str, _Rows]]:
    """Their variable for each of our names, whether or not it is there."""
    for part in ("encoder", "decoder"):
        yield f"model.{part}.embed_positions.weight", _Rows(f"{part}/position_encodings/encodings")
        yield from _both(f"model.{part}.layer_norm", f"{part}/layer_norm", _NORM)
        for number in _layer_numbers(file, part):
            yield from _layer(f"model.{part}.layers.{number}", f"{part}/layer_{number}", cross=part == "decoder")
    for number in (1, 2):
        yield from _both(f"model.encoder.conv{number}", f"encoder/conv{number}", _LINEAR)
    yield "model.decoder.embed_tokens.weight", _Rows("decoder/embeddings/weight")


def _layer_numbers(file: CTranslate2File, part: str) -> list[int]:
    start = f"{part}/layer_"
    found = {name.removeprefix(start).split("/")[0] for name in file.shapes if name.startswith(start)}
    return sorted(int(number) for number in found if number.isdecimal() and number.isascii())


def _layer(ours: str, theirs: str, *, cross: bool) -> Iterator[tuple[str, _Rows]]:
    yield from _both(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm", _NORM)
    yield from _projections(f"{ours}.self_attn", f"{theirs}/self_attention/linear_0", "qkv")
    yield from _both(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1", _LINEAR)
    if cross:
        yield from _both(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm", _NORM)
        yield from _projections(f"{ours}.encoder_attn", f"{theirs}/attention/linear_0", "q")
        yield from _projections(f"{ours}.encoder_attn", f"{theirs}/attention/linear_1", "kv")
        yield from _both(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2", _LINEAR)
    yield from _both(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm", _NORM)
    yield from _both(f"{ours}.fc1", f"{theirs}/ffn/linear_0", _LINEAR)
    yield from _both(f"{ours}.fc2", f"{theirs}/ffn/linear_1", _LINEAR)


def _projections(ours: str, theirs: str, letters: str) -> Iterator[tuple[str, _Rows]]:
    for part, letter in enumerate(letters):
        yield f"{ours}.{letter}_proj.weight", _Rows(f"{theirs}/weight", part, len(letters))
        if letter != "k":  # stored as zeros; a bias on keys changes no softmax
            yield f"{ours}.{letter}_proj.bias", _Rows(f"{theirs}/bias", part, len(letters))


def _both(ours: str, theirs: str, names: Mapping[str, str]) -> Iterator[tuple[str, _Rows]]:
    for name, stored in names.items():
        yield f"{ours}.{name}", _Rows(f"{theirs}/{stored}")
