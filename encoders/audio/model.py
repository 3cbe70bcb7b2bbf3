"""Whisper's encoder (Radford et al., 2022), which Qwen2-Audio, Voxtral and Ultravox listen through as well.

Parameters are named as in transformers' ``model.encoder.*``.

Legend: B batch, M mel bins, F frames, T features before pooling, S features read by attention, D width, H heads,
d head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidInputError
from .config import FRAMES_PER_FEATURE, AudioConfig

__all__ = ["Attention", "EncoderLayer", "WhisperEncoder", "activation"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that `AudioConfig.activation` names."""
    return _ACTIVATIONS[name]


class Attention(nn.Module):
    """Multi-head attention; keys carry no bias, as adding one to every key changes no softmax.

    Args:
        width: D.
        heads: H, a divisor of D.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each position attends to all, [B, T, D]; `mask`, broadcastable to [B, H, T, T], is added to the scores."""
        return self.attend(x_BTD, *self.keys_values(x_BTD), mask=mask)

    def keys_values(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """What is attended to: keys and values [B, H, S, d]."""
        return self._split(self.k_proj(x_BSD)), self._split(self.v_proj(x_BSD))

    def attend(
        self,
        x_BTD: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Positions [B, T, D] attend to keys and values [B, H, S, d]; `causal` for T = S only."""
        queries = self._split(self.q_proj(x_BTD))
        out_BHTd = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
        return self.out_proj(out_BHTd.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.activation = activation(config.activation)
        self.fc1 = nn.Linear(config.width, config.mlp_size)
        self.fc2 = nn.Linear(config.mlp_size, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] to the same; `mask` as in `Attention`."""
        x_BTD = x_BTD + self.self_attn(self.self_attn_layer_norm(x_BTD), mask)
        x_BTD = x_BTD + self.fc2(self.activation(self.fc1(self.final_layer_norm(x_BTD))))
        if x_BTD.dtype == torch.float16:  # large Whispers overflow it; transformers clamps alike
            limit = torch.finfo(torch.float16).max - 1000
            x_BTD = x_BTD.clamp(-limit, limit)
        return x_BTD


class WhisperEncoder(nn.Module):
    """Two convolutions, of which the second halves the time, and a Transformer.

    Args:
        config: its shape.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.mel_bins, config.width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, kernel_size=3, stride=FRAMES_PER_FEATURE, padding=1)
        self.embed_positions = nn.Embedding(config.positions, config.width)
        self.embed_positions.requires_grad_(requires_grad=False)
        if not self.embed_positions.weight.is_meta:  # arithmetic on the meta device imports torch's compiler: seconds
            with torch.no_grad():
                self.embed_positions.weight.copy_(_sinusoids(config.positions, config.width))
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.layers)])
        self.layer_norm = nn.LayerNorm(config.width)

    def forward(
        self,
        mel_BMF: Tensor,
        *,
        frames: Tensor | None = None,
        attended: Tensor | None = None,
    ) -> Tensor:
        """Features of windows.

        With `frames` and `attended`, a row is what it would be alone::

            frames    ■■■■■···   rows of another batch row's length: · counts as the convolutions' own zero padding
            attended  ■ ■ ■ ·    and is not attended to

        Args:
            mel_BMF: spectrograms [B, M, F], F at most ``2 * positions``. Whisper's own form is exactly that long.
            frames: int64 [B], how many frames of each row exist; None for all.
            attended: int64 [B], how many features of each row are attended to, at least 1; None for all.

        Returns:
            [B, ceil(F / 2) // pool, D]; features past a row's end are of no meaning.

        Raises:
            InvalidInputError: another number of mel bins, or too many frames.
        """
        self._check(mel_BMF)
        x_BDF = F.gelu(self.conv1(mel_BMF.to(self.conv1.weight.dtype)))
        if frames is not None:
            x_BDF = x_BDF * _within(frames, x_BDF.shape[-1])[:, None]
        x_BTD = F.gelu(self.conv2(x_BDF)).transpose(1, 2)
        x_BTD = x_BTD + self.embed_positions.weight[: x_BTD.shape[1]]
        mask = None
        if attended is not None:
            seen = _within(attended, x_BTD.shape[1])[:, None, None]
            mask = torch.zeros_like(seen, dtype=x_BTD.dtype).masked_fill(~seen, -torch.inf)
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask)
        if self.config.pool > 1:
            x_BTD = F.avg_pool1d(x_BTD.transpose(1, 2), self.config.pool).transpose(1, 2)
        return self.layer_norm(x_BTD)

    def _check(self, mel: Tensor) -> None:
        most = self.config.window_frames
        if mel.ndim != 3 or mel.shape[1] != self.config.mel_bins or not 1 <= mel.shape[2] <= most:
            expected = f"[batch, {self.config.mel_bins}, 1..{most}]"
            raise InvalidInputError("Not a spectrogram for this encoder.", given=list(mel.shape), expected=expected)


def _within(lengths: Tensor, size: int) -> Tensor:
    """bool [B, size]: which places of each row lie before its length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _sinusoids(length: int, width: int) -> Tensor:
    """Positions as Whisper lays them out, sines then cosines: [length, width]."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
