"""The position of each slice of a grid in the patient: conversion between voxel indices and DICOM's LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import flip_lps_ras
from medseg.io.dicom.grid import SeriesGrid

__all__ = ["SlicePlanes", "planes_of_grid", "planes_of_volume"]

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SlicePlanes:
    """The planes of K slices, LPS mm.

    Args:
        origins: (K, 3), the centre of voxel (0, 0) of each slice.
        along_i, along_j: (K, 3), the vector from a voxel to its neighbour.
        step_mm: usual distance between slices along their normal; the thickness of a single one.
    """

    origins: Vectors
    along_i: Vectors
    along_j: Vectors
    step_mm: float

    @property
    def normal(self) -> Vectors:
        """(3,), the unit normal of the first slice, to which the others are parallel."""
        normal = np.cross(self.along_i[0], self.along_j[0])
        return np.asarray(normal / np.linalg.norm(normal))

    def to_patient(self, k: int, points: Vectors) -> Vectors:
        """(n, 3) LPS mm of the points (n, 2), indices (i, j) on slice k."""
        return np.asarray(self.origins[k] + points[:, :1] * self.along_i[k] + points[:, 1:] * self.along_j[k])

    def to_slice(self, k: int, points: Vectors) -> Vectors:
        """(n, 2) indices (i, j) on slice k of LPS points (n, 3), projected onto the slice along its normal."""
        axes = np.stack([self.along_i[k], self.along_j[k], np.cross(self.along_i[k], self.along_j[k])], axis=1)
        return np.asarray(np.linalg.solve(axes, (points - self.origins[k]).T).T[:, :2])


def planes_of_grid(grid: SeriesGrid) -> SlicePlanes:
    """The planes of the source slices, each from its own header, or those that the grid interpolates between them.

    Args:
        grid: of slices with position, orientation and pixel spacing.
    """
    own = planes_of_volume(grid.affine, grid.planes)
    if grid.places:
        return own
    rows = np.array([s.orientation[:3] for s in grid.slices])
    columns = np.array([s.orientation[3:] for s in grid.slices])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    columns -= rows * (rows * columns).sum(axis=1, keepdims=True)
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    spacing = np.array([s.pixel_spacing or s.detector_spacing for s in grid.slices])
    origins = np.array([s.position for s in grid.slices])
    step = own.step_mm
    if len(origins) > 1:
        step = float(np.median(np.diff(np.sort(origins @ own.normal))))
    return SlicePlanes(origins, rows * spacing[:, 1:], columns * spacing[:, :1], step)


def planes_of_volume(affine: Vectors, planes: int) -> SlicePlanes:
    """The planes of `planes` slices on a regular grid.

    Args:
        affine: (4, 4), RAS+, voxel index to mm.
        planes: length of axis k.
    """
    lps = flip_lps_ras(affine)
    origins = lps[:3, 3] + np.arange(planes)[:, None] * lps[:3, 2]
    along_i, along_j = (np.broadcast_to(lps[:3, axis], (planes, 3)) for axis in (0, 1))
    normal = np.cross(lps[:3, 0], lps[:3, 1])
    return SlicePlanes(origins, along_i, along_j, float(abs(lps[:3, 2] @ normal) / np.linalg.norm(normal)))
