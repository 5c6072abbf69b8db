"""NRRD and MetaImage: LPS on disk, RAS+ from here on.

Reading is our own (`nrrd`, `metaimage`), as ITK crashes on some damaged headers and hands out half-read voxels after
others; writing is SimpleITK's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError, WriteError
from medseg.geometry import flip_lps_ras
from medseg.io.atomic import atomic_path
from medseg.volume import Volume

__all__ = ["read_itk", "write_itk"]


def read_itk(path: Path) -> Volume:
    """A NRRD or MetaImage file as it lies on disk, axes in ITK's order; several values per voxel become channels.

    Raises:
        ReadError: damaged header, missing, cut or damaged voxels, complex numbers, or more axes than channels explain.
    """
    if not path.is_file():
        raise ReadError(f"{path} does not exist")
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        from medseg.io.voxel_files.nrrd import read_nrrd

        return read_nrrd(path)
    from medseg.io.voxel_files.metaimage import read_metaimage

    return read_metaimage(path)


def _reason(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else "no reason given"


def write_itk(volume: Volume, path: Path) -> None:
    """Write `.nrrd` or `.mha`, compressed; channels become vector components.

    Raises:
        WriteError: disk full, no permission, sheared grid, or a suffix that needs two files.
    """
    import SimpleITK as sitk

    if path.suffix.lower() in (".mhd", ".nhdr"):
        whole = {".mhd": ".mha", ".nhdr": ".nrrd"}[path.suffix.lower()]
        raise WriteError(
            f"cannot write {path}: {path.suffix} needs a second file for the voxels; write {whole} instead"
        )
    array: NDArray[Any] = volume.array
    if array.dtype == bool or array.dtype == np.float16:
        array = array.astype(np.uint8 if array.dtype == bool else np.float32)
    lps = flip_lps_ras(volume.affine)
    matrix = lps[: volume.dims, : volume.dims]
    spacing = np.array(volume.spacing_mm)
    direction = matrix / spacing
    if not np.allclose(direction.T @ direction, np.eye(volume.dims), atol=1e-3):
        raise WriteError(
            f"cannot write {path}: its axes are not at right angles in {path.suffix}; write .nii.gz instead"
        )
    lead = int(bool(volume.channels))
    order = [*range(array.ndim - 1, lead - 1, -1), *range(lead)]
    image: Any = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(order)), isVector=bool(lead))
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in lps[: volume.dims, 3]])
    image.SetDirection([float(d) for d in direction.ravel()])
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise WriteError(f"cannot write {path}: {_reason(error)}; is the disk full or read-only?") from None
