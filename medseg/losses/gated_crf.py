"""Gated CRF loss: neighbouring voxels that look alike should have the same label, annotated or not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["GatedCrfLoss", "show_images"]

# Of a batch of 2D images or 3D patches a radius of this many voxels costs 60 or 62 passes over the logits.
RADIUS = {2: 5, 3: 2}
MOST_OFFSETS = 2000


class GatedCrfLoss(VoxelLoss):
    """Mean over voxels of the sum over their neighbours of `k (1 - sum over channels of p_i p_j)`.

    k is a Gaussian of distance and of the difference in grey levels, at most 1. It needs no annotation, so it belongs
    beside a loss that does, such as `cross_entropy` with `data.ignore` where scribbles leave most voxels open. All
    voxels take part, annotated or not. Regions: the mean over the regions of the same for inside and outside.

    The images are those that the network sees: `show_images` gives them to the loss before each step. Without images
    only the distance counts.

    Args:
        labels: what the values mean; None where values are channel indices.
        radius: of the neighbourhood, in voxels along each axis; None: 5 in 2D, 2 in 3D.
        distance: standard deviation of the distance, in voxels.
        intensity: standard deviation of the difference in grey levels, as the network sees them; for images that are
            normalised to mean 0 and standard deviation 1, that is a share of the standard deviation.

    Raises:
        ConfigError: for a number that is not above 0, or a neighbourhood of more than 2000 voxels.

    Source:
        Obukhov, Georgoulis, Dai and Van Gool, Gated CRF loss for weakly supervised semantic image segmentation,
        NeurIPS workshops 2019, equations 5 to 8; without the gates, as no voxel is known to be of no use.

    Example:
        >>> sure = torch.tensor([[[[9.0, 9.0], [9.0, 9.0]], [[0.0, 0.0], [0.0, 0.0]]]])
        >>> labels = torch.zeros(1, 1, 2, 2, dtype=torch.int64)
        >>> GatedCrfLoss()(sure, labels).item() < GatedCrfLoss()(0 * sure, labels).item()
        True
    """

    sums_over_ranks = True

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        radius: int | None = None,
        distance: float = 6.0,
        intensity: float = 0.3,
    ) -> None:
        super().__init__(labels)
        if radius is not None and not (isinstance(radius, int) and radius >= 1):
            raise ConfigError(f"radius is {radius}; expected a whole number of voxels from 1")
        if radius is not None and (2 * radius + 1) ** 2 > MOST_OFFSETS:
            raise ConfigError(f"radius is {radius}; expected at most 21, as the cost grows with its square")
        if not (distance > 0 and intensity > 0):
            raise ConfigError(f"distance is {distance} and intensity is {intensity}; expected numbers above 0")
        self.radius, self.distance, self.intensity = radius, float(distance), float(intensity)
        self.images: Tensor | None = None

    def compute(self, voxels: Voxels) -> Tensor:
        p = voxels.log_p.exp().reshape(*voxels.log_p.shape[:2], *voxels.shape)  # (B, C, I, J[, K])
        image = self._image_for(p)
        offsets = list(_offsets(self._radius_for(voxels.shape), voxels.shape))
        total = p.new_zeros(())
        for offset in offsets:
            here, there = _pair(offset, voxels.shape)
            a, b = p[here], p[there]
            apart = (a * (1 - b) + b * (1 - a)).mean(1) if voxels.regions else 1 - (a * b).sum(1)
            total = total + (self._kernel(image, offset, here, there) * apart).sum()
        # Each pair of voxels is counted once above, and is of both its voxels.
        return self.mean_over_ranks(2 * total / p[:, 0].numel(), len(p))

    def _kernel(
        self, image: Tensor | None, offset: tuple[int, ...], here: tuple[slice, ...], there: tuple[slice, ...]
    ) -> Tensor | float:
        far = sum(o * o for o in offset) / (2 * self.distance**2)
        if image is None:
            return math.exp(-far)
        difference = (image[here] - image[there]).square().sum(1) / (2 * self.intensity**2)
        return torch.exp(-difference - far)

    def _image_for(self, p: Tensor) -> Tensor | None:
        """The images on the grid of the logits, of which auxiliary heads have a coarser one."""
        if self.images is None or len(self.images) != len(p):
            return None
        images = self.images.to(p.dtype)
        if images.shape[2:] == p.shape[2:]:
            return images
        return F.interpolate(images, p.shape[2:], mode="area")

    def _radius_for(self, shape: tuple[int, ...]) -> int:
        radius = RADIUS.get(len(shape), 1) if self.radius is None else self.radius
        if (2 * radius + 1) ** len(shape) > MOST_OFFSETS:
            raise ConfigError(f"the gated CRF loss has radius {radius}; in 3D at most 5 is possible")
        return radius


def show_images(loss: nn.Module, images: Tensor) -> None:
    """Give the images of the next batch to the parts of a loss that look at them.

    Args:
        loss: any loss; nothing happens where no part of it is a `GatedCrfLoss`.
        images: `(B, channels, I, J[, K])`, as the network sees them.

    Example:
        >>> loss = GatedCrfLoss()
        >>> show_images(loss, torch.zeros(1, 1, 8, 8))
        >>> loss.images.shape
        torch.Size([1, 1, 8, 8])
    """
    for module in loss.modules():
        if isinstance(module, GatedCrfLoss):
            module.images = images.detach()


def _offsets(radius: int, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """One of each two opposite offsets, other than none, that stay within the image."""
    for offset in itertools.product(range(-radius, radius + 1), repeat=len(shape)):
        if offset > (0,) * len(shape) and all(abs(o) < n for o, n in zip(offset, shape, strict=True)):
            yield offset


def _pair(offset: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Of `(B, C, I, J[, K])`, all voxels that have a neighbour at the offset, and these neighbours."""
    whole = [slice(None), slice(None)]
    here = [slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True)]
    there = [slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True)]
    return tuple(whole + here), tuple(whole + there)
