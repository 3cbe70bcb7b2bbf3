"""The decoder's logits for short prompts of different lengths that all begin alike, several times faster than padded.

What all rows begin with (the chat template's system message) is computed once, and no padding is. Positions that see
each other, P = 2 of the beginning and rows of 3 and 1::

        p p | a a a | b
    p   x . | . . . | .
    p   x x | . . . | .
    a   x x | x . . | .
    a   x x | x x . | .
    a   x x | x x x | .
    b   x x | . . . | x

Legend: P positions of the beginning, N all positions in one line, the beginning's first, B rows, T the longest row,
H heads, K key and value heads, G heads to a key, d head size, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...fusion.decoder import Block, Decoder

__all__ = ["Layer", "Rows", "layer", "ragged_logits"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows lie in the line of all positions.

    Attributes:
        beginning: P.
        places: int64 [B, T], place in the line of each row's positions; 0 for padding.
        there: bool [B, T], what is no padding.
        back: int64 [rows' positions], where each lies in ``there`` laid flat.
        hidden: bool [T, T], true where a position must not be seen.
    """

    beginning: int
    places: Tensor
    there: Tensor
    back: Tensor
    hidden: Tensor

    @classmethod
    def of(cls, beginning: int, lengths: Sequence[int]) -> Rows:
        """Of rows of `lengths`, one after another behind the beginning."""
        there = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        places = torch.zeros(there.shape, dtype=torch.int64)
        places[there] = torch.arange(beginning, beginning + sum(lengths))
        longest = max(lengths)
        back = there.flatten().nonzero()[:, 0]
        return cls(beginning, places, there, back, torch.ones(longest, longest, dtype=torch.bool).triu(1))

    def positions(self) -> Tensor:
        """Of each place in the line: [N]."""
        own = torch.arange(self.there.shape[1]).expand_as(self.there)[self.there] + self.beginning
        return torch.cat((torch.arange(self.beginning), own))


def layer(block: Block, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: Rows) -> Tensor:
    """One layer of the decoder for all positions [N, D] → [N, D]; it may be compiled.

    Args:
        block: with norms before attention and MLP.
        hidden: the residual stream.
        rotary: cosines and sines of all positions.
        rows: where they lie.
    """
    hidden = hidden + _attended(block, block.input_layernorm(hidden), rotary, rows)
    return hidden + block.mlp(block.post_attention_layernorm(hidden))


Layer = Callable[[Block, Tensor, tuple[Tensor, Tensor], Rows], Tensor]


def ragged_logits(
    decoder: Decoder, beginning: Tensor, rows: Sequence[Tensor], asked: Sequence[int], *, layer: Layer = layer
) -> Tensor:
    """Logits [sum of asked, V] that predict the last `asked` positions of each row.

    Args:
        decoder: of Llama's kind: rotary positions, norms before attention and MLP, every layer sees the whole past.
        beginning: embeddings [P, D] that stand before every row.
        rows: embeddings [length, D] of each.
        asked: how many last positions of each row are predicted: the answer's tokens.
        layer: `layer`, or what ``torch.compile`` makes of it, which halves the time of long training.
    """
    lengths = [len(row) for row in rows]
    places = Rows.of(len(beginning), lengths)
    hidden = torch.cat((beginning, *rows))
    rotary = _rotary(decoder, places.positions(), hidden)
    for block in decoder.model.layers:
        assert isinstance(block, Block), "layers are blocks"
        hidden = layer(block, hidden, rotary, places)
    ends = (len(beginning) + torch.tensor(lengths).cumsum(0)).tolist()
    wanted = [end - 1 - left for end, count in zip(ends, asked, strict=True) for left in range(count, 0, -1)]
    norm, table = decoder.model.norm, decoder.model.embed_tokens.weight
    last = hidden[wanted]
    last = last if norm is None else norm(last)
    return last @ table.T if decoder.lm_head is None else decoder.lm_head(last)


def _rotary(decoder: Decoder, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    table = decoder._layer_tables[0]
    assert table is not None, "rotary positions"
    cos, sin = table.at(positions[None], [int(positions.max()) + 1], like)
    return cos, sin


def _attended(block: Block, x: Tensor, rotary: tuple[Tensor, Tensor], rows: Rows) -> Tensor:
    """Attention of one layer for normalised x [N, D] → [N, D]."""
    attention = block.self_attn
    query, key, value = (part.transpose(0, 1) for part in (p[0] for p in attention._project(x[None], rotary)))
    count = rows.beginning
    groups = attention.heads // attention.kv_heads
    query = query.unflatten(0, (attention.kv_heads, groups)) * attention.scale  # [K, G, N, d]
    first = _first(query[:, :, :count], key[:, :count], value[:, :count])
    # [K, G, B, T, d] and [K, B, T, d]
    own = query[:, :, rows.places]
    keys, values = key[:, rows.places], value[:, rows.places]
    shape = own.shape
    before = own.flatten(1, 3) @ key[:, :count].transpose(1, 2)
    before = before.unflatten(1, shape[1:4]).permute(0, 2, 1, 3, 4)  # [K, B, G, T, P]
    within = own.permute(0, 2, 1, 3, 4).flatten(2, 3) @ keys.transpose(2, 3)  # [K, B, G T, T]
    within = within.unflatten(2, (groups, shape[3])).masked_fill(rows.hidden, -torch.inf)
    shares = _shares(torch.cat((before, within), dim=-1))
    out = shares[..., count:].flatten(2, 3) @ values  # [K, B, G T, d]
    out = out + (shares[..., :count].flatten(1, 3) @ value[:, :count]).view_as(out)
    out = (
        out.unflatten(2, (groups, shape[3])).permute(1, 3, 0, 2, 4).flatten(0, 1)[rows.back]
    )  # [rows' positions, K, G, d]
    return attention.o_proj(torch.cat((first, out)).flatten(1))


def _first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of the beginning with itself: [P, K, G, d]."""
    scores = query @ key[:, None].transpose(2, 3)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    shares = _shares(scores.masked_fill(hidden, -torch.inf))
    return (shares @ value[:, None]).permute(2, 0, 1, 3)


def _shares(scores: Tensor) -> Tensor:
    """Softmax in at least float32."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
