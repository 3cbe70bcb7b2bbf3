"""Whisper's own decoder (Radford et al., 2022): features to text tokens, with a cache of keys and values.

The published baseline beside which a multimodal model's hearing is measured, and useful by itself: `transcriber.py`.
Parameters are named as in transformers' ``model.decoder.*``; the output head is the embedding table.

Legend: B batch, T new tokens, P tokens before them, S features listened to, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InvalidInputError
from .model import Attention, activation

__all__ = ["DecoderCache", "DecoderLayer", "LayerCache", "WhisperDecoder", "WhisperDecoderConfig"]

_MOST = {"vocabulary_size": 1 << 20, "width": 1 << 15, "layers": 256, "heads": 1024, "mlp_size": 1 << 18}
_MOST |= {"positions": 1 << 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperDecoderConfig:
    """The decoder's shape; the defaults are Whisper tiny.en's.

    Attributes:
        vocabulary_size, width, layers, heads, mlp_size: the usual sizes; ``width % heads == 0``.
        positions: tokens of one window, the prompt included.
        activation: as in `AudioConfig`.

    Raises:
        InvalidInputError: a size is out of range.
    """

    vocabulary_size: int = 51_864
    width: int = 384
    layers: int = 4
    heads: int = 6
    mlp_size: int = 1536
    positions: int = 448
    activation: str = "gelu"

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise InvalidInputError(f"The decoder's {name} is out of range.", given=value, expected=f"1..{most}")
        if self.width % self.heads:
            given = f"width {self.width}, heads {self.heads}"
            raise InvalidInputError("The decoder's width must divide among its heads.", given=given)


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, [B, heads, positions or S, head size]."""

    keys: Tensor
    values: Tensor
    heard_keys: Tensor
    heard_values: Tensor


@dataclass(slots=True)
class DecoderCache:
    """What a decoder remembers of one window.

    Attributes:
        layers: of each layer.
        length: P, tokens read so far.
    """

    layers: list[LayerCache]
    length: int = 0


class DecoderLayer(nn.Module):
    """Pre-norm causal attention, attention to what is heard, and MLP."""

    def __init__(self, config: WhisperDecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.encoder_attn = Attention(config.width, config.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.width)
        self.activation = activation(config.activation)
        self.fc1 = nn.Linear(config.width, config.mlp_size)
        self.fc2 = nn.Linear(config.mlp_size, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: Tensor, cache: LayerCache, past: int) -> Tensor:
        """[B, T, D] to the same after `past` tokens; T is 1 unless `past` is 0. Writes into the cache."""
        normed, end = self.self_attn_layer_norm(x_BTD), past + x_BTD.shape[1]
        cache.keys[:, :, past:end], cache.values[:, :, past:end] = self.self_attn.keys_values(normed)
        keys, values = cache.keys[:, :, :end], cache.values[:, :, :end]
        x_BTD = x_BTD + self.self_attn.attend(normed, keys, values, causal=past == 0)
        normed = self.encoder_attn_layer_norm(x_BTD)
        x_BTD = x_BTD + self.encoder_attn.attend(normed, cache.heard_keys, cache.heard_values)
        return x_BTD + self.fc2(self.activation(self.fc1(self.final_layer_norm(x_BTD))))


class WhisperDecoder(nn.Module):
    """The decoder with its tied head.

    Args:
        config: its shape.
    """

    def __init__(self, config: WhisperDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.width)
        self.embed_positions = nn.Embedding(config.positions, config.width)
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.layers)])
        self.layer_norm = nn.LayerNorm(config.width)

    def listen(self, features_BSD: Tensor) -> DecoderCache:
        """A fresh cache: the features' keys and values are computed once for the whole window.

        Args:
            features_BSD: the encoder's [B, S, D], padding included, as Whisper hears it.
        """
        size = self.config.width // self.config.heads
        shape = (features_BSD.shape[0], self.config.heads, self.config.positions, size)
        layers: list[LayerCache] = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            heard = layer.encoder_attn.keys_values(features_BSD)
            layers.append(LayerCache(features_BSD.new_empty(shape), features_BSD.new_empty(shape), *heard))
        return DecoderCache(layers)

    def forward(self, tokens_BT: Tensor, cache: DecoderCache) -> Tensor:
        """Logits [B, T, V] of the tokens after these; the cache grows by T.

        Args:
            tokens_BT: int64 [B, T]; any number at the beginning, one at a time afterwards.
            cache: of `listen`.

        Raises:
            InvalidInputError: more tokens than positions are left, or several after the beginning.
        """
        past, count = cache.length, tokens_BT.shape[1]
        if past + count > self.config.positions or (past and count > 1):
            expected = f"1 at a time, {self.config.positions} in all"
            raise InvalidInputError(
                "Too many tokens for the decoder.", given=f"{count} after {past}", expected=expected
            )
        x_BTD = self.embed_tokens(tokens_BT) + self.embed_positions.weight[past : past + count]
        for layer, remembered in zip(self.layers, cache.layers, strict=True):
            x_BTD = layer(x_BTD, remembered, past)
        cache.length += count
        return F.linear(self.layer_norm(x_BTD), self.embed_tokens.weight)
