"""Spatial augmentation: rotation, scale, elastic deformation, mirroring and cropping as ONE resampling.

A voxel o of the patch, at d = F * (o - middle of the patch) in mm, shows the image at

    centre + 1/spacing * R * 1/scale * (d + u(d))

with mirroring F, a rotation R in physical space and an elastic displacement u, a cubic B-spline. Cubic B-splines
reproduce straight lines, so all of it, affine included, is one small grid of control points in voxels of the image;
a product with one basis matrix per axis makes of them the point of every voxel. Mirroring reverses a basis matrix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.augmentation.boxes import crop, holds, outside_values, read_box
from medseg.augmentation.elastic import control_cells, cubic_basis, draw_displacement
from medseg.augmentation.sampling import PAD_BEFORE, pad, resample
from medseg.config import AugmentationConfig
from medseg.errors import ConfigError

__all__ = ["SpatialAugment", "SpatialParams"]

Floats = NDArray[np.float64]
# nnU-Net's limit (Isensee et al. 2021): beyond it slices are too far apart to be resampled across.
ANISOTROPY_LIMIT = 3.0
SCALE = (0.75, 1.33)


@dataclass(frozen=True, eq=False)
class SpatialParams:
    """One drawn transformation: applying it again gives the same result.

    Attributes:
        shape: spatial shape of the image it was drawn for.
        patch: shape of the result.
        center: voxel coordinates in the image of the middle of the patch.
        matrix: (D, D) from voxels of the patch to voxels of the image, mirroring apart; exactly the identity when
            neither rotation nor scale was drawn.
        flips: per axis, whether the result is mirrored.
        displacement: (D, m_0, ..., m_D-1) elastic displacement of the control points in mm (in voxels of the first axis
            where no spacing is known), or None.

    Example:
        >>> SpatialAugment(dims=2, patch=(4, 4)).draw(np.random.default_rng(0), (8, 8)).patch
        (4, 4)
    """

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    center: tuple[float, ...]
    matrix: Floats
    flips: tuple[bool, ...]
    displacement: Floats | None

    @property
    def resamples(self) -> bool:
        """Whether voxels are interpolated; otherwise the result is a crop, mirrored where `flips` says so."""
        return self.displacement is not None or not np.array_equal(self.matrix, np.eye(len(self.shape)))


class SpatialAugment:
    """Draws and applies spatial transformations; image linear, labels nearest, with the same field, in 2D and 3D.

    Rotation and elastic deformation happen in millimetres. Where the voxels of a 3D image are strongly anisotropic
    (spacing ratio above 3), nothing moves along the coarse axis: rotation, scale and deformation stay in the plane.

    Args:
        dims: 2 or 3.
        patch: shape of the result in voxels; None for the shape of the image.
        spacing_mm: voxel size per axis in mm; None where unknown (isotropic).
        rotation_degrees: each rotation angle (one in 2D, one about each axis in 3D) is uniform within plus and minus
            this; None for 30, and 180 in 2D pictures without an orientation (all axes may be mirrored).
        scale: range of the magnification, drawn log-uniformly; 1.2 shows things 1.2 times larger.
        elastic_probability: per sample.
        elastic_magnitude: largest displacement as a fraction of the patch's extent along each axis; drawn between half
            of it and all of it, and reduced where the deformation could fold otherwise.
        elastic_grid: control cells along the longest side of the patch; the cells are cubes in mm.
        mirror_axes: per axis, whether it is mirrored in half of the samples; the caller leaves out left and right
            where labels distinguish them. None or () for no axis.
        probability: of rotation and scale, per sample.
        ignore: label outside the image; None for 0.

    Raises:
        ConfigError: arguments that do not fit `dims`, or impossible values.

    Example:
        >>> augment = SpatialAugment(dims=3, patch=(32, 32, 32), spacing_mm=(1.0, 1.0, 1.5))
        >>> image, labels = torch.rand(1, 64, 64, 48), torch.zeros(1, 64, 64, 48, dtype=torch.uint8)
        >>> params = augment.draw(np.random.default_rng(0), (64, 64, 48), center=(20, 30, 24))
        >>> augment.apply(image, labels, params)[0].shape
        torch.Size([1, 32, 32, 32])
    """

    def __init__(
        self,
        dims: int,
        patch: Sequence[int] | None = None,
        spacing_mm: Sequence[float] | None = None,
        *,
        rotation_degrees: float | None = None,
        scale: Sequence[float] = SCALE,
        elastic_probability: float = 0.3,
        elastic_magnitude: float = 0.04,
        elastic_grid: int = 4,
        mirror_axes: Sequence[bool] | None = None,
        probability: float = 0.9,
        ignore: int | None = None,
    ) -> None:
        if dims not in (2, 3):
            raise ConfigError(f"dims is {dims}, expected 2 or 3")
        spacing = (1.0,) * dims if spacing_mm is None else tuple(float(s) for s in spacing_mm)
        mirrored = (False,) * dims if not mirror_axes else tuple(bool(m) for m in mirror_axes)
        sizes = None if patch is None else tuple(int(p) for p in patch)
        for name, value in (("patch", sizes), ("spacing_mm", spacing), ("mirror_axes", mirrored)):
            if value is not None and len(value) != dims:
                raise ConfigError(f"{name} has {len(value)} entries, expected {dims} (dims)")
        if not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ConfigError(f"spacing_mm is {spacing}, expected positive numbers")
        if sizes is not None and min(sizes) < 1:
            raise ConfigError(f"patch is {sizes}, expected at least one voxel along each axis")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(f"scale is {tuple(scale)}, expected two positive numbers, the smaller first")
        if elastic_grid < 1:
            raise ConfigError(f"elastic_grid is {elastic_grid}, expected at least 1")
        self.dims = dims
        self.patch = sizes
        self.spacing_mm = spacing
        self.mirror_axes = mirrored
        self.ignore = ignore
        default = 180.0 if dims == 2 and all(mirrored) else 30.0
        self.rotation_degrees = default if rotation_degrees is None else float(rotation_degrees)
        self.scale = (float(scale[0]), float(scale[1]))
        self.elastic_probability = elastic_probability
        self.elastic_magnitude = elastic_magnitude
        self.elastic_grid = elastic_grid
        self.probability = probability
        coarse = dims == 3 and max(spacing) / min(spacing) > ANISOTROPY_LIMIT
        self.moving_axes = tuple(a for a in range(dims) if not (coarse and a == int(np.argmax(spacing))))

    @classmethod
    def from_config(
        cls,
        config: AugmentationConfig,
        dims: int,
        patch: Sequence[int] | None = None,
        spacing_mm: Sequence[float] | None = None,
        mirror_axes: Sequence[bool] | None = None,
        ignore: int | None = None,
    ) -> SpatialAugment:
        """The augmentation that a configuration asks for; without `config.mirror` no axis is mirrored."""
        return cls(
            dims,
            patch,
            spacing_mm,
            rotation_degrees=config.rotation_degrees,
            scale=config.scale or SCALE,
            elastic_probability=config.elastic_probability,
            elastic_magnitude=config.elastic_magnitude,
            elastic_grid=config.elastic_grid,
            mirror_axes=mirror_axes if config.mirror else None,
            probability=config.spatial_probability,
            ignore=ignore,
        )

    def draw(
        self, rng: np.random.Generator, shape: Sequence[int], center: Sequence[float] | None = None
    ) -> SpatialParams:
        """One random transformation.

        Args:
            rng: the only source of randomness.
            shape: of the image, in voxels; a channel axis in front is ignored.
            center: voxel coordinates in the image at which the patch is taken, moved by at most half a voxel so that
                an undeformed patch lies on voxels; None for the middle of the image.

        Raises:
            ConfigError: a shape or centre of the wrong length.
        """
        if len(shape) not in (self.dims, self.dims + 1) or (center is not None and len(center) != self.dims):
            raise ConfigError(
                f"shape {tuple(shape)} and center {center} do not fit an augmentation of {self.dims} dims"
            )
        size = tuple(int(n) for n in shape[-self.dims :])
        patch = size if self.patch is None else self.patch
        middle = [(n - 1) / 2 for n in size] if center is None else center
        starts = [math.ceil(float(c) - (p - 1) / 2 - 0.5) for c, p in zip(middle, patch, strict=True)]
        matrix = self._matrix(rng) if rng.random() < self.probability else np.eye(self.dims)
        displacement = None
        if rng.random() < self.elastic_probability:
            displacement = draw_displacement(
                rng, patch, self.spacing_mm, self.moving_axes, self.elastic_grid, self.elastic_magnitude
            )
        flips = tuple(bool(rng.random() < 0.5) and axis for axis in self.mirror_axes)
        return SpatialParams(
            shape=size,
            patch=patch,
            center=tuple(s + (p - 1) / 2 for s, p in zip(starts, patch, strict=True)),
            matrix=matrix,
            flips=flips,
            displacement=displacement,
        )

    def apply(
        self,
        image: Tensor | NDArray[np.generic],
        labels: Tensor | NDArray[np.generic],
        params: SpatialParams,
        fill: Sequence[float] | float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Image and labels, deformed alike and cropped in the same step.

        Only the voxels that the patch touches are read, so memory-mapped arrays may be passed as they are.

        Args:
            image: (C, I, J[, K]) of any real type.
            labels: (1, I, J[, K]) of any integer type; more channels are moved alike.
            params: from `draw`.
            fill: grey value outside the image, one or one per channel; None for the minimum of each channel, which
                reads the whole image whenever the patch leaves it.

        Returns:
            image (C, *patch) float32 and labels (1, *patch) of their own type. Between the border voxels and the
            fill value one voxel outside, the image is interpolated; labels reach half a voxel out.

        Raises:
            ConfigError: an image or labels of another shape than drawn for, or an `ignore` that the labels cannot hold.
        """
        for name, array in (("image", image), ("labels", labels)):
            if tuple(array.shape[1:]) != params.shape:
                raise ConfigError(
                    f"{name} has shape {tuple(array.shape)}, expected (channels, *{params.shape}) as drawn"
                )
        low, high, inside = self._box(params)
        slices = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        box, box_labels = read_box(image, slices), read_box(labels, slices)
        outside = torch.zeros(box.shape[0], device=box.device) if inside else outside_values(image, fill, box)
        label_outside = self.ignore or 0
        if not inside and not holds(box_labels.dtype, label_outside):
            raise ConfigError(f"data.ignore is {label_outside}, which labels of type {box_labels.dtype} cannot hold")
        if not params.resamples:
            start = [round(c - (p - 1) / 2) for c, p in zip(params.center, params.patch, strict=True)]
            cropped = crop(box.float(), start, low, params.patch, outside)
            cropped_labels = crop(box_labels, start, low, params.patch, label_outside)
            axes = [axis for axis, flip in enumerate(params.flips, start=1) if flip]
            return (cropped.flip(axes), cropped_labels.flip(axes)) if axes else (cropped, cropped_labels)
        control, bases = self._control(params, origin=np.asarray(low) - PAD_BEFORE)
        return resample(
            pad(box, outside, torch.float32),
            pad(box_labels, label_outside, box_labels.dtype),
            torch.as_tensor(control, dtype=torch.float32, device=box.device),
            [torch.as_tensor(basis, dtype=torch.float32, device=box.device) for basis in bases],
            clamp=not inside,
        )

    def coordinates(self, params: SpatialParams) -> Floats:
        """(D, *patch): the point of the image, in voxels, that each voxel of the result shows."""
        points, bases = self._control(params, origin=np.zeros(self.dims))
        for axis, basis in enumerate(bases, start=1):
            points = np.moveaxis(np.tensordot(basis, points, axes=(1, axis)), 0, axis)
        return points

    def _matrix(self, rng: np.random.Generator) -> Floats:
        """Patch voxels to image voxels: rotated about, and scaled along, the moving axes in mm."""
        rotation = np.eye(self.dims)
        for first, second in itertools.combinations(self.moving_axes, 2):
            angle = math.radians(rng.uniform(-self.rotation_degrees, self.rotation_degrees))
            turn = np.eye(self.dims)
            turn[first, first] = turn[second, second] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            rotation = rotation @ turn
        zoom = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        rotation[:, list(self.moving_axes)] /= zoom
        spacing = np.asarray(self.spacing_mm)
        return np.asarray(rotation * spacing[None, :] / spacing[:, None], dtype=np.float64)

    def _control(self, params: SpatialParams, origin: NDArray[Any]) -> tuple[Floats, list[Floats]]:
        """Control grid (D, m_0, ..., m_D-1) in voxels of the image, from `origin`, and per axis the basis (size, m).

        Without displacement the basis is (1, o) and the grid holds the affine's coefficients, which keeps whole and
        half voxels exact; otherwise it is cubic and the grid holds points.
        """
        offsets = [np.arange(p) - (p - 1) / 2 for p in params.patch]
        center = np.asarray(params.center) - origin
        if params.displacement is None:
            bases = [np.stack([np.ones_like(o), o], axis=1) for o in offsets]
            flat = np.zeros((self.dims, 2**self.dims))
            flat[:, 0] = center
            for axis in range(self.dims):
                flat[:, 2 ** (self.dims - 1 - axis)] = params.matrix[:, axis]
            control = flat.reshape(self.dims, *[2] * self.dims)
        else:
            side, cells = control_cells(params.patch, self.spacing_mm, self.moving_axes, self.elastic_grid)
            steps = [side / s for s in self.spacing_mm]
            bases = [cubic_basis(o / h + c / 2, c) for o, h, c in zip(offsets, steps, cells, strict=True)]
            at = [(np.arange(c + 3) - 1 - c / 2) * h for h, c in zip(steps, cells, strict=True)]
            spacing = np.asarray(self.spacing_mm).reshape(-1, *[1] * self.dims)
            grid = np.stack(np.meshgrid(*at, indexing="ij")) + params.displacement / spacing
            control = np.tensordot(params.matrix, grid, axes=1) + center.reshape(-1, *[1] * self.dims)
        mirrored = [basis[::-1].copy() if flip else basis for basis, flip in zip(bases, params.flips, strict=True)]
        return control, mirrored

    def _box(self, params: SpatialParams) -> tuple[list[int], list[int], bool]:
        """First and last-plus-one voxel along each axis that the patch can touch, and whether it stays inside."""
        reach = np.array([[-(p - 1) / 2, (p - 1) / 2] for p in params.patch])
        if params.displacement is not None:
            # a B-spline stays within the range of its control values
            flat = params.displacement.reshape(self.dims, -1) / np.asarray(self.spacing_mm)[:, None]
            reach += np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)
        points = np.array(list(itertools.product(*reach))) @ params.matrix.T + np.asarray(params.center)
        margin = 1e-3 if params.resamples else 0.0
        first, last = points.min(axis=0) - margin, points.max(axis=0) + margin
        size = np.asarray(params.shape)
        inside = bool(np.all(first >= 0) and np.all(last <= size - 1))
        low = np.clip(np.floor(first), 0, size - 1).astype(int)
        high = np.clip(np.floor(last) + 2, low + 1, size).astype(int)
        return low.tolist(), high.tolist(), inside
