"""ONNX graphs of decoders and encoders."""

from .builder import Graph
from .clips import clip_graph
from .decoder import DecoderGraph, decoder_graph, embedding_graph
from .genai import each_picture
from .native_resolution import native_tower_graph
from .pictures import picture_graph
from .resize import resize_graph
from .sounds import SoundGraphs, spectrum_graph
from .towers import listener_graph, tower_graph
from .weights import WeightFile

__all__ = [
    "DecoderGraph",
    "Graph",
    "SoundGraphs",
    "WeightFile",
    "clip_graph",
    "decoder_graph",
    "each_picture",
    "embedding_graph",
    "listener_graph",
    "native_tower_graph",
    "picture_graph",
    "resize_graph",
    "spectrum_graph",
    "tower_graph",
]
