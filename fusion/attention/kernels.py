"""One interface to every device's attention kernel, for one tile: no mask or a causal square.

Legend: B batch, H heads, Hkv key/value heads (H % Hkv == 0), T queries, S keys, d head size. lse is the logarithm of
the sum of the exponentials of a query's scores, with which partial results are merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["CpuKernel", "EfficientKernel", "FlashKernel", "Kernel", "PlainKernel", "choose_kernel"]

_ATEN = torch.ops.aten


class Kernel(Protocol):
    """Attention of one tile, whose queries and keys are at least one each."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Output [B, H, T, d] in the query's dtype and lse [B, H, T] in float32, float64 for float64.

        query is [B, H, T, d], key and value [B, Hkv, S, d]; with `causal` T == S and query i sees keys 0 … i.
        """
        ...

    def backward(
        self,
        gradient: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        out: Tensor,
        lse: Tensor,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """dq, dk and dv of this tile, from the output and lse over *all* tiles of each query.

        With those the tile's probabilities are the final ones, so that gradients of tiles simply add up
        (FlashAttention-2, Dao, 2023; Ring Attention, Liu et al., 2023).
        """
        ...


class CpuKernel:
    """PyTorch's flash attention for processors. It knows grouped heads and every float type."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        return _ATEN._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)

    def backward(
        self,
        gradient: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        out: Tensor,
        lse: Tensor,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        return _ATEN._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, *qkv, out, lse, 0.0, causal, scale=scale
        )


class FlashKernel:
    """FlashAttention-2 (Dao, 2023) of CUDA: float16 and bfloat16, grouped heads, head sizes that 8 divides."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        parts = [part.transpose(1, 2) for part in (query, key, value)]
        lengths = (query.shape[2], key.shape[2])
        found = _ATEN._flash_attention_forward(*parts, None, None, *lengths, 0.0, causal, False, scale=scale)
        return found[0].transpose(1, 2), found[1]

    def backward(
        self,
        gradient: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        out: Tensor,
        lse: Tensor,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        turned = [part.transpose(1, 2) for part in (gradient, *qkv, out)]
        lengths = (qkv[0].shape[2], qkv[1].shape[2])
        unused = torch.empty(2, dtype=torch.uint64, device=lse.device)  # the random state, for dropout alone
        found = _ATEN._flash_attention_backward(
            *turned, lse.contiguous(), None, None, *lengths, 0.0, causal, unused, unused[:1], scale=scale
        )
        dq, dk, dv = (part.transpose(1, 2) for part in found)
        return dq, dk, dv


class EfficientKernel:
    """xFormers' memory-efficient attention of CUDA: also float32, but no grouped heads; groups go one after another."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `Kernel`."""
        keys, values = key.transpose(1, 2), value.transpose(1, 2)
        outs, sums = [], []
        for part in _groups(query, key):
            found = _ATEN._efficient_attention_forward(
                part.transpose(1, 2), keys, values, None, None, None, None, None, 0.0, int(causal), True, scale=scale
            )
            outs.append(found[0].transpose(1, 2))
            sums.append(found[1][:, :, : query.shape[2]])  # padded to a multiple of 32
        return torch.stack(outs, 2).flatten(1, 2), torch.stack(sums, 2).flatten(1, 2)

    def backward(
        self,
        gradient: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        out: Tensor,
        lse: Tensor,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        query, key, value = qkv
        length = query.shape[2]
        keys, values = key.transpose(1, 2), value.transpose(1, 2)
        queries, keys_grad, values_grad = [], torch.zeros_like(key), torch.zeros_like(value)
        unused = torch.zeros((), dtype=torch.int64, device=lse.device)
        padded = torch.nn.functional.pad(lse, (0, -length % 32), value=torch.inf)
        for parts in zip(*(_groups(whole, key) for whole in (gradient, query, out, padded[..., None])), strict=True):
            grad, part, part_out, part_lse = parts
            found = _ATEN._efficient_attention_backward(
                *(x.transpose(1, 2) for x in (grad, part)),
                keys,
                values,
                None,
                part_out.transpose(1, 2),
                None,
                None,
                length,
                key.shape[2],
                part_lse[..., 0].contiguous(),
                0.0,
                unused,
                unused,
                int(causal),
                False,
                scale=scale,
            )
            queries.append(found[0].transpose(1, 2))
            keys_grad += found[1].transpose(1, 2)
            values_grad += found[2].transpose(1, 2)
        return torch.stack(queries, 2).flatten(1, 2), keys_grad, values_grad


def _groups(whole: Tensor, key: Tensor) -> tuple[Tensor, ...]:
    """[B, H, …] → one [B, Hkv, …] for each of the queries that share a key, as views."""
    return whole.unflatten(1, (key.shape[1], -1)).unbind(2)


@dataclass(frozen=True, slots=True)
class PlainKernel:
    """Attention as its formula says, a block of queries at a time: what no fused kernel offers, and their test.

    Attributes:
        softcap: scores become ``cap * tanh(score / cap)`` (Gemma 2, Grok-1).
        block: queries whose scores are in memory at once.
    """

    softcap: float | None = None
    block: int = 512

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `Kernel`. Scores are rounded to the query's dtype; the softmax is formed in float32 or wider."""
        outs, sums = [], []
        for first in range(0, query.shape[2], self.block):
            part = query[:, :, first : first + self.block]
            last = first + part.shape[2] if causal else key.shape[2]
            scores = self._scores(part, key[:, :, :last], first if causal else None, scale)
            lse = scores.logsumexp(-1)
            weights = (scores - lse[..., None]).exp_().to(value.dtype)
            outs.append(_unfold(weights @ value[:, :, :last], part))
            sums.append(_unfold(lse[..., None], part)[..., 0])
        return torch.cat(outs, 2), torch.cat(sums, 2)

    def backward(
        self,
        gradient: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        out: Tensor,
        lse: Tensor,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`. Everything but the scores is formed in float32 or wider."""
        query, key, value = qkv
        wide = lse.dtype
        keys, values = key.to(wide), value.to(wide)
        queries, keys_grad, values_grad = [], torch.zeros_like(keys), torch.zeros_like(values)
        delta = (gradient.to(wide) * out.to(wide)).sum(-1, keepdim=True)
        for first in range(0, query.shape[2], self.block):
            rows = slice(first, first + self.block)
            part = query[:, :, rows]
            last = first + part.shape[2] if causal else key.shape[2]
            scores = self._scores(part, key[:, :, :last], first if causal else None, scale)
            weights = (scores - _fold(lse[:, :, rows, None], key)).exp_()
            grad = _fold(gradient[:, :, rows].to(wide), key)
            values_grad[:, :, :last] += weights.mT @ grad
            score_grad = weights * (grad @ values[:, :, :last].mT - _fold(delta[:, :, rows], key)) * scale
            if self.softcap is not None:  # a hidden score is -inf, its weight 0
                score_grad = score_grad * (1 - (scores.nan_to_num(neginf=0) / self.softcap) ** 2)
            queries.append(_unfold(score_grad @ keys[:, :, :last], part))
            keys_grad[:, :, :last] += score_grad.mT @ _fold(part.to(wide), key)
        return torch.cat(queries, 2).to(query.dtype), keys_grad.to(key.dtype), values_grad.to(value.dtype)

    def _scores(self, query: Tensor, key: Tensor, first: int | None, scale: float) -> Tensor:
        """[B, Hkv, G T, S] at least in float32; query `first` of a causal tile is the first of `query`."""
        folded = _fold(query, key)
        scores = (folded @ key.mT).to(torch.promote_types(query.dtype, torch.float32)) * scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if first is not None:
            places = torch.arange(first, first + query.shape[2], device=query.device)
            hidden = torch.arange(key.shape[2], device=query.device) > places[:, None]
            scores = scores.masked_fill(hidden.repeat(query.shape[1] // key.shape[1], 1), -torch.inf)
        return scores


def _fold(whole: Tensor, key: Tensor) -> Tensor:
    """[B, H, T, x] → [B, Hkv, G T, x]: queries that share a key become rows of one product; keys are not copied."""
    return whole.unflatten(1, (key.shape[1], -1)).flatten(2, 3)


def _unfold(folded: Tensor, like: Tensor) -> Tensor:
    """[B, Hkv, G T, x] → [B, H, T, x] with the heads and length of `like`."""
    return folded.reshape(*like.shape[:3], folded.shape[-1])


def choose_kernel(query: Tensor, value: Tensor, *, softcap: float | None = None) -> Kernel:
    """The fastest kernel that is exact for these tensors."""
    size = query.shape[-1]
    if softcap is not None or value.shape[-1] != size:
        return PlainKernel(softcap)
    if query.device.type == "cpu":
        return CpuKernel()
    if query.device.type == "cuda" and query.dtype != torch.float64:
        short = query.dtype in (torch.float16, torch.bfloat16)
        if short and size % 8 == 0 and size <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0):
            return FlashKernel()
        if size % (8 if short else 4) == 0:
            return EfficientKernel()
    return PlainKernel()
