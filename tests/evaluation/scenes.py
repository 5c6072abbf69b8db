"""Small folders of masks for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.io import write
from medseg.volume import Volume

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (14, 16, 8)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write a volume; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Volume(array, affine), path)
    return path


def box(length: int, value: int = 1) -> np.ndarray:
    """A mask of `length` x 4 x 4 voxels from one corner."""
    array = np.zeros(SHAPE, np.uint8)
    array[2 : 2 + length, 4:8, 2:6] = value
    return array


def folders(root: Path, lengths: dict[str, int], ref_length: int = 10) -> tuple[Path, Path]:
    """`pred/` with boxes of the given lengths, `ref/` with boxes of `ref_length`."""
    for case, length in lengths.items():
        save(root / "pred" / f"{case}.nii.gz", box(length))
        save(root / "ref" / f"{case}.nii.gz", box(ref_length))
    return root / "pred", root / "ref"
