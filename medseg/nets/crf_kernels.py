"""Sums over all pairs of voxels that the dense CRF needs: y_i = sum over j != i of k_ij x_j, for Gaussian kernels k.

Krähenbühl and Koltun (NIPS 2011) approximate these sums on a permutohedral lattice. Here they are exact to about 1e-6:

- `Smoothness`, exp(-d^2 / 2 s^2) of the distance d in mm: a product over axes, so one matrix per axis.
- `Appearance`, exp(-d^2 / 2 s^2 - v^2 / 2 t^2) with v the difference of intensities: the identity

      exp(-(a - b)^2 / 2 t^2)  =  const * integral over z of exp(-(a - z)^2 / t^2) exp(-(z - b)^2 / t^2) dz

  becomes a sum over few nodes z (the trapezoidal rule converges like exp(-pi^2 t^2 / 2 step^2) for a Gaussian), and
  each node is a purely spatial sum between two products with a picture of its own. Along an axis the same identity
  makes the matrix a product of two thin ones where s is larger than two voxels, so wide kernels cost less, not more.
  Every term is positive: the error is relative, also where a voxel resembles hardly any other.
- `WindowedAppearance`, the same kernel cut off at a distance: a loop over offsets, for images of several channels,
  whose nodes would be too many.

C channels of x, I J K voxel axes (K absent in 2D), m nodes along an axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medseg.errors import ConfigError

__all__ = ["Appearance", "Smoothness", "WindowedAppearance"]

# Distance of nodes and reach of nodes beyond the ends, in sigmas: each is worth a relative error of 5e-7 or less.
STEP = 0.57
MARGIN = 2.5
REACH = 5.0  # exp(-x^2) is 1e-11 there
SMALLEST = -70.0  # below it exp gives denormal numbers, which processors handle a hundred times slower
# Voxels of a window that are looked at, each one a pass over the image.
MOST_OFFSETS = 2**18
# Voxels worked on at a time: their intermediate results stay in the cache, and memory does not grow with the image.
SLAB_VOXELS = 2**17
OFFSETS = 64  # offsets of a window that are added up before they join the rest


class Smoothness:
    """exp(-d^2 / 2 sigma^2) between any two voxels.

    Args:
        like: (C, I, J[, K]); its shape, device and type are those of the sums.
        spacing_mm: per voxel axis.
        sigma_mm: standard deviation.
    """

    def __init__(self, like: Tensor, spacing_mm: Sequence[float], sigma_mm: float) -> None:
        self.matrices = []
        for n, spacing in zip(like.shape[1:], spacing_mm, strict=True):
            others = _gaussian(n, spacing / sigma_mm).fill_diagonal_(0)
            self.matrices.append(others.to(like))

    def __call__(self, x: Tensor) -> Tensor:
        """Sums of x (C, I, J[, K]) over all other voxels."""
        # (1 + A)(1 + B)(1 + C) - 1 without the difference: a narrow kernel would lose its digits in it.
        whole, others = x, torch.zeros_like(x)
        for axis, matrix in enumerate(self.matrices, start=1):
            added = _along(whole, matrix, axis)
            others += added
            whole = whole + added
        return others


class Appearance:
    """exp(-d^2 / 2 sigma^2 - v^2 / 2) between any two voxels of an image of one channel.

    Args:
        image: (1, I, J[, K]) in units of the intensity's sigma.
        spacing_mm: per voxel axis.
        sigma_mm: standard deviation of the distance.
    """

    def __init__(self, image: Tensor, spacing_mm: Sequence[float], sigma_mm: float) -> None:
        self.image = image[0]
        sizes = image.shape[1:]
        factors = [_factor(n, s / sigma_mm) for n, s in zip(sizes, spacing_mm, strict=True)]
        # (n, m) each: gather and spread along every axis; None is the identity.
        self.gather = [None if g is None else g.to(image) for g, _ in factors]
        self.spread = [s.to(image) for _, s in factors]
        self.nodes = _occupied(self.image)
        self.rows = max(1, SLAB_VOXELS // max(1, math.prod(sizes[1:])))
        slabs = [(rows.start, self.image[rows]) for rows in self._slabs()]
        self.ranges = {start: (float(slab.min()), float(slab.max())) for start, slab in slabs}

    def __call__(self, x: Tensor) -> Tensor:
        """Sums of x (C, I, J[, K]) over all other voxels."""
        out = torch.zeros_like(x)
        for node in self.nodes:
            coefficients = self._gathered(x, node)
            for rows in self._slabs():
                near = self._near(node, rows)
                if near is not None:
                    out[:, rows].addcmul_(self._spread(coefficients, rows), near)
        # A voxel's own share is exactly 1 in the kernel.
        return out.mul_(math.sqrt(2 / math.pi) * STEP).sub_(x)

    def _gathered(self, x: Tensor, node: float) -> Tensor:
        """(C, m_I, m_J[, m_K])."""
        first = self.gather[0]
        total: Tensor | None = None
        parts = []
        for rows in self._slabs():
            near = self._near(node, rows)
            part = x[:, rows] * (0.0 if near is None else near)
            if near is None and first is not None:
                continue
            for axis in range(len(self.gather) - 1, 0, -1):
                matrix = self.gather[axis]
                if matrix is not None:
                    part = _along(part, matrix, axis + 1)
            if first is None:
                parts.append(part)
                continue
            part = _along(part, first[rows], 1)
            total = part if total is None else total.add_(part)
        if total is None:
            return torch.cat(parts, dim=1)
        return total

    def _spread(self, coefficients: Tensor, rows: slice) -> Tensor:
        """(C, rows, J[, K])."""
        part = coefficients
        for axis, matrix in enumerate(self.spread):
            part = _along(part, (matrix[rows] if axis == 0 else matrix).T, axis + 1)
        return part

    def _near(self, node: float, rows: slice) -> Tensor | None:
        """exp(-(v - node)^2) of the slab (rows, J[, K]); None where it is nothing everywhere."""
        lowest, highest = self.ranges[rows.start]
        if not lowest - REACH < node < highest + REACH:
            return None
        return (self.image[rows] - node).square_().clamp_(max=-SMALLEST).neg_().exp_()

    def _slabs(self) -> Iterator[slice]:
        return (slice(i, i + self.rows) for i in range(0, len(self.image), self.rows))


class WindowedAppearance:
    """exp(-d^2 / 2 sigma^2 - v^2 / 2) between voxels at most `window_mm` apart; v^2 is summed over the channels.

    Args:
        image: (channels, I, J[, K]), each channel in units of the intensity's sigma.
        spacing_mm: per voxel axis.
        sigma_mm: standard deviation of the distance.
        window_mm: radius; as large as the image it gives the sums of `Appearance`.

    Raises:
        ConfigError: for a window of more than 2^18 voxels.
    """

    def __init__(self, image: Tensor, spacing_mm: Sequence[float], sigma_mm: float, window_mm: float) -> None:
        self.image = image
        sizes = image.shape[1:]
        self.rows = max(1, SLAB_VOXELS // max(1, math.prod(sizes[1:])))
        self.offsets: list[tuple[tuple[int, ...], float]] = []
        reach = [min(n - 1, int(window_mm / s + 1e-6)) for n, s in zip(sizes, spacing_mm, strict=True)]
        if math.prod(2 * r + 1 for r in reach) > MOST_OFFSETS:
            raise ConfigError(
                f"the window of the CRF reaches {max(reach)} voxels far, {math.prod(2 * r + 1 for r in reach)} in all; "
                f"at most {MOST_OFFSETS} are summed in a reasonable time: give a smaller crf.window_mm"
            )
        zero = (0,) * len(sizes)
        for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
            square = sum((o * s) ** 2 for o, s in zip(offset, spacing_mm, strict=True))
            # One of each two opposite offsets: a pair of voxels is looked at once and serves both.
            if offset > zero and square <= (window_mm * (1 + 1e-6)) ** 2:
                self.offsets.append((offset, square / (2 * sigma_mm**2)))

    def __call__(self, x: Tensor) -> Tensor:
        """Sums of x (C, I, J[, K]) over all other voxels in the window."""
        out = torch.zeros_like(x)
        for first in range(0, len(self.offsets), OFFSETS):
            # Thousands of numbers added one after the other in float32 would lose a digit more.
            part = torch.zeros_like(x)
            for row in range(0, self.image.shape[1], self.rows):
                for offset, exponent in self.offsets[first : first + OFFSETS]:
                    self._add_pairs(part, x, row, offset, exponent)
            out += part
        return out

    def _add_pairs(self, out: Tensor, x: Tensor, row: int, offset: tuple[int, ...], exponent: float) -> None:
        sizes = self.image.shape[1:]
        last = min(row + self.rows, sizes[0] - offset[0])
        if last <= row:
            return
        here, there = [slice(None), slice(row, last)], [slice(None), slice(row + offset[0], last + offset[0])]
        for o, n in zip(offset[1:], sizes[1:], strict=True):
            here.append(slice(max(0, -o), min(n, n - o)))
            there.append(slice(max(0, o), min(n, n + o)))
        a, b = tuple(here), tuple(there)
        # (rows, J[, K])
        power = torch.full((), -exponent, device=x.device)
        for channel in self.image:
            difference = channel[a[1:]] - channel[b[1:]]
            power = torch.addcmul(power, difference, difference, value=-0.5)
        kernel = power.clamp_(min=SMALLEST).exp_()
        out[a].addcmul_(x[b], kernel)
        out[b].addcmul_(x[a], kernel)


def _gaussian(n: int, step: float) -> Tensor:
    """(n, n) exp(-d^2 / 2) of points `step` apart, in double."""
    places = step * torch.arange(n, dtype=torch.float64)
    return _bell(0.5 * (places[:, None] - places).square())


def _bell(power: Tensor) -> Tensor:
    return torch.exp(-power).masked_fill_(power > -SMALLEST, 0)


def _factor(n: int, step: float) -> tuple[Tensor | None, Tensor]:
    """Two (n, m) matrices; the second times the first transposed is `_gaussian`. None is the identity."""
    length = step * (n - 1)
    count = math.ceil((length + 2 * MARGIN) / STEP) + 1
    if count >= n:
        return None, _gaussian(n, step)
    places = step * torch.arange(n, dtype=torch.float64)
    nodes = length / 2 + STEP * (torch.arange(count, dtype=torch.float64) - (count - 1) / 2)
    half = _bell((places[:, None] - nodes).square()) * math.sqrt(math.sqrt(2 / math.pi) * STEP)
    return half, half


def _occupied(image: Tensor) -> list[float]:
    """Nodes that some voxel is near to; those between two far apart groups of intensities are left out."""
    low = float(image.min())
    cells = torch.unique(((image - low) / STEP).long())
    reach = math.ceil(MARGIN / STEP) + 1
    wanted = {int(cell) + step for cell in cells for step in range(-reach, reach + 1)}
    return [low + STEP * n for n in sorted(wanted)]


def _along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """x with its `axis`, of length n, replaced by its product with `matrix` (n, m)."""
    if axis == x.dim() - 1:
        return x @ matrix
    flat = x.flatten(axis + 1)
    return torch.matmul(matrix.T, flat).reshape(*x.shape[:axis], matrix.shape[1], *x.shape[axis + 1 :])
