"""Attention: which positions see which, and exact kernels for it on one device and on many."""

from ...encoders.errors import RankFailure
from .attend import attend
from .biased import ScoreBias
from .decode import decode_attention
from .layout import SeqLayout
from .local import attention, chunked_attention
from .mask import MaskSpec
from .reference import reference_attention
from .ring import ring_attention
from .tiles import Span, Tile, TileKind, plan_tiles

__all__ = [
    "MaskSpec",
    "RankFailure",
    "ScoreBias",
    "SeqLayout",
    "Span",
    "Tile",
    "TileKind",
    "attend",
    "attention",
    "chunked_attention",
    "decode_attention",
    "plan_tiles",
    "reference_attention",
    "ring_attention",
]
