"""Soft clDice loss (Shit, Paetzold et al., CVPR 2021): overlap with the centre lines of thin structures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["ClDiceLoss", "soft_skeleton"]

POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class ClDiceLoss(VoxelLoss):
    """1 - mean soft clDice: of each label the harmonic mean of two fractions.

    How much of the predicted skeleton lies in the label, `(sum(S_P T) + smooth) / (sum(S_P) + smooth)`, and how much of
    the label's skeleton lies in the prediction. A gap in a thin vessel costs as much as one in a thick vessel. Alone it
    ignores the width, and does not penalise an image filled with vessel: use `dice_cldice`. Ignored voxels count as
    background in both.

    Args:
        labels: what the values mean; None where values are channel indices.
        iterations: of the thinning; at least the radius of the thickest structure in voxels.
        background: count channel 0 of plain labels as a label too.
        batch: sums run over the whole batch; False: per patch.
        smooth: in voxels of the skeleton.

    Raises:
        ConfigError: for a negative number of iterations, or `smooth` that is not positive.

    Example:
        >>> vessel = torch.zeros(1, 1, 5, 5).long()
        >>> vessel[0, 0, 2] = 1
        >>> logits = 100.0 * torch.cat([1 - 2 * vessel, 2 * vessel - 1], 1)
        >>> ClDiceLoss()(logits, vessel).item()
        0.0
    """

    sums_over_ranks = True

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        iterations: int = 5,
        background: bool = False,
        batch: bool = True,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(labels)
        if iterations < 0:
            raise ConfigError(f"iterations is {iterations}; expected 0 or more steps of thinning")
        if smooth <= 0:
            raise ConfigError(f"smooth is {smooth}; expected a positive number of voxels")
        self.iterations = iterations
        self.first = 0 if background or self.regions else 1
        self.batch = batch
        self.smooth = smooth

    def compute(self, voxels: Voxels) -> Tensor:
        p = voxels.log_p[:, self.first :].exp()
        if voxels.regions:
            target = voxels.target
        else:
            channels = torch.arange(self.first, voxels.log_p.shape[1], device=p.device)
            target = (voxels.target[:, None] == channels[:, None]).to(p.dtype)
        counted = voxels.counted
        if counted is not None:
            # Before the thinning, which would spread ignored voxels to their neighbours.
            p, target = p * counted, target * counted
        precise = self._inside(self._skeleton(p, voxels.shape), target)
        sensitive = self._inside(self._skeleton(target, voxels.shape), p)
        both = 2 * precise * sensitive / (precise + sensitive)
        return 1 - (both.mean() if self.batch else self.mean_over_ranks(both.mean(), len(both)))

    def _skeleton(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return soft_skeleton(x.reshape(*x.shape[:2], *shape), self.iterations).flatten(2)

    def _inside(self, skeleton: Tensor, mask: Tensor) -> Tensor:
        """Fraction of the skeleton that lies in the mask."""
        axes = (0, 2) if self.batch else (2,)
        within, whole = (skeleton * mask).sum(axes), skeleton.sum(axes)
        if self.batch:
            within, whole = self.all_sum(within), self.all_sum(whole)
        return (within + self.smooth) / (whole + self.smooth)


def soft_skeleton(x: Tensor, iterations: int) -> Tensor:
    """Soft skeleton: what an opening removes from the image and from each erosion of it (the paper's algorithm 1).

    Args:
        x: `(B, C, I, J[, K])`, 0 to 1.
        iterations: erosions; structures of a greater radius have no skeleton.

    Returns:
        The same shape, 0 to 1; of a mask of 0 and 1, a mask.
    """
    eroded = _erode(x)
    skeleton = F.relu(x - _dilate(eroded))
    for _ in range(iterations):
        x, eroded = eroded, _erode(eroded)
        fine = F.relu(x - _dilate(eroded))
        skeleton = skeleton + F.relu(fine - skeleton * fine)
    return skeleton


def _erode(x: Tensor) -> Tensor:
    """The least of each voxel and those that share a face with it."""
    least = -_greatest_along(-x, 0)
    for axis in range(1, x.dim() - 2):
        least = torch.minimum(least, -_greatest_along(-x, axis))
    return least


def _dilate(x: Tensor) -> Tensor:
    """The greatest of each voxel and all that touch it."""
    for axis in range(x.dim() - 2):
        x = _greatest_along(x, axis)
    return x


def _greatest_along(x: Tensor, axis: int) -> Tensor:
    """Of each voxel and the two beside it."""
    dims = x.dim() - 2
    return POOLS[dims](
        x, tuple(3 if a == axis else 1 for a in range(dims)), 1, tuple(int(a == axis) for a in range(dims))
    )
