"""Boundary loss: predicted voxels cost by their distance from the border of the label (Kervadec et al., MIDL 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["BoundaryLoss", "distances_for", "signed_distances"]


class BoundaryLoss(VoxelLoss):
    """Mean over voxels and labels of `p D`: D is the signed distance of the voxel to the border of the label.

    D is negative inside, so the loss may be negative; it is least where the prediction is the label. It has no sense
    of size at all far from a solution: use it beside a Dice loss, with a small weight (0.01).

    The background has no map of its own. A label that does not occur in a sample, or fills it, has distance 0
    everywhere: without a border it does not count.

    Maps may come with the labels (`distances_for` makes them, where there is time for it); else they are made here, in
    voxels. Auxiliary logits of a coarser grid take, like labels, the value at the centre of their voxels.

    Args:
        labels: what the values mean; None where values are channel indices.
        largest: distances are cut there, in the unit of the maps; None: nowhere. The paper cuts nowhere.

    Raises:
        ConfigError: for a largest distance that is not above 0.

    Source:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019, equation 5, maps as in the
        authors' code: to the nearest voxel of the other side, less 1 inside.

    Example:
        >>> logits = torch.tensor([[[9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, -9.0]]])
        >>> labels = torch.tensor([[[0, 1, 1, 0]]])
        >>> signed_distances(np.array([0, 1, 1, 0], bool), (1.0,)).tolist()
        [1.0, 0.0, 0.0, 1.0]
        >>> round(BoundaryLoss()(-logits, labels).item(), 4)  # (1 + 1) / 4 voxels
        0.5
    """

    def __init__(self, labels: LabelScheme | None = None, *, largest: float | None = None) -> None:
        super().__init__(labels)
        if largest is not None and not largest > 0:
            raise ConfigError(f"largest is {largest}; expected a distance above 0")
        self.largest = largest
        # For threads that make the maps, whatever device the loss is on.
        self.values = None if self.table is None else self.table.numpy().copy()

    def compute(self, voxels: Voxels) -> Tensor:
        p = voxels.log_p if voxels.regions else voxels.log_p[:, 1:]
        assert voxels.distances is not None
        distances = voxels.distances.to(p.dtype)
        if self.largest is not None:
            distances = distances.clamp(-self.largest, self.largest)
        loss = p.exp() * distances
        if voxels.counted is None:
            return loss.mean()
        weight = voxels.counted.to(p.dtype).expand_as(loss)
        return (loss * weight).sum() / weight.sum().clamp_min(1.0)

    def completed(self, labels: Tensor, channels: int) -> Tensor:
        """Labels with distance maps, in voxels where they are made here."""
        if labels.shape[1] > 1:
            return labels
        return self.with_distances(labels, (1.0,) * (labels.dim() - 2), channels - 1)

    def with_distances(self, labels: Tensor, spacing: Sequence[float], count: int | None = None) -> Tensor:
        """Labels with a distance map of each label (regions: of each region) in further channels.

        Args:
            labels: `(B, 1, I, J[, K])`, dataset values or codes.
            spacing: of the voxels along each axis; the unit of the maps.
            count: of labels, where values are channel indices and so do not say it.

        Returns:
            `(B, 1 + labels, I, J[, K])`, float32.
        """
        maps = [self._maps(each[0].cpu().numpy(), spacing, count) for each in labels]
        return torch.cat([labels.float(), torch.from_numpy(np.stack(maps)).to(labels.device)], 1)

    def _maps(self, labels: NDArray[np.generic], spacing: Sequence[float], count: int | None) -> NDArray[np.float32]:
        values = labels.astype(np.int64)
        if self.regions:
            assert self.values is not None
            inside = np.moveaxis(self.values[values] > 0, -1, 0)
        else:
            channels = values if self.values is None else self.values[values]
            known = (count or 0) if self.values is None else int(self.values.max())
            inside = np.stack([channels == number for number in range(1, known + 1)])
        return np.stack([signed_distances(mask, spacing) for mask in inside])


def signed_distances(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float32]:
    """Distance of each voxel's centre to the nearest voxel of the mask; inside: to the nearest outside, less the
    smallest spacing, and negative; so that both voxels at a border are as near as the authors' code has them.

    A mask without a border, empty or full, gives 0 everywhere.

    Args:
        mask: of any shape.
        spacing: along each axis.
    """
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, np.float32)
    outside = ndimage.distance_transform_edt(~mask, sampling=tuple(spacing))
    inside = ndimage.distance_transform_edt(mask, sampling=tuple(spacing))
    signed: NDArray[np.float32] = np.where(mask, min(spacing) - inside, outside).astype(np.float32)
    return signed


def distances_for(loss: nn.Module, spacing: Sequence[float]) -> Callable[[Tensor], Tensor] | None:
    """What adds the distance maps that a loss needs to the labels of a batch; None for a loss that needs none.

    Args:
        loss: any loss; the first `BoundaryLoss` in it decides.
        spacing: of the voxels along each axis, in mm, or 1 where it is not known. Maps are in units of the smallest.

    Example:
        >>> scheme = LabelScheme.from_mapping({"lung": 1})
        >>> complete = distances_for(BoundaryLoss(scheme), (2.0,))
        >>> complete(torch.tensor([[[0, 1, 1, 0, 0]]])).tolist()
        [[[0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, 2.0]]]
    """
    boundary = next((module for module in loss.modules() if isinstance(module, BoundaryLoss)), None)
    if boundary is None:
        return None
    scaled = tuple(each / min(spacing) for each in spacing)
    return lambda labels: boundary.with_distances(labels, scaled)
