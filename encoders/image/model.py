"""One vision Transformer for ViT, CLIP, SigLIP 1 and 2, NaFlex and Idefics 3, with Hugging Face's parameter names.

Legend: B images, C channels, H and W height and width in pixels, P side of a patch, R rows and S columns of patches,
T tokens, D hidden size, N heads, K size of a head, E size of an embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidInputError, UnsupportedInputError
from .config import VisionConfig
from .patches import PatchEmbeddings

__all__ = ["VisionMLP", "VisionTransformer"]


class VisionTransformer(nn.Module):
    """A vision Transformer (Dosovitskiy et al., 2021) and its descendants: CLIP (Radford et al., 2021), SigLIP (Zhai et
    al., 2023), SigLIP 2 (Tschannen et al., 2025) and the tower of Idefics 3 (Laurençon et al., 2024).

    Images of any size: the table of positions is resized to their grid of patches, see `VisionConfig.positions`.

    Args:
        config: its shape.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        size, epsilon = config.hidden_size, config.norm_epsilon
        self.embeddings = PatchEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(size, eps=epsilon) if config.first_norm else None  # spelled as in checkpoints
        self.encoder = _Encoder(config)
        self.post_layernorm = nn.LayerNorm(size, eps=epsilon)
        self.head = _ProbeHead(config) if config.pooling == "attention" else None
        self.pooler = _Pooler(size, config.pooler_size) if config.pooler_size else None
        projection = config.projection_size
        self.visual_projection = nn.Linear(config.hidden_size, projection, bias=False) if projection else None
        self.classifier = nn.Linear(size, config.labels) if config.labels else None

    @property
    def feature_size(self) -> int:
        """D."""
        return self.config.hidden_size

    def forward(
        self,
        pixels: Tensor,
        *,
        patch_mask: Tensor | None = None,
        grids: Tensor | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Features of images of one size, or of different sizes with padding.

        Args:
            pixels: [B, C, H, W]; or packed patches [B, T, P · P · C] of `pack_patches`, with `grids`.
            patch_mask: bool [B, R, S] for images padded at the right and below: where they are. See `PatchLayout`.
            grids: int64 [B, 2]: rows and columns of each image's packed patches.
            layer: None for the network's own output, normed where the family does so; else one of the hidden states,
                which are not: 0 is what enters the first layer, -1 what leaves the last, -2 the one before (LLaVA).

        Returns:
            [B, T, D], the class token first where there is one. What stands at padding means nothing.

        Raises:
            InvalidInputError: no such layer, an image smaller than a patch, or a mask of another shape.
        """
        last = self.config.layers
        stop = last if layer is None else layer + last + 1 if layer < 0 else layer
        if not 0 <= stop <= last:
            raise InvalidInputError("There is no such layer.", given=layer, expected=f"{-last - 1}..{last}")
        features, mask = self._embedded(pixels, patch_mask, grids)
        for block in self.encoder.layers[:stop]:
            features = block(features, mask)
        return self._finished(features) if layer is None else features

    def hidden_states(
        self, pixels: Tensor, *, patch_mask: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Every hidden state [B, T, D]: what enters the first layer, then what leaves each; arguments as `forward`."""
        features, mask = self._embedded(pixels, patch_mask, grids)
        states = [features]
        for block in self.encoder.layers:
            states.append(block(states[-1], mask))
        return tuple(states)

    def pooled(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """What stands for the whole image.

        Args:
            features: [B, T, D], from `forward` with ``layer=None``.
            mask: bool [B, T], which are real; None for all. Only a probe's attention looks at others than the first.

        Returns:
            [B, D]; or what the pooler's tanh layer makes of it.

        Raises:
            UnsupportedInputError: this network has nothing of the kind.
        """
        if self.head is not None:
            return self.head(features, mask)
        if self.config.pooling == "none":
            raise UnsupportedInputError("This network has no output for a whole image.", given=self.config.family)
        first = features[:, 0]
        first = self.post_layernorm(first) if self.config.final_norm == "pooled" else first
        return first if self.pooler is None else self.pooler(first)

    def embedding(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """The image as one vector [B, E]: `pooled`, projected into the space shared with text where there is one."""
        pooled = self.pooled(features, mask)
        return pooled if self.visual_projection is None else self.visual_projection(pooled)

    def logits(self, features: Tensor) -> Tensor:
        """Of the classifier: features [B, T, D] of `forward` → [B, labels].

        Raises:
            UnsupportedInputError: there is no classifier.
        """
        if self.classifier is None:
            raise UnsupportedInputError("This network has no classifier.", given=self.config.family)
        return self.classifier(features[:, 0])

    def _embedded(
        self, pixels: Tensor, patch_mask: Tensor | None, grids: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        features, mask = self.embeddings(pixels, patch_mask, grids)
        if self.pre_layrnorm is not None:
            features = self.pre_layrnorm(features)
        return features, None if mask is None else mask[:, None, None]  # [B, 1, 1, T]: for all heads and queries

    def _finished(self, features: Tensor) -> Tensor:
        return self.post_layernorm(features) if self.config.final_norm == "all" else features


class _Encoder(nn.Module):
    """Gives the layers their place in the names."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))


class _Layer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.self_attn = _Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.mlp = VisionMLP(config.hidden_size, config.mlp_size, config.activation)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        size, bias = config.hidden_size, config.qkv_bias
        self.heads = config.heads
        self.q_proj = nn.Linear(size, size, bias=bias)
        self.k_proj = nn.Linear(size, size, bias=bias)
        self.v_proj = nn.Linear(size, size, bias=bias)
        self.out_proj = nn.Linear(size, size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.out_proj(_attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), mask, self.heads))


class VisionMLP(nn.Module):
    """Two linear layers with an activation between.

    Args:
        size: D.
        middle: width between them.
        activation: as `VisionConfig.activation`.
    """

    def __init__(self, size: int, middle: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(size, middle)
        self.fc2 = nn.Linear(middle, size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        x = self.fc1(x)
        if self.activation == "quick_gelu":
            return self.fc2(x * torch.sigmoid(1.702 * x))
        return self.fc2(F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class _Pooler(nn.Module):
    """ViT's tanh layer over the class token."""

    def __init__(self, size: int, pooled: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, pooled)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x))


class _ProbeHead(nn.Module):
    """SigLIP's pooling: a learned probe attends to all tokens, then an MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.attention = _ProbeAttention(config.hidden_size, config.heads)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_epsilon)
        self.mlp = VisionMLP(config.hidden_size, config.mlp_size, config.activation)
        nn.init.normal_(self.probe, std=config.hidden_size**-0.5)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        probe = self.probe.expand(len(features), 1, -1)
        x = self.attention(probe, features, None if mask is None else mask[:, None, None])
        return (x + self.mlp(self.layernorm(x)))[:, 0]


class _ProbeAttention(nn.Module):
    """Attention with one tensor for the three projections, as torch's `MultiheadAttention` stores it."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * size, size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * size))
        self.out_proj = nn.Linear(size, size)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, probe: Tensor, features: Tensor, mask: Tensor | None) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        sources = (probe, features, features)
        q, k, v = (F.linear(x, *parts) for x, *parts in zip(sources, weights, biases, strict=True))
        return self.out_proj(_attend(q, k, v, mask, self.heads))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """q [B, t, D], k and v [B, T, D], mask bool [B, 1, 1, T] → [B, t, D]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B, N, T, K]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
