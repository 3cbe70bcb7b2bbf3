"""The loop that trains heads on cached features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["fit"]


def fit(
    heads: nn.Module, loss: Callable[[torch.Generator], Tensor], *, steps: int, rate: float, weight_decay: float = 0.05
) -> None:
    """Trains in place with AdamW on a one-cycle schedule, and says how it goes.

    Args:
        heads: whose parameters learn.
        loss: of a batch that is drawn with the generator.
        steps: batches.
        rate: highest learning rate.
        weight_decay: of all parameters.
    """
    optimizer = torch.optim.AdamW(heads.parameters(), lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(1)
    heads.train()
    for step in range(steps):
        found = loss(generator)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step}: loss {found.item():.3f}", flush=True)
    heads.eval()
