"""ONNX graphs of decoders and encoders."""

from .builder import Graph
from .decoder import DecoderGraph, decoder_graph, embedding_graph
from .pictures import picture_graph
from .sounds import SoundGraphs
from .weights import WeightFile

__all__ = ["DecoderGraph", "Graph", "SoundGraphs", "WeightFile", "decoder_graph", "embedding_graph", "picture_graph"]
