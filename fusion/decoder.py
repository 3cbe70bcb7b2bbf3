"""The one decoder-only Transformer behind every family.

Parameter names are those of Hugging Face's Llama (and Gemma's for sandwich norms), so that adapters and checkpoints
find what they know. Legend: B batch, T new positions, S keys, H heads, Hkv key/value heads, d head size, D hidden
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders.errors import ContextLengthError, InvalidInputError, UnsupportedInputError
from .attention import MaskSpec, Span, attention, decode_attention
from .cache import KeyValueCache, LayerCache
from .cache_options import CacheOptions
from .caches import make_cache
from .config import DecoderConfig
from .context_parallel import share_of
from .layers import MLP, Experts, Norm
from .packing import PackedLinears
from .positions import BucketedBias, RelativeBias
from .rolling_cache import RollingCache, RollingLayer, Turns
from .rope import RotaryTable, apply_rope, positions_used
from .share import Share
from .shared_cache import mask_of
from .tiled_cache import TiledLayer

__all__ = ["Block", "Decoder", "SelfAttention"]

_EXACT = CacheOptions()


@dataclass(slots=True)
class _Step:
    """What all layers of one forward pass share."""

    cache: KeyValueCache | None
    rotary: dict[int, tuple[Tensor, Tensor]]  # keyed by id of the table
    visible: dict[str, Tensor | None]  # keyed by attention kind: slots [B, S] that each row may see
    share: Share | None  # this rank's, under `parallel`
    bidirectional: tuple[Span, ...] = ()
    turns: Turns = field(default_factory=dict)  # what the layers of a rolling cache share

    def mask(self, usual: MaskSpec) -> MaskSpec:
        """A layer's mask in this pass."""
        return replace(usual, bidirectional=self.bidirectional) if self.bidirectional else usual


class SelfAttention(nn.Module):
    """Multi-head, grouped-query or multi-query self-attention of one layer."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.kind = layer, config.layer_attention[layer]
        self.heads, self.kv_heads, self.size = config.heads, config.kv_heads, config.head_size
        self.scale, self.softcap = config.scale, config.attention_softcap
        self.mask = mask_of(self.kind, config.layer_window(layer))
        width, kv_width = self.heads * self.size, self.kv_heads * self.size
        self.q_proj = nn.Linear(config.hidden_size, width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=config.output_bias)
        self.q_norm = Norm(config, self.size) if config.qk_norm else None
        self.k_norm = Norm(config, self.size) if config.qk_norm else None
        self.relative = RelativeBias(config) if config.positions == "relative" else None
        self.packed = PackedLinears()

    def forward(
        self, x: Tensor, step: _Step, table: RotaryTable | None = None, shared_bias: BucketedBias | None = None
    ) -> Tensor:
        """x [B, T, D] → [B, T, D].

        Args:
            x: normalised hidden states.
            step: cache, rotary tables and visible slots of this pass.
            table: this layer's rotary embedding, whose cos and sin are in `step`; None for none.
            shared_bias: T5's bias on the scores.
        """
        # A rolling cache turns queries and keys itself, by their places in it.
        rotary = step.rotary.get(id(table)) if table is not None else None
        query, key, value = (part.transpose(1, 2) for part in self._project(x, rotary))
        if self.relative is not None:
            query = self.relative.shift(query)
        bias = self.relative or shared_bias
        if step.share is not None:
            out = self._shared((query, key, value), step, bias)
        elif step.cache is None:
            mask = step.mask(self.mask)
            out = attention(query, key, value, mask, scale=self.scale, softcap=self.softcap, bias=bias)
        else:
            layer = step.cache.layers[self.layer]
            if isinstance(layer, RollingLayer):
                out = self._rolling((query, key, value), layer, step, table)
            else:
                out = self._with_cache((query, key, value), step.cache, step, bias)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def pack(self) -> None:
        """Lets q, k and v run as one product; see `PackedLinears`."""
        self.packed.pack(self.q_proj, self.k_proj, self.v_proj)

    def _project(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, T, heads, d], normalised and rotated."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        whole = self.packed.whole(x, *layers)
        if whole is not None and self.q_norm is None and rotary is not None:
            # One rotation for queries and keys together: half the operators on the way to a token.
            heads = whole.unflatten(-1, (-1, self.size))
            turned = apply_rope(heads[:, :, : self.heads + self.kv_heads], *rotary)
            return turned[:, :, : self.heads], turned[:, :, self.heads :], heads[:, :, self.heads + self.kv_heads :]
        query, key, value = (part.unflatten(-1, (-1, self.size)) for part in self.packed(x, *layers))
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        if rotary is not None:
            query, key = apply_rope(query, *rotary), apply_rope(key, *rotary)
        return query, key, value

    def _shared(
        self, qkv: tuple[Tensor, Tensor, Tensor], step: _Step, bias: RelativeBias | BucketedBias | None
    ) -> Tensor:
        assert step.share is not None, "of a shared pass"
        if bias is not None:
            raise UnsupportedInputError(
                "Positions that act on scores cannot be shared by a group.",
                given=type(bias).__name__,
                hint="use a model with rotary or learned positions, or one process",
            )
        return step.share.attention(self.layer, qkv, step.mask(self.mask), scale=self.scale, softcap=self.softcap)

    def _rolling(
        self, qkv: tuple[Tensor, Tensor, Tensor], layer: RollingLayer, step: _Step, table: RotaryTable | None
    ) -> Tensor:
        assert step.cache is not None, "a pass with a cache"
        options: dict[str, Any] = {"scale": self.scale, "softcap": self.softcap}
        spans = step.bidirectional
        return layer.attention(qkv, step.cache.lengths, table, turns=step.turns, bidirectional=spans, **options)

    def _with_cache(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        cache: KeyValueCache,
        step: _Step,
        bias: RelativeBias | BucketedBias | None,
    ) -> Tensor:
        query, key, value = qkv
        layer = cache.layers[self.layer]
        options: dict[str, Any] = {"scale": self.scale, "softcap": self.softcap}
        if isinstance(layer, TiledLayer):
            if bias is not None:
                hint = "use a model with rotary or learned positions, or an exact cache in memory"
                raise UnsupportedInputError("Positions that act on scores need an exact cache in memory.", hint=hint)
            return layer.attention(qkv, cache.lengths[0], step.mask(self.mask), **options)
        if cache.rows == 1 and (query.shape[2] > 1 or bias is not None):
            keys, values, start = layer.extend(key, value, cache.lengths[0])
            return attention(query, keys, values, step.mask(self.mask), key_start=start, bias=bias, **options)
        keys, values = layer.append(key, value, cache.lengths)
        if bias is None:
            return decode_attention(query, keys, values, visible=step.visible[self.kind], **options)
        # A bias depends on each row's own positions, so rows of different lengths go one by one.
        outs = []
        for row, length in enumerate(cache.lengths):
            keys, values, start = layer.row(row, length + 1)
            one = query[row : row + 1]
            outs.append(attention(one, keys, values, self.mask, key_start=start, bias=bias, **options))
        return torch.cat(outs)


class Block(nn.Module):
    """One layer: attention and MLP with the norms and residuals that the family wants."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.order, self.parallel = config.norm_order, config.parallel_block
        self.self_attn = SelfAttention(config, layer)
        self.mlp = Experts(config) if config.experts else MLP(config)
        self.input_layernorm = Norm(config)
        if not self.parallel:
            self.post_attention_layernorm = Norm(config)
        if self.order == "sandwich":
            self.pre_feedforward_layernorm = Norm(config)
            self.post_feedforward_layernorm = Norm(config)

    def forward(self, x: Tensor, step: _Step, table: RotaryTable | None, shared_bias: BucketedBias | None) -> Tensor:
        """x [B, T, D] → [B, T, D]; the arguments are those of `SelfAttention`."""
        if self.parallel:
            normed = self.input_layernorm(x)
            return x + self.self_attn(normed, step, table, shared_bias) + self.mlp(normed)
        if self.order == "post":
            x = self.input_layernorm(x + self.self_attn(x, step, table, shared_bias))
            return self.post_attention_layernorm(x + self.mlp(x))
        attended = self.self_attn(self.input_layernorm(x), step, table, shared_bias)
        if self.order == "pre":
            x = x + attended
            return x + self.mlp(self.post_attention_layernorm(x))
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class _Body(nn.Module):
    """Everything but the head; it exists so that parameters are called ``model.…`` as in Hugging Face checkpoints."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        learned = config.positions == "learned"
        self.embed_positions = nn.Embedding(config.context_length, config.hidden_size) if learned else None
        self.position_bias = BucketedBias(config) if config.positions == "bucketed" else None
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = Norm(config) if config.final_norm else None


class Decoder(nn.Module):
    """A decoder-only language model.

    Args:
        config: its shape. Build it inside ``torch.device("meta")`` to take no memory.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Body(config)
        self.lm_head = None if config.tied_head else nn.Linear(config.hidden_size, config.vocabulary_size, bias=False)
        tables = {rope: RotaryTable(rope, config.context_length) for rope in (config.rope, config.sliding_rope) if rope}
        ropes = [config.layer_rope(layer) for layer in range(config.layers)]
        self._layer_tables = [tables[rope] if rope else None for rope in ropes]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' element type."""
        return self.model.embed_tokens.weight.dtype

    def new_cache(self, rows: int = 1, *, options: CacheOptions = _EXACT) -> KeyValueCache:
        """An empty key/value cache for `rows` rows; under `parallel` for one, which the ranks share.

        Args:
            rows: at least 1; caches in fewer bits or in a file have one.
            options: how keys and values are kept.

        Raises:
            InvalidInputError, UnsupportedInputError, EngineError: as `make_cache`.
        """
        return make_cache(self.config, rows, options)

    def pack(self) -> None:
        """Lays projections that share an input side by side in memory, for faster inference; results do not change."""
        for block in self.model.layers:
            assert isinstance(block, Block), "layers are blocks"
            block.self_attn.pack()
            if isinstance(block.mlp, MLP):
                block.mlp.pack()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Gives every weight of a copy a storage of its own: a pickle holds a packed one once for each of its views."""
        super().__setstate__(state)
        for parameter in self.parameters():
            if parameter.untyped_storage().nbytes() != parameter.nbytes:
                parameter.data = parameter.data.clone()

    def frequencies_regime(self, length: int) -> tuple[int, ...]:
        """Which rotary frequencies `length` positions use; keys cached under another regime are stale (LongRoPE)."""
        return tuple(sorted({table.regime(length) for table in self._tables()}))

    def _tables(self) -> list[RotaryTable]:
        """The layers' rotary tables, each once."""
        return list({id(table): table for table in self._layer_tables if table}.values())

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → embeddings [B, T, D], scaled as the family wants."""
        embedded = self.model.embed_tokens(tokens)
        factor = self.config.embedding_multiplier
        # The factor is rounded to the weights' dtype first, as Gemma was trained.
        return embedded if factor == 1 else embedded * torch.tensor(factor, dtype=embedded.dtype)

    def forward(
        self,
        tokens: Tensor | None = None,
        *,
        embeddings: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
        bidirectional: Sequence[Span] = (),
        logits: Literal["all", "last"] | Tensor = "all",
    ) -> Tensor:
        """The logits that follow each position; under `parallel` those of this rank's positions.

        Args:
            tokens: ids [B, T]; or `embeddings` [B, T, D] in their place, as `embed` returns them.
            positions: [B, T] for other positions than those that follow the cache's or begin at 0, by which rotary and
                learned embeddings go; who sees whom goes by the order. [3, B, T], a position's time, row and column,
                for a rope with sections.
            cache: past keys and values; the new ones are added to it. One row may bring any T; several rows bring
                one position each.
            bidirectional: spans of places in the text (first, one behind the last), counted with the cache's, whose
                positions also see the later ones of their span, in all rows alike (Gemma 3's pictures). Those outside
                of this pass do not matter.
            logits: for ``all`` T positions, only for the ``last``, or where a bool [B, T] is true: a head over a large
                vocabulary is the most expensive layer, and training needs it at few positions.

        Returns:
            Logits [B, T or 1, V] in the weights' dtype; [chosen positions, V] for a mask.

        Raises:
            InvalidInputError: sizes that do not fit each other, or a bidirectional span that is not read as a whole.
            ContextLengthError: more positions than learned position embeddings.
        """
        given = self._input(tokens, embeddings)
        self._check(given, positions, cache)
        share = share_of(given, cache)
        own = given if share is None else share.of(given)
        hidden = own if tokens is None else self.embed(own)
        step, hidden = self._prepare(hidden, positions, cache, share)
        step.bidirectional = _read_whole(bidirectional, cache, given.shape[1])
        for block, table in zip(self.model.layers, self._layer_tables, strict=True):
            hidden = block(hidden, step, table, self.model.position_bias)
        if share is not None:
            return share.logits(self._head, hidden, logits)
        if cache is not None:
            cache.advance(hidden.shape[1])
        if isinstance(logits, Tensor):
            return self._head(hidden[logits])
        return self._head(hidden if logits == "all" else hidden[:, -1:])

    def _input(self, tokens: Tensor | None, embeddings: Tensor | None) -> Tensor:
        if (tokens is None) == (embeddings is None):
            raise InvalidInputError(
                "A forward pass takes tokens or embeddings.", given="both" if tokens is not None else "neither"
            )
        return tokens if tokens is not None else embeddings  # type: ignore[return-value]

    def _check(self, given: Tensor, positions: Tensor | None, cache: KeyValueCache | None) -> None:
        rows, length, *width = given.shape
        embedded = given.is_floating_point()
        if width != ([self.config.hidden_size] if embedded else []) or not rows or not length:
            raise InvalidInputError(
                "Not an input for this decoder.",
                given=f"{'embeddings' if embedded else 'tokens'} {list(given.shape)}",
                expected=f"[batch, time{f', {self.config.hidden_size}' if embedded else ''}], nothing empty",
            )
        if positions is not None:
            self._check_positions(positions, rows, length)
        if cache is None:
            return
        if positions is not None and isinstance(cache, RollingCache):
            hint = "use another cache for prompts with media of this model"
            raise UnsupportedInputError("A rolling window counts positions itself.", given="positions", hint=hint)
        if cache.rows != rows or (rows > 1 and length > 1):
            raise InvalidInputError(
                "A cache takes one row of any length, or one position for each of its rows.",
                given=f"{rows} rows of {length} positions for a cache of {cache.rows} rows",
                hint="prefill each row alone and join the caches with KeyValueCache.join",
            )

    def _check_positions(self, positions: Tensor, rows: int, length: int) -> None:
        shapes: list[tuple[int, ...]] = [(rows, length)]
        rope = self.config.rope
        if rope is not None and rope.sections:
            shapes.append((len(rope.sections), rows, length))
        if positions.shape not in shapes or positions.dtype not in (torch.int64, torch.int32):
            found = f"{positions.dtype} {list(positions.shape)}"
            expected = f"whole numbers {' or '.join(str(list(shape)) for shape in shapes)}"
            raise InvalidInputError("Positions are one whole number for each token.", given=found, expected=expected)
        if int(positions.min()) < 0:
            raise InvalidInputError("Positions count from zero.", given=int(positions.min()), expected="at least 0")

    def _prepare(
        self, hidden: Tensor, positions: Tensor | None, cache: KeyValueCache | None, share: Share | None
    ) -> tuple[_Step, Tensor]:
        """Positions, rotary tables and visible slots, looked up once for all layers."""
        starts = cache.lengths if cache is not None else [0]
        start, length = min(starts), hidden.shape[1]
        lengths = [held + length for held in starts] if positions is None else positions_used(positions)
        if positions is None and start != max(starts):
            positions = torch.tensor(starts, device=hidden.device)[:, None]
        if share is not None:
            positions, lengths = share.positions(positions)
        stop = max(lengths)
        if self.model.embed_positions is not None:
            hidden = hidden + self._learned(start, length, stop, positions)
        rolling = isinstance(cache, RollingCache)
        rotary = {}
        for table in [] if rolling else self._tables():
            if positions is None:
                rotary[id(table)] = table.slice(start, stop, hidden)
            else:
                rotary[id(table)] = table.at(positions, lengths, hidden)
        visible = {} if share is not None or rolling else self._visible(cache, length, hidden.device)
        return _Step(cache, rotary, visible, share), hidden

    def _learned(self, start: int, length: int, stop: int, positions: Tensor | None) -> Tensor:
        table = self.model.embed_positions
        assert table is not None, "asked only for learned positions"
        if stop > table.num_embeddings:
            raise ContextLengthError(
                "This model has a learned embedding for each position and no more.",
                tokens=stop,
                limit=table.num_embeddings,
                hint="shorten the prompt or choose a model with rotary positions",
            )
        return table.weight[start : start + length] if positions is None else table(positions)

    def _visible(self, cache: KeyValueCache | None, length: int, device: torch.device) -> dict[str, Tensor | None]:
        """For each attention kind the slots [B, S] that rows of different lengths see; None if all see the same."""
        if cache is None or length > 1:
            return {}
        kinds: dict[str, LayerCache] = {layer.kind: layer for layer in cache.layers}
        masks: dict[str, Tensor | None] = {}
        for kind, layer in kinds.items():
            counts = [layer.visible(length + 1) for length in cache.lengths]
            masks[kind] = None
            if min(counts) != max(counts):
                masks[kind] = torch.arange(max(counts), device=device) < torch.tensor(counts, device=device)[:, None]
        return masks

    def _head(self, hidden: Tensor) -> Tensor:
        if self.model.norm is not None:
            hidden = self.model.norm(hidden)
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        logits = F.linear(hidden, head.weight)
        if self.config.logit_multiplier != 1:
            logits = logits * self.config.logit_multiplier
        cap = self.config.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap


def _read_whole(spans: Sequence[Span], cache: KeyValueCache | None, length: int) -> tuple[Span, ...]:
    """The spans that lie in a pass of `length` positions behind the cache's; none may lie in it in part."""
    start = min(cache.lengths) if cache is not None else 0
    inside = tuple(span for span in spans if span[0] < start + length and start < span[1])
    cut = [span for span in inside if span[0] < start or start + length < span[1]]
    if cut or (inside and cache is not None and cache.rows > 1):
        raise InvalidInputError(
            "Positions that see each other both ways are read in one pass.",
            given=f"bidirectional span {cut[0] if cut else inside[0]}, positions {start}..{start + length - 1}",
            hint="end the pass before the span or behind it",
        )
    return inside
