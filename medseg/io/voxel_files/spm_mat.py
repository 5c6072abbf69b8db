"""SPM's `.mat` beside an image: an affine that stands instead of the header's.

Read as nibabel does: `mat` is the affine, `M` the affine of an image whose first axis is not yet flipped; both count
voxels from 1. A file with one affine per time point counts with its first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.io.formats import stem_of

__all__ = ["spm_affine", "spm_file_of"]

# SPM's files hold a matrix or two; anything longer is something else.
_LONGEST = 1 << 22


def spm_file_of(path: Path) -> Path | None:
    """The `.mat` beside an image; None if there is none."""
    beside = path.with_name(f"{stem_of(path)}.mat")
    return beside if beside.is_file() else None


def spm_affine(mat: Path) -> NDArray[np.float64] | None:
    """The affine `(4, 4)` in a `.mat`, voxel index from 0 to mm, RAS+; None if the file is not one of SPM's."""
    from scipy.io import loadmat

    try:
        if mat.stat().st_size > _LONGEST:
            return None
        found = loadmat(mat, variable_names=("mat", "M"))
        from_one = np.asarray(found["mat"] if "mat" in found else found["M"], np.float64)
    except Exception:  # scipy lets every exception of its parsers through, and FSL calls its text files .mat as well
        return None
    from_one = from_one[:, :, 0] if from_one.ndim == 3 and from_one.shape[2] else from_one
    if from_one.shape != (4, 4) or not np.isfinite(from_one).all():
        return None
    if "mat" not in found:
        from_one = np.diag([-1.0, 1.0, 1.0, 1.0]) @ from_one
    to_one = np.eye(4)
    to_one[:3, 3] = 1.0
    return np.asarray(from_one @ to_one)
