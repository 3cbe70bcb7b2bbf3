"""A torch module as a part of a graph, operator by operator: what it computes is said once, in torch.

`program.py` traces the module, `writer.py` goes over the operators, and each of them becomes the one of ONNX with the
same meaning, or a few, by a table: `arithmetic.py`, `shapes.py` or `layers.py`.
"""

from .program import Argument, write_traced

__all__ = ["Argument", "write_traced"]
