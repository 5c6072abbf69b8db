"""Spatial augmentation: rotation, scale, elastic deformation, mirroring and cropping as ONE resampling.

A voxel o of the patch, at d = (o - middle of the patch) in mm, shows the image at

    centre + 1/spacing * R * 1/scale * F * (d + u(d))

with a rotation R in physical space, mirroring F and an elastic displacement u, a cubic B-spline. Cubic B-splines
reproduce straight lines, so all of it, affine included, is one small grid of control points in voxels of the image;
a product with one basis matrix per axis makes of them the point of every voxel.
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

from medseg.augmentation.sampling import PAD_BEFORE, pad, resample
from medseg.config import AugmentationConfig
from medseg.errors import ConfigError

__all__ = ["SpatialAugment", "SpatialParams"]

Floats = NDArray[np.float64]
# Choi and Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical Models 62, 2000:
# no fold where every control displacement stays below the control spacing divided by this.
FOLDING_LIMIT = {2: 2.046392675, 3: 2.479472335}
# nnU-Net's limit (Isensee et al. 2021): beyond it slices are too far apart to be resampled across.
ANISOTROPY_LIMIT = 3.0


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
            where labels tell them apart. None or () for no axis.
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
        scale: Sequence[float] = (0.75, 1.33),
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
            scale=config.scale,
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
            shape: of the image, in voxels; a channel axis in front is passed over.
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
        displacement = self._displacement(rng, patch) if rng.random() < self.elastic_probability else None
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
        box, box_labels = _read(image, slices), _read(labels, slices)
        outside = torch.zeros(box.shape[0], device=box.device) if inside else _fill(image, fill, box)
        label_outside = self.ignore or 0
        if not inside and not _holds(box_labels.dtype, label_outside):
            raise ConfigError(f"data.ignore is {label_outside}, which labels of type {box_labels.dtype} cannot hold")
        if not params.resamples:
            start = [round(c - (p - 1) / 2) for c, p in zip(params.center, params.patch, strict=True)]
            cropped = _crop(box.float(), start, low, params.patch, outside)
            cropped_labels = _crop(box_labels, start, low, params.patch, label_outside)
            axes = [axis for axis, flip in enumerate(params.flips, start=1) if flip]
            return (cropped.flip(axes), cropped_labels.flip(axes)) if axes else (cropped, cropped_labels)
        positions, bases = self._control(params)
        moved = positions - (np.asarray(low, float) - PAD_BEFORE).reshape(-1, *[1] * self.dims)
        return resample(
            pad(box, outside, torch.float32),
            pad(box_labels, label_outside, box_labels.dtype),
            torch.as_tensor(moved, dtype=torch.float32, device=box.device),
            [torch.as_tensor(basis, dtype=torch.float32, device=box.device) for basis in bases],
            clamp=not inside,
        )

    def coordinates(self, params: SpatialParams) -> Floats:
        """(D, *patch): the point of the image, in voxels, that each voxel of the result shows."""
        points, bases = self._control(params)
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

    def _cells(self, patch: Sequence[int]) -> tuple[float, tuple[int, ...]]:
        """Side of a control cell in mm and how many of them cover the patch along each axis."""
        extents = [p * s for p, s in zip(patch, self.spacing_mm, strict=True)]
        side = max(extents[axis] for axis in self.moving_axes) / self.elastic_grid
        return side, tuple(max(1, math.ceil(extent / side - 1e-6)) for extent in extents)

    def _displacement(self, rng: np.random.Generator, patch: Sequence[int]) -> Floats:
        side, cells = self._cells(patch)
        control = rng.uniform(-1.0, 1.0, (self.dims, *(c + 3 for c in cells)))
        magnitude = rng.uniform(0.5, 1.0) * self.elastic_magnitude
        knots = control
        for axis in range(1, self.dims + 1):
            length = knots.shape[axis] - 2
            before, at, after = (np.take(knots, range(start, start + length), axis) for start in range(3))
            knots = (before + 4 * at + after) / 6
        for axis in range(self.dims):
            largest = float(np.abs(knots[axis]).max())
            amplitude = magnitude * patch[axis] * self.spacing_mm[axis] if axis in self.moving_axes else 0.0
            control[axis] *= amplitude / largest if largest > 0 else 0.0
        limit = 0.99 * side / FOLDING_LIMIT[self.dims]
        steepest = float(np.abs(control).max())
        return np.asarray(control * min(1.0, limit / steepest) if steepest > 0 else control, dtype=np.float64)

    def _control(self, params: SpatialParams) -> tuple[Floats, list[Floats]]:
        """Control points in voxels of the image, (D, m_0, ..., m_D-1), and per axis the basis matrix (size, m)."""
        offsets = [np.arange(p) - (p - 1) / 2 for p in params.patch]
        if params.displacement is None:
            ends = [np.array([-p / 2, p / 2]) for p in params.patch]
            bases = [np.stack([0.5 - o / p, 0.5 + o / p], axis=1) for o, p in zip(offsets, params.patch, strict=True)]
            grid = np.stack(np.meshgrid(*ends, indexing="ij"))
        else:
            side, cells = self._cells(params.patch)
            steps = [side / s for s in self.spacing_mm]
            bases = [_cubic_basis(o / h + c / 2, c) for o, h, c in zip(offsets, steps, cells, strict=True)]
            at = [(np.arange(c + 3) - 1 - c / 2) * h for h, c in zip(steps, cells, strict=True)]
            spacing = np.asarray(self.spacing_mm).reshape(-1, *[1] * self.dims)
            grid = np.stack(np.meshgrid(*at, indexing="ij")) + params.displacement / spacing
        matrix = params.matrix * np.where(params.flips, -1.0, 1.0)[None, :]
        points = np.tensordot(matrix, grid, axes=1) + np.reshape(params.center, (-1, *[1] * self.dims))
        return points, bases

    def _box(self, params: SpatialParams) -> tuple[list[int], list[int], bool]:
        """First and last-plus-one voxel along each axis that the patch can touch, and whether it stays inside."""
        reach = np.array([[-(p - 1) / 2, (p - 1) / 2] for p in params.patch])
        if params.displacement is not None:
            # a B-spline stays within the range of its control values
            flat = params.displacement.reshape(self.dims, -1) / np.asarray(self.spacing_mm)[:, None]
            reach += np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)
        corners = np.array(list(itertools.product(*reach))) * np.where(params.flips, -1.0, 1.0)
        points = corners @ params.matrix.T + np.asarray(params.center)
        margin = 1e-3 if params.resamples else 0.0
        first, last = points.min(axis=0) - margin, points.max(axis=0) + margin
        size = np.asarray(params.shape)
        inside = bool(np.all(first >= 0) and np.all(last <= size - 1))
        low = np.clip(np.floor(first), 0, size - 1).astype(int)
        high = np.clip(np.floor(last) + 2, low + 1, size).astype(int)
        return low.tolist(), high.tolist(), inside


def _cubic_basis(at: NDArray[np.floating[Any]], cells: int) -> Floats:
    """(len(at), cells + 3): uniform cubic B-spline weights at positions in [0, cells]."""
    cell = np.clip(np.floor(at), 0, cells - 1).astype(int)
    f = at - cell
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    basis = np.zeros((len(at), cells + 3))
    for shift, weight in enumerate(weights):
        basis[np.arange(len(at)), cell + shift] = weight / 6
    return basis


def _read(source: Tensor | NDArray[np.generic], slices: tuple[slice, ...]) -> Tensor:
    part = source[(slice(None), *slices)]
    if isinstance(part, Tensor):
        return part
    # a copy: a memory map opened read-only must not back a tensor
    return torch.from_numpy(np.array(part, dtype=part.dtype.newbyteorder("=")))


def _fill(source: Tensor | NDArray[np.generic], fill: Sequence[float] | float | None, box: Tensor) -> Tensor:
    channels = box.shape[0]
    if fill is not None:
        values = torch.as_tensor(fill, dtype=torch.float32, device=box.device).flatten()
        if values.numel() not in (1, channels):
            raise ConfigError(f"fill has {values.numel()} values, expected 1 or {channels} (channels)")
        return values.expand(channels)
    if isinstance(source, Tensor):
        wide = source.to(torch.int32) if source.dtype == torch.uint16 else source
        return wide.flatten(1).amin(dim=1).float()
    return torch.as_tensor(np.asarray(source).reshape(channels, -1).min(axis=1).astype(np.float32))


def _holds(dtype: torch.dtype, value: int) -> bool:
    if dtype.is_floating_point or dtype == torch.bool:
        return True
    return torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max


def _crop(box: Tensor, start: Sequence[int], low: Sequence[int], patch: Sequence[int], fill: Tensor | int) -> Tensor:
    """The patch at `start` out of a box that begins at `low` of the image; fill where there is no image."""
    shape = [box.shape[0], *patch]
    if isinstance(fill, int):
        out = torch.full(shape, fill, dtype=box.dtype, device=box.device)
    else:
        out = fill.to(box.dtype).view(-1, *[1] * len(patch)).expand(shape).contiguous()
    source, target = box, out
    for axis, (s, lo, p) in enumerate(zip(start, low, patch, strict=True), start=1):
        first, last = max(s, lo), min(s + p, lo + box.shape[axis])
        if last <= first:
            return out
        source = source.narrow(axis, first - lo, last - first)
        target = target.narrow(axis, first - s, last - first)
    target.copy_(source)
    return out
