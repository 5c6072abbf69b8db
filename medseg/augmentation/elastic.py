"""The elastic displacement: a random cubic B-spline in millimetres that cannot fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDING_LIMIT", "control_cells", "cubic_basis", "draw_displacement"]

Floats = NDArray[np.float64]
# Choi and Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical Models 62, 2000:
# no fold where every control displacement stays below the control spacing divided by this.
FOLDING_LIMIT = {2: 2.046392675, 3: 2.479472335}


def control_cells(
    patch: Sequence[int], spacing_mm: Sequence[float], moving_axes: Sequence[int], grid: int
) -> tuple[float, tuple[int, ...]]:
    """Side of a control cell in mm, and how many of them cover the patch along each axis.

    The longest of the moving axes has `grid` cells; all cells are cubes in mm, so that thin patches do not shear more.

    Example:
        >>> control_cells((40, 20), (1.0, 1.0), (0, 1), 4)
        (10.0, (4, 2))
    """
    extents = [p * s for p, s in zip(patch, spacing_mm, strict=True)]
    side = max(extents[axis] for axis in moving_axes) / grid
    return side, tuple(max(1, math.ceil(extent / side - 1e-6)) for extent in extents)


def draw_displacement(
    rng: np.random.Generator,
    patch: Sequence[int],
    spacing_mm: Sequence[float],
    moving_axes: Sequence[int],
    grid: int,
    magnitude: float,
) -> Floats:
    """Random displacements in mm of the control points, (D, cells_0 + 3, ..., cells_D-1 + 3).

    The largest displacement at a knot is between half of `magnitude` and all of it, as a fraction of the patch's extent
    along the axis displaced; the whole field is made weaker where it could fold otherwise (FOLDING_LIMIT).
    """
    dims = len(patch)
    side, cells = control_cells(patch, spacing_mm, moving_axes, grid)
    control = rng.uniform(-1.0, 1.0, (dims, *(c + 3 for c in cells)))
    fraction = rng.uniform(0.5, 1.0) * magnitude
    knots = control
    for axis in range(1, dims + 1):
        length = knots.shape[axis] - 2
        before, at, after = (np.take(knots, range(start, start + length), axis) for start in range(3))
        knots = (before + 4 * at + after) / 6
    for axis in range(dims):
        largest = float(np.abs(knots[axis]).max())
        amplitude = fraction * patch[axis] * spacing_mm[axis] if axis in moving_axes else 0.0
        control[axis] *= amplitude / largest if largest > 0 else 0.0
    limit = 0.99 * side / FOLDING_LIMIT[dims]
    strongest = float(np.abs(control).max())
    return np.asarray(control * min(1.0, limit / strongest) if strongest > 0 else control, dtype=np.float64)


def cubic_basis(at: NDArray[np.floating[Any]], cells: int) -> Floats:
    """(len(at), cells + 3): uniform cubic B-spline weights of the control points at positions in [0, cells].

    The weights of a position add up to 1, and a spline whose control values lie on a line is that line.
    """
    cell = np.clip(np.floor(at), 0, cells - 1).astype(int)
    f = at - cell
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    basis = np.zeros((len(at), cells + 3))
    for shift, weight in enumerate(weights):
        basis[np.arange(len(at)), cell + shift] = weight / 6
    return basis
