"""Every error of the SDK; see `encoders.errors`, where they are defined for all layers."""

from ..encoders import errors as _errors
from ..encoders.errors import *  # noqa: F403

__all__ = _errors.__all__  # noqa: PLE0605
