"""The position of the slices of a volume in the terms of a classic DICOM series (PS3.3 C.7.6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError
from medseg.geometry import flip_lps_ras
from medseg.volume import Volume

__all__ = ["SlicePlaces"]

# No gantry tilts further than this, and readers refuse steeper stacks.
_STEEPEST_DEGREES = 45.0
# How far making the in-plane axes orthogonal may move the last row.
_BENT_MM = 1e-2


@dataclass(frozen=True, slots=True)
class SlicePlaces:
    """The position of the slices of a volume, in LPS millimetres.

    Args:
        known: False for an image without physical spacing, for which the other fields are meaningless.
        row: (3,) unit vector from column to column, which is along i.
        column: (3,) unit vector from row to row, which is along j.
        positions: (K, 3) centres of the first pixel of each slice, ordered along the normal.
        spacing: between columns (i) and between rows (j), mm.
        step: between slices along the normal, mm.
        reversed: whether that order is the reverse of k.
    """

    known: bool
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    positions: NDArray[np.float64]
    spacing: tuple[float, float]
    step: float
    reversed: bool

    @classmethod
    def of(cls, volume: Volume, folder: Path) -> SlicePlaces:
        """The positions of a volume's slices; `folder` is what an error message calls the target.

        Raises:
            GeometryError: a grid that a classic series cannot express.
        """
        if not volume.spacing_known and volume.dims == 3:
            raise GeometryError(f"cannot write {folder}: {volume!r} has no known spacing, which DICOM slices must have")
        affine = flip_lps_ras(volume.affine)
        size = (*volume.shape, 1)[:3]
        along_i, along_j, along_k = affine[:3, :3].T
        spacing = float(np.linalg.norm(along_i)), float(np.linalg.norm(along_j))
        row = along_i / spacing[0]
        upright = along_j - row * (row @ along_j)
        # How far the last row moves when the axes are made orthogonal.
        bent = float(np.linalg.norm(upright / np.linalg.norm(upright) * spacing[1] - along_j)) * (size[1] - 1)
        column = upright / np.linalg.norm(upright)
        if bent > _BENT_MM:
            angle = np.degrees(np.arccos(np.clip(row @ along_j / spacing[1], -1, 1)))
            raise GeometryError(
                f"cannot write {folder}: the axes i and j of {volume!r} meet at {angle:.2f} degrees; expected right "
                "angles as in every DICOM image: resample the volume to a straight grid first"
            )
        step = float(along_k @ np.cross(row, column))
        lean = np.degrees(np.arccos(min(1.0, abs(step) / float(np.linalg.norm(along_k)))))
        if size[2] > 1 and lean > _STEEPEST_DEGREES:
            raise GeometryError(
                f"cannot write {folder}: the slices of {volume!r} are tilted by {lean:.1f} degrees, more than a gantry "
                f"(expected at most {_STEEPEST_DEGREES:g}); resample the volume to a straight grid first"
            )
        positions = affine[:3, 3] + np.arange(size[2])[:, None] * along_k
        is_reversed = size[2] > 1 and step < 0
        order = slice(None, None, -1 if is_reversed else 1)
        return cls(volume.spacing_known, row, column, positions[order], spacing, abs(step), is_reversed)
