"""Norms and MLPs of the decoder.

Legend: B batch, T positions, D hidden size, F MLP size, E experts, K active experts, N = B · T.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import DecoderConfig
from .packing import PackedLinears

__all__ = ["MLP", "Experts", "Norm", "activate"]


def activate(x: Tensor, kind: str) -> Tensor:
    """The activation function named by `DecoderConfig.activation`, elementwise."""
    if kind == "silu":
        return F.silu(x)
    if kind == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class Norm(nn.Module):
    """RMS norm or layer norm over the last dimension, computed in at least float32.

    Args:
        config: gives the kind, epsilon, offset and bias.
        size: of the last dimension; the hidden size unless given.
    """

    def __init__(self, config: DecoderConfig, size: int | None = None) -> None:
        super().__init__()
        size = size or config.hidden_size
        self.epsilon = config.norm_epsilon
        self.offset = config.norm_offset
        self.centred = config.norm == "layer"
        self.weight = nn.Parameter(torch.full((size,), 1.0 - self.offset))
        self.bias = nn.Parameter(torch.zeros(size)) if config.norm_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] → the same shape and dtype."""
        shape = x.shape[-1:]
        if self.centred:
            return F.layer_norm(x, shape, self.weight, self.bias, self.epsilon)
        if not self.offset:
            return F.rms_norm(x, shape, self.weight, self.epsilon)
        # weight + 1 would lose bits in bfloat16, so the product is formed in float32 (as Gemma does).
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), shape, self.weight.to(wide) + self.offset, self.epsilon).to(x.dtype)


class MLP(nn.Module):
    """``down(act(gate(x)) * up(x))``, or ``down(act(up(x)))`` without a gate."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        wide, narrow, bias = config.mlp_size, config.hidden_size, config.mlp_bias
        self.activation = config.activation
        self.gate_proj = nn.Linear(narrow, wide, bias=bias) if config.gated_mlp else None
        self.up_proj = nn.Linear(narrow, wide, bias=bias)
        self.down_proj = nn.Linear(wide, narrow, bias=bias)
        self.packed = PackedLinears()

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] → [B, T, D]."""
        if self.gate_proj is None:
            return self.down_proj(activate(self.up_proj(x), self.activation))
        gate, up = self.packed(x, self.gate_proj, self.up_proj)
        return self.down_proj(activate(gate, self.activation) * up)

    def pack(self) -> None:
        """Lets gate and up run as one product; see `PackedLinears`."""
        if self.gate_proj is not None:
            self.packed.pack(self.gate_proj, self.up_proj)


class Experts(nn.Module):
    """A router and E gated MLPs of which each token uses K (Shazeer et al., 2017; Mixtral; Grok-1).

    The experts' weights are stacked: ``gate_proj``, ``up_proj`` [E, F, D] and ``down_proj`` [E, D, F].
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        assert config.experts is not None, "a configuration without experts builds an MLP"
        count, wide, narrow = config.experts.experts, config.mlp_size, config.hidden_size
        self.active, self.renormalise = config.experts.active, config.experts.renormalise
        self.activation = config.activation
        self.router = nn.Linear(narrow, count, bias=False)
        self.gate_proj = nn.Parameter(nn.init.normal_(torch.empty(count, wide, narrow), std=narrow**-0.5))
        self.up_proj = nn.Parameter(nn.init.normal_(torch.empty(count, wide, narrow), std=narrow**-0.5))
        self.down_proj = nn.Parameter(nn.init.normal_(torch.empty(count, narrow, wide), std=wide**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] → [B, T, D]; every token reaches all of its experts, none is dropped for capacity."""
        tokens = x.reshape(-1, x.shape[-1])
        weights, chosen = self._route(tokens)
        out = torch.zeros_like(tokens)
        for expert in chosen.unique().tolist():
            rows, slot = (chosen == expert).nonzero(as_tuple=True)
            answer = self._expert(tokens[rows], expert) * weights[rows, slot, None].to(x.dtype)
            out = out.index_add(0, rows, answer)
        return out.view_as(x)

    def _route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the active experts, each [N, K]."""
        logits = self.router(tokens)
        probabilities = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, chosen = probabilities.topk(self.active, dim=-1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, chosen

    def _expert(self, x: Tensor, expert: int) -> Tensor:
        gate, up = F.linear(x, self.gate_proj[expert]), F.linear(x, self.up_proj[expert])
        return F.linear(activate(gate, self.activation) * up, self.down_proj[expert])
