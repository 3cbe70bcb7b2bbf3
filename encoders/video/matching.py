"""Finds the displacement that explains what changed between two frames, cell by cell.

The cost of a displacement d, for a pixel x that changed, from what leaves and what arrives:

    leaving  = difference of the earlier frame at x and the later one at x + d
    arriving = difference of the later frame at x and the earlier one at x - d
    cost     = (mean of both + smaller of both) / 2, each cut off at `_LARGEST`

Behind a thing that moves, the background that it uncovers was never seen before, and before it, the background is
covered: there only one of the two can be small, hence the smaller. On a plain background, which matches itself
anywhere, the mean tells true from false.

Legend: n pairs of frames, R side of a working image, G cells along a side, N = G · G cells, S displacements along an
axis, Q points of a window. Positions and displacements are (x, y) in shares of the frame's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FramePair", "Motion", "WindowPoints", "coarse_motions", "frame_pair", "refined", "window_points"]

_LARGEST = 0.15  # a difference beyond it says no more than that pixels do not match
_PULL = 0.2  # cost of a displacement by the frame's side: of equal explanations, the nearest
_SPREAD = 0.8  # standard deviation of a window's weights, in cells
_WINDOW = 3  # cells along its side
_POINTS = 18  # along its side
_STEPS = 2
_OUTSIDE = -9.0  # marks what lies outside the frame, in the image that is searched
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class FramePair:
    """Two frames of the same brightness.

    Attributes:
        earlier, later: float32 [n, 3, R, R], 0..1.
        excess: float32 [n, R, R], their mean absolute difference beyond noise.
        weight: float32 [n, R, R], 0..1, how surely each pixel changed.
    """

    earlier: Tensor
    later: Tensor
    excess: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Motion:
    """A displacement for each cell, and how well it explains the change there.

    Attributes:
        shift: [n, N, 2].
        balance: [n, N], 0..1: 1 if as much leaves as arrives, 0 if only one of them happens.
        cost: [n, N], 0..1 and the pull.
        explained: [n, N], 0..1, the share of the cost of no motion that it saves.
    """

    shift: Tensor
    balance: Tensor
    cost: Tensor
    explained: Tensor

    def where(self, chosen: Tensor, other: Motion) -> Motion:
        """This where `chosen`, bool [n, N], and `other` elsewhere."""
        return Motion(
            torch.where(chosen[..., None], self.shift, other.shift),
            torch.where(chosen, self.balance, other.balance),
            torch.where(chosen, self.cost, other.cost),
            torch.where(chosen, self.explained, other.explained),
        )


def frame_pair(earlier: Tensor, later: Tensor) -> FramePair:
    """Measures what changed between frames [n, 3, R, R].

    The noise is taken from the median difference, as most pixels do not change; where they do (the camera moves), it is
    bounded.
    """
    change = _mean3((later - earlier).abs())
    middle = change.flatten(1).sort(-1).values[:, change[0].numel() // 2]
    noise = (2.5 * middle).clamp(max=0.04) + 1.5 / 255
    excess = (change - noise[:, None, None]).clamp(min=0)
    return FramePair(earlier, later, excess, (10 * excess).clamp(max=1))


def coarse_motions(pair: FramePair, grid: int, *, reach: float) -> tuple[Motion, Motion]:
    """The best whole-pixel displacement of each cell, and the one of the whole frame for all cells.

    Args:
        pair: a small working image: every displacement of every pixel is tried.
        grid: G.
        reach: the farthest displacement along an axis.
    """
    side, radius = pair.weight.shape[-1], math.ceil(reach * pair.weight.shape[-1])
    leaving = _mismatch(pair.earlier, pair.later, radius)
    arriving = _mismatch(pair.later, pair.earlier, radius).flip(1, 2)  # [n, S, S, R, R], by dy and dx
    weight = pair.weight[:, None, None]
    cost = _joined(leaving, arriving) * weight
    axis = torch.arange(-radius, radius + 1, device=weight.device) / side
    shifts = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)  # [S · S, 2]
    pull = _PULL * shifts.norm(dim=-1)
    gone, come = ((part * weight).sum((3, 4)).flatten(1) for part in (1 - leaving, 1 - arriving))
    balance = 2 * torch.minimum(gone, come) / (gone + come + _TINY)  # [n, S · S]

    windows = _windows(grid, side).to(weight)
    cells, changed = _pooled(cost, windows), _pooled(weight, windows)  # [n, N, S · S], [n, N, 1]
    costs = cells / (changed + _TINY) + pull
    own = _best(costs, shifts, balance[:, None].expand_as(costs), changed[..., 0] > 1e-3)
    total = pair.weight.sum((1, 2))[:, None]
    whole = cost.sum((3, 4)).flatten(1) / (total + _TINY) + pull + 0.25 * (1 - balance)
    shared = _best(whole[:, None], shifts, balance[:, None], total > 0.5)
    fields = (shared.shift, shared.balance, shared.cost, shared.explained)
    return own, Motion(*(field.expand(-1, grid * grid, *field.shape[2:]) for field in fields))


def _mismatch(here: Tensor, there: Tensor, radius: int) -> Tensor:
    """Differences of `here` at x and `there` at x + d, over `_LARGEST` and at most 1: [n, S, S, R, R]; 0.5 outside."""
    side = here.shape[-1]
    moved = F.pad(there, (radius,) * 4, value=_OUTSIDE).unfold(2, side, 1).unfold(3, side, 1)
    channels = [(moved[:, c] - here[:, c, None, None]).abs() for c in range(3)]
    difference = (channels[0] + channels[1] + channels[2]) / (3 * _LARGEST)
    return torch.where(difference > 1.1 / _LARGEST, 0.5, difference.clamp(max=1))


def _joined(leaving: Tensor, arriving: Tensor) -> Tensor:
    return (leaving + arriving) / 4 + torch.minimum(leaving, arriving) / 2


def _windows(grid: int, side: int) -> Tensor:
    """[G, R]: the weight of every pixel of an axis in every cell's window."""
    centre, pixel = ((torch.arange(count) + 0.5) / count for count in (grid, side))
    distance = (pixel - centre[:, None]).abs() * grid  # in cells
    return torch.exp(-0.5 * (distance / _SPREAD) ** 2) * (distance < _WINDOW / 2)


def _pooled(values: Tensor, windows: Tensor) -> Tensor:
    """[n, S, S, R, R] → [n, N, S · S]: sums over every cell's window."""
    rows = torch.einsum("gy,ndeyx->ndegx", windows, values)
    return torch.einsum("hx,ndegx->nghde", windows, rows).flatten(3).flatten(1, 2)


def _best(costs: Tensor, shifts: Tensor, balance: Tensor, enough: Tensor) -> Motion:
    """The cheapest of costs [n, N, S · S]; none where not `enough` changed, bool [n, N]."""
    cost, place = costs.min(-1)
    found = balance.gather(-1, place[..., None])[..., 0]
    return Motion(shifts[place] * enough[..., None], torch.where(enough, found, 1.0), cost, torch.zeros_like(cost))


@dataclass(frozen=True, slots=True)
class WindowPoints:
    """Where every window is looked at.

    Attributes:
        place: [1, N, Q, 2].
        weight: [1, N, Q], 0 outside the frame.
    """

    place: Tensor
    weight: Tensor


def window_points(grid: int, device: torch.device) -> WindowPoints:
    """The points of every cell's window."""
    offset = ((torch.arange(_POINTS, device=device) + 0.5) / _POINTS - 0.5) * _WINDOW  # in cells
    axis = (torch.arange(grid, device=device)[:, None] + 0.5 + offset) / grid  # [G, points]
    shape = (grid, grid, _POINTS, _POINTS)
    x, y = axis[None, :, None, :].expand(shape), axis[:, None, :, None].expand(shape)
    place = torch.stack([x, y], dim=-1).reshape(1, grid * grid, _POINTS * _POINTS, 2)
    fall = torch.exp(-0.5 * (offset / _SPREAD) ** 2)
    weight = (fall[:, None] * fall).reshape(1, 1, -1) * _inside(place)
    return WindowPoints(place, weight)


def refined(pair: FramePair, motions: Sequence[Motion], points: WindowPoints) -> list[Motion]:
    """Each motion, improved by a few steps in a larger working image; never worse than none at all."""
    weight = _sampled(pair.weight[:, None], points.place)[:, 0] * points.weight  # [n, N, Q]
    total = weight.sum(-1) + _TINY
    images = (pair.earlier, pair.later)
    earlier, later = (_sampled(torch.cat([image, *_slopes(image)], dim=1), points.place) for image in images)
    still = (_mean3((later[:, :3] - earlier[:, :3]).abs()) / _LARGEST).clamp(max=1)
    cost = (still * weight).sum(-1) / total
    # The motions stand beside each other, as if there were so many times the cells.
    times = len(motions)
    shares = (weight / total[..., None]).repeat(1, times, 1)
    window = _Window(
        pair,
        earlier.repeat(1, 1, times, 1),
        later.repeat(1, 1, times, 1),
        points.place.repeat(1, times, 1, 1),
        shares,
        cost.repeat(1, times),
    )
    better = window.refined(
        torch.cat([motion.shift for motion in motions], dim=1), torch.cat([motion.balance for motion in motions], dim=1)
    )
    fields = (better.shift, better.balance, better.cost, better.explained)
    return [Motion(*one) for one in zip(*(field.chunk(times, dim=1) for field in fields), strict=True)]


@dataclass(frozen=True, slots=True)
class _Window:
    """What refining needs of every window.

    Attributes:
        pair: the frames.
        earlier, later: [n, 9, N, Q]: colours, then slopes along x, then along y, at the points.
        place: [1, N, Q, 2].
        weight: [n, N, Q], sums to one in each window, or to nothing.
        still: [n, N], the cost of no motion.
    """

    pair: FramePair
    earlier: Tensor
    later: Tensor
    place: Tensor
    weight: Tensor
    still: Tensor

    def refined(self, shift: Tensor, balance: Tensor) -> Motion:
        """The best of no motion, these shifts [n, N, 2], and `_STEPS` Gauss-Newton steps from them."""
        best, cost = torch.zeros_like(shift), self.still
        for step in range(_STEPS + 1):
            errors = self._errors(shift)
            sizes = [_mean3(error.abs()) / _LARGEST for error in errors]
            inside = [_inside(self.place + sign * shift[:, :, None]) for sign in (1, -1)]
            parts = [torch.where(seen, size.clamp(max=1), 0.5) for size, seen in zip(sizes, inside, strict=True)]
            tried = (_joined(*parts) * self.weight).sum(-1) + _PULL * shift.norm(dim=-1)
            better = tried < cost
            best, cost = torch.where(better[..., None], shift, best), torch.minimum(tried, cost)
            if step < _STEPS:
                # Geman-McClure weights: what does not match at all has no say.
                trust = [self.weight * seen / (1 + size**2) ** 2 for size, seen in zip(sizes, inside, strict=True)]
                shift = shift + self._step(errors, trust)
        balance = torch.where(best.abs().sum(-1) > 0, balance, 1.0)
        return Motion(best, balance, cost, 1 - cost / (self.still + _TINY))

    def _errors(self, shift: Tensor) -> list[Tensor]:
        """[n, 3, N, Q] each, of what leaves and of what arrives."""
        ahead = _sampled(self.pair.later, self.place + shift[:, :, None])
        behind = _sampled(self.pair.earlier, self.place - shift[:, :, None])
        return [ahead - self.earlier[:, :3], self.later[:, :3] - behind]

    def _step(self, errors: list[Tensor], trust: list[Tensor]) -> Tensor:
        """[n, N, 2]: least squares of the errors, linear in the displacement, damped and bounded."""
        xx = xy = yy = ex = ey = torch.zeros_like(self.still)
        for view, error, weight in zip((self.earlier, self.later), errors, trust, strict=True):
            x, y, w = view[:, 3:6], view[:, 6:], weight[:, None]
            xx, xy, yy = xx + _total(w * x * x), xy + _total(w * x * y), yy + _total(w * y * y)
            ex, ey = ex + _total(w * x * error), ey + _total(w * y * error)
        damping = 0.02 * (xx + yy) + _TINY  # along an edge, nothing is known: no motion there
        xx, yy = xx + damping, yy + damping
        step = torch.stack([xy * ey - yy * ex, xy * ex - xx * ey], dim=-1) / (xx * yy - xy * xy)[..., None]
        most = 1.5 / self.pair.weight.shape[-1]
        return step * (most / step.norm(dim=-1, keepdim=True).clamp(min=most))


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """[n, 3, R, R] each: how colours rise along x and along y, by the frame's side."""
    wide, side = F.pad(images, (1, 1, 1, 1), mode="replicate"), images.shape[-1]
    x = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
    y = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return x * (side / 2), y * (side / 2)


def _sampled(images: Tensor, places: Tensor) -> Tensor:
    """[n, channels, R, R] at places [n or 1, N, Q, 2] → [n, channels, N, Q], bilinear; the edge goes on outside."""
    places = (2 * places - 1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


def _inside(places: Tensor) -> Tensor:
    """[..., 2] → bool [...]."""
    return (places - 0.5).abs().amax(-1) < 0.5


def _mean3(images: Tensor) -> Tensor:
    """Mean over the three channels, [n, 3, ...] → [n, ...]; three sums are much faster than torch's strided one."""
    return (images[:, 0] + images[:, 1] + images[:, 2]) / 3


def _total(values: Tensor) -> Tensor:
    """[n, 3, N, Q] → [n, N]."""
    return values.sum((1, 3))
