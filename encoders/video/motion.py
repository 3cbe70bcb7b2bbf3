"""What moved between the frames of a clip, where to, and what changed without moving.

Legend: F frames, n = F - 1 pairs of neighbouring frames, H and W height and width, R side of a working image, G cells
along a side, N = G · G cells, C channels of the result.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InvalidInputError
from ..image.resample import resample_matrix
from ..media import VideoData
from .matching import FramePair, Motion, coarse_motions, frame_pair, refined, window_points

__all__ = ["CHANNELS", "MotionFeature", "dominant_motion"]

#: What the last axis of a motion feature holds.
CHANNELS: Final = ("dx", "dy", "confidence", "change", "unexplained")

_COARSE = 4  # pixels along a cell's side in the image that is searched as a whole
_FINE = (6, 12)  # and in those in which motions are refined
_AT_ONCE = 4  # pairs in a pass; bounds memory to about 100 MB
_LEAST_CHANGE = 2e-3  # of a cell, or it counts as still
# Appearing things explain up to 0.47 of a change as motion, by chance; real motion explains 0.6 and more.
_CHANCE, _CERTAIN = 0.5, 0.9
_PREFERENCE = 0.1  # how much worse the motion of the whole frame may fit a cell than the cell's own and still win


class MotionFeature(nn.Module):
    """Block matching with change weights, refined to fractions of a pixel.

    Each pair of neighbouring frames is brought to the same brightness. Pixels that changed beyond the noise vote, in
    each cell and its surroundings, for the displacement that explains them: as leaving (the earlier frame's pixel is
    found at the displacement in the later one) and as arriving (the reverse). A small image is searched exhaustively,
    larger ones are refined by Gauss-Newton steps (Lucas and Kanade, 1981) with robust weights. A motion counts where
    things both leave and arrive: what appears or vanishes only changes.

    There is nothing to train. All operators of `between` have ONNX counterparts, for frames of any size.

    Args:
        grid: G.
        reach: the farthest displacement between two frames that is searched, as a share of the frame's side.

    Raises:
        InvalidInputError: sizes that make no sense.
    """

    def __init__(self, grid: int = 8, *, reach: float = 0.45) -> None:
        super().__init__()
        if not (1 <= grid <= 32 and 0 < reach < 1):
            given = f"grid = {grid}, reach = {reach}"
            raise InvalidInputError(
                "No motion can be found with these.", given=given, expected="grid 1..32, reach 0..1"
            )
        self.grid = grid
        self.reach = reach

    def of_clip(self, clip: VideoData) -> Tensor:
        """The motion of a clip: float32 [n, G, G, C], see `forward`."""
        return self(torch.from_numpy(clip.frames.copy()), torch.from_numpy(clip.timestamps))

    def forward(self, frames: Tensor, timestamps: Tensor) -> Tensor:
        """Motion between neighbouring frames.

        Args:
            frames: uint8 [F, H, W, 3]; one frame alone has no motion, n is 0.
            timestamps: float [F], seconds, rising.

        Returns:
            float32 [n, G, G, C], for each cell of the earlier frame, rows from the top:

            - ``dx``, ``dy``: frame widths to the right and frame heights downward a second; 0 where nothing moves.
            - ``confidence``: 0..1, how surely the change is this motion; 0 where ``dx`` and ``dy`` are 0 for want of
              an explanation.
            - ``change``: 0..1, mean absolute difference of the two frames' pixels beyond noise and brightness.
            - ``unexplained``: 0..1, the part of ``change`` that no motion explains: appearing, vanishing, deforming.

        Raises:
            InvalidInputError: frames or timestamps of another shape or type.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            given = f"{frames.dtype} {list(frames.shape)}"
            raise InvalidInputError("These are no frames.", given=given, expected="uint8 [frames, height, width, 3]")
        if timestamps.shape != frames.shape[:1]:
            given, expected = list(timestamps.shape), [len(frames)]
            raise InvalidInputError("Each frame needs one timestamp.", given=given, expected=expected)
        seconds = timestamps.diff().float()
        parts = [frames.new_zeros(0, self.grid, self.grid, len(CHANNELS), dtype=torch.float32)]
        for start in range(0, len(frames) - 1, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            parts.append(self.between(frames[start : start + _AT_ONCE + 1], seconds[part]))
        return torch.cat(parts)

    def between(self, frames: Tensor, seconds: Tensor) -> Tensor:
        """As `forward` in one pass, for a few frames: uint8 [F, H, W, 3] and the seconds between them, float [n]."""
        images = frames.permute(0, 3, 1, 2).float() / 255  # [F, 3, H, W]
        sides = [self.grid * pixels for pixels in (_COARSE, *_FINE)]
        coarse, *fine = _same_brightness([_square(images, side) for side in sides])
        own, shared = coarse_motions(coarse, self.grid, reach=self.reach)
        # Motions of less than a pixel of the coarse image begin at none.
        none = Motion(torch.zeros_like(own.shift), torch.ones_like(own.balance), own.cost, own.explained)
        points = window_points(self.grid, frames.device)
        found = [own, shared, none]
        for pair in fine:
            found = refined(pair, found, points)
        best = _chosen(found)
        change = F.adaptive_avg_pool2d(fine[0].excess[:, None], self.grid).flatten(1)  # [n, N]
        certainty = best.explained * best.balance
        confidence = ((certainty - _CHANCE) / (_CERTAIN - _CHANCE)).clamp(0, 1) * (change > _LEAST_CHANGE)
        velocity = best.shift * (confidence > 0)[..., None] / seconds[:, None, None]
        others = torch.stack([confidence, change, change * (1 - confidence)], dim=-1)
        return torch.cat([velocity, others], dim=-1).unflatten(1, (self.grid, self.grid))


def dominant_motion(motion: Tensor) -> Tensor:
    """The motion of a whole frame, each cell weighted by its confidence and change.

    Args:
        motion: [..., G, G, C], of `MotionFeature`.

    Returns:
        [..., 2]: ``dx`` and ``dy``; 0 where nothing moves.
    """
    weight = (motion[..., 2] * motion[..., 3])[..., None]
    return (motion[..., :2] * weight).sum((-3, -2)) / (weight.sum((-3, -2)) + 1e-9)


def _square(images: Tensor, side: int) -> Tensor:
    """[F, 3, H, W] → [F, 3, R, R], with antialiasing; cells need not be square in the clip."""
    rows, columns = (resample_matrix(size, side, "bilinear").to(images) for size in images.shape[-2:])
    return rows @ images @ columns.T


def _same_brightness(levels: list[Tensor]) -> list[FramePair]:
    """Pairs of neighbours with the earlier frame brought to the later one's brightness.

    A shift or a gain of all pixels, whichever fits more of them, but only if it fits clearly better than none: things
    that move or appear must not be taken for light.
    """
    before, after = levels[0][:-1].flatten(1), levels[0][1:].flatten(1)  # [n, 3 · R · R]
    shift = _median(after - before)
    gain = _median((after + 0.02) / (before + 0.02))  # the summand steadies dark pixels
    one, zero = torch.ones_like(gain), torch.zeros_like(gain)
    gains, shifts = torch.stack([one, one, gain]), torch.stack([zero, shift, 0.02 * (gain - 1)])
    misfit = _median((after - gains[..., None] * before - shifts[..., None]).abs())  # [3, n]
    misfit = torch.cat([misfit[:1] * 0.8 - 0.5 / 255, misfit[1:]])
    best = misfit.argmin(0, keepdim=True)
    gain, shift = (choice.gather(0, best)[0][:, None, None, None] for choice in (gains, shifts))
    return [frame_pair(images[:-1] * gain + shift, images[1:]) for images in levels]


def _median(values: Tensor) -> Tensor:
    return values.sort(-1).values[..., values.shape[-1] // 2]


def _chosen(found: list[Motion]) -> Motion:
    """In each cell, the cheapest motion; that of the whole frame wins if it is hardly worse, as cells see edges alone
    and an edge does not tell its motion along itself."""
    own, shared, none = found
    best = none.where(none.cost < own.cost, own)
    return shared.where(shared.cost < best.cost + _PREFERENCE, best)
