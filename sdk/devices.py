"""Devices, dtypes and engines by name."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..encoders.errors import OptionError

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "ENGINES", "check_names", "device_of", "dtype_of", "may_have_accelerator"]

#: Names of the dtypes that models run in.
DTYPES = ("float32", "bfloat16", "float16")
#: What runs a model; ``auto`` is the one that it needs.
ENGINES = ("auto", "torch", "onnx")


def check_names(engine: object, dtype: object) -> None:
    """What can be told before anything is fetched or imported.

    Raises:
        OptionError: an engine or dtype that there is not.
    """
    if engine not in ENGINES:
        raise OptionError("There is no such engine.", given=engine, expected=" or ".join(ENGINES))
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise OptionError("There is no such dtype.", given=dtype, expected=", ".join(DTYPES))


def may_have_accelerator() -> bool:
    """Whether torch could find a device that is faster than the processor; told without importing it."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def device_of(name: str | torch.device) -> torch.device:
    """The device of that name.

    Args:
        name: ``cpu``, ``cuda``, ``mps``; ``auto`` takes an accelerator if there is one.

    Raises:
        OptionError: there is none of that name here.
    """
    import torch

    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.empty(0, device=name).device
        reason = "nothing can be computed there" if device.type == "meta" else None
    except (RuntimeError, AssertionError, TypeError) as error:
        device, reason = None, str(error).partition("\n")[0]
    if device is None or reason is not None:
        raise OptionError("There is no such device here.", given=f"{name}: {reason}", expected="auto, cpu, cuda, mps")
    return device


def dtype_of(asked: str | torch.dtype | None, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or the checkpoint's where the device computes in it.

    Args:
        asked: one of `DTYPES`, or a dtype of torch; None for none.
        stored: the checkpoint's; None for one that is quantized.
        device: that computes.

    Raises:
        OptionError: another dtype.
    """
    import torch

    if asked is not None:
        known = (*(getattr(torch, name) for name in DTYPES), torch.float64)
        found = getattr(torch, asked, None) if isinstance(asked, str) else asked
        if found is None or found not in known:
            raise OptionError("There is no such dtype.", given=asked, expected=", ".join(DTYPES))
        return found
    wanted = stored or torch.bfloat16
    if device.type != "cpu":
        return wanted
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    native = {torch.float32, torch.float64} | ({torch.bfloat16} if has_bfloat16 else set())
    return wanted if wanted in native else torch.float32
