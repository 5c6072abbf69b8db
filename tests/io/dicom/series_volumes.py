"""Volumes in every orientation, and how a DICOM series stores them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from medseg.io.dicom.grid import SeriesGrid, grid_of
from medseg.io.dicom.series import find_series
from medseg.volume import Metadata, Volume

CT, MR = Metadata(modality="CT"), Metadata(modality="MR")
TURNS = [
    np.array([[sign[a] * (order[b] == a) for b in range(3)] for a in range(3)], float)
    for order in itertools.permutations(range(3))
    for sign in itertools.product([1, -1], repeat=3)
]
OBLIQUE = np.linalg.qr(np.array([[0.94, -0.29, 0.2], [0.31, 0.94, -0.1], [-0.16, 0.15, 0.97]]))[0]


def placed(turn: np.ndarray, spacing=(0.8, 1.1, 2.5), origin=(-31.25, 12.5, 7.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = origin
    return affine


def counted(shape=(5, 4, 3), dtype=np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)) - 17).reshape(shape).astype(dtype)


def grid(folder: Path) -> SeriesGrid:
    (series,) = find_series(folder)
    return grid_of(series)


def as_read(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine in DICOM's order of slices: k reversed where the axes are left-handed."""
    if np.linalg.det(volume.affine[:3, :3]) > 0:
        return volume.array, volume.affine
    back = np.diag([1.0, 1, -1, 1])
    back[2, 3] = volume.shape[2] - 1
    return volume.array[..., ::-1], volume.affine @ back
