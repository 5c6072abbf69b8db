"""How much surface passes through a cell of neighbouring voxels: areas in 3D, lengths in 2D.

A cell lies between the centres of 2x2x2 voxels (2x2 in 2D). Its code reads which of them belong to the mask, first
voxel in the highest bit. The triangles that marching cubes puts into each cell are those of DeepMind's
surface-distance (S. Nikolov et al., arXiv:1809.04430; Apache-2.0), so that areas are equal to theirs: all 256 codes
are 14 cells, turned, mirrored and inverted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["cell_areas"]

Normal = tuple[int, int, int]

# Code -> the normals of its triangles, as absolute components in eighths of a unit cell's face.
_CELLS: dict[int, tuple[Normal, ...]] = {
    0b00000000: (),
    0b00000001: ((1, 1, 1),),
    0b00000011: ((2, 2, 0), (2, 2, 0)),
    0b00000110: ((1, 1, 1), (1, 1, 1)),
    0b00000111: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00001111: ((4, 0, 0), (4, 0, 0)),
    0b00010110: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    0b00010111: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    0b00011000: ((1, 1, 1), (1, 1, 1)),
    0b00011001: ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    0b00011011: ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    0b00011110: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00111100: ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)),
    0b01101001: ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
}


def cell_areas(spacing: Sequence[float]) -> NDArray[np.float64]:
    """Area (2D: length) of the surface in a cell, by code.

    Args:
        spacing: distance of neighbouring voxels along each axis, 2 or 3 numbers.

    Returns:
        `(256,)` or `(16,)`, in the unit of the spacing, squared in 3D.

    Example:
        >>> float(cell_areas((1.0, 2.0))[0b0011]), float(cell_areas((1.0, 2.0, 3.0))[0b00001111])
        (2.0, 6.0)
    """
    if len(spacing) == 2:
        return _lengths(*spacing)
    x, y, z = spacing
    faces = np.array([y * z, x * z, x * y]) / 8.0
    return np.array([sum(float(np.linalg.norm(n * faces)) for n in np.array(cell)) for cell in _turned_cells()])


def _lengths(along_first: float, along_second: float) -> NDArray[np.float64]:
    corner = 0.5 * float(np.hypot(along_first, along_second))
    lengths = np.full(16, corner)
    lengths[[0b0000, 0b1111]] = 0.0
    lengths[[0b0011, 0b1100]] = along_second
    lengths[[0b0101, 0b1010]] = along_first
    lengths[[0b0110, 0b1001]] = 2.0 * corner
    return lengths


@cache
def _turned_cells() -> tuple[tuple[Normal, ...], ...]:
    """The normals of all 256 codes."""
    weights = 1 << np.arange(7, -1, -1).reshape(2, 2, 2)
    cells: dict[int, tuple[Normal, ...]] = {}
    for code, normals in _CELLS.items():
        inside = (code & weights) > 0
        for order in itertools.permutations(range(3)):
            turned = tuple((n[order[0]], n[order[1]], n[order[2]]) for n in normals)
            for flips in itertools.product((1, -1), repeat=3):
                moved = inside.transpose(order)[tuple(slice(None, None, f) for f in flips)]
                found = int(weights[moved].sum())
                cells[found] = cells[255 - found] = turned
    return tuple(cells[code] for code in range(256))
