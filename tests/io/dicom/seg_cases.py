"""What the tests of DICOM Segmentations share: label schemes, a label map with hard spots, every orientation."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
from dicom_phantoms import Phantom, euler, write_study

from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"left_lung": 1, "lung nodule": 7, "Ödem": 300})
BRATS = LabelScheme.from_mapping({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]})
MODEL = Algorithm("lung net", "1.2", "9f2c" * 16, "tta=yes")
# Odd sizes, so that frames end inside a byte.
SHAPE = (9, 7, 8)
# The frame of reference of structure sets drawn for the tests.
FRAME = "1.2.826.0.1.3680043.8.498.2.1"

_SIGNED = [
    np.eye(3)[list(order)] * np.array(signs)[:, None]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
ROTATIONS = [matrix for matrix in _SIGNED if np.linalg.det(matrix) > 0]
TURNS = {f"rotation {n}": turn for n, turn in enumerate(ROTATIONS)} | {"oblique": euler(20, -33, 51)}


def a_label_map(shape=SHAPE, values=(1, 7, 300), seed=0):
    """Scattered voxels: holes, parts of one voxel, the border; first, fourth and last slice without any label."""
    rng = np.random.default_rng(seed)
    array = rng.choice([0, 0, *values], shape).astype(np.uint16)
    array[2:6, 2:6, 2] = values[0]
    array[3, 3, 2] = 0
    array[:, :, [0, 3, -1]] = 0
    return array


def volume_on(grid, array):
    return Volume(array, grid.affine)


def grid_in(folder, **fields):
    """The SeriesGrid of a phantom with these fields, written into an emptied folder."""
    shutil.rmtree(folder, ignore_errors=True)
    write_study(folder, Phantom(**{"shape": SHAPE, **fields}))
    return grid_of(find_series(folder)[0])
