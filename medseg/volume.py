"""`Volume`: an array with its position in the patient and its metadata.

Array axes are `[i, j, k]`, or `[i, j]` in 2D, with channels, if any, first. The affine maps voxel index to
millimetres in RAS+ (x to the patient's right, y anterior, z superior), as in NIfTI; LPS exists only inside `medseg.io`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import nibabel.orientations as nib_orientations
import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.errors import GeometryError

__all__ = ["Finding", "Metadata", "Volume", "orientation_of"]


def orientation_of(affine: NDArray[np.float64]) -> str:
    """Three letters: the anatomical direction that each voxel axis points to, e.g. 'RAS' for the identity."""
    codes = nib_orientations.aff2axcodes(affine)
    return "".join(str(code) for code in codes)


def _is_invertible(affine: NDArray[np.float64]) -> bool:
    # Independent of the size: voxels of an electron microscope fill 1e-18 mm3.
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-12)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The origin of a volume. Identifiers stay in memory: they never reach logs, file names or reports.

    `padding` is the lowest and highest voxel value that marks padding or places outside the field of view, in the units
    of the array as it was read; () if there are none or the file does not tell. Such voxels are not measurements.
    """

    source: str = ""
    modality: str = ""
    patient_id: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    series_description: str = ""
    padding: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One irregularity found while reading: a short stable `kind`, a sentence, and the files it concerns."""

    kind: str
    message: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Volume:
    """An image or label map with its position in the patient.

    Args:
        array: `(I, J, K)` or `(I, J)`; `(C, I, J, K)` or `(C, I, J)` when `channels` is C > 0.
        affine: `(4, 4)`, voxel index to millimetres, RAS+.
        channels: number of leading channels, 0 for none, so a shape is never guessed.
        metadata: origin of the volume.
        findings: irregularities found while reading.
        spacing_known: False for photographs and other files without a physical scale; distances are then in pixels.

    Raises:
        GeometryError: if the array's rank does not fit `channels`, or the affine is not an invertible 4x4 matrix.

    Example:
        >>> volume = Volume(np.zeros((4, 5, 6)), np.diag([1.0, 1.0, 2.5, 1.0]))
        >>> volume.spacing_mm, volume.orientation
        ((1.0, 1.0, 2.5), 'RAS')
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    channels: int = 0
    metadata: Metadata = field(default_factory=Metadata)
    findings: tuple[Finding, ...] = ()
    spacing_known: bool = True

    def __post_init__(self) -> None:
        array = np.asarray(self.array).view()
        affine = np.array(self.affine, dtype=np.float64)
        if self.channels < 0 or (self.channels and (array.ndim < 1 or array.shape[0] != self.channels)):
            raise GeometryError(f"array of shape {array.shape} does not start with {self.channels} channels")
        if array.ndim - bool(self.channels) not in (2, 3):
            raise GeometryError(
                f"array of shape {array.shape} with channels={self.channels} is neither a 2D image nor a 3D volume"
            )
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not _is_invertible(affine):
            raise GeometryError(f"affine must be a finite, invertible 4x4 matrix, found {affine.tolist()}")
        array.flags.writeable = False
        affine.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    def __reduce__(self) -> tuple[Callable[..., Volume], tuple[Any, ...]]:
        # Plain unpickling skips __post_init__ and would hand out writable arrays.
        state = (self.array, self.affine, self.channels, self.metadata, self.findings, self.spacing_known)
        return Volume, state

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return self.array.ndim - bool(self.channels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, without channels."""
        return tuple(self.array.shape[-self.dims :])

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between neighbouring voxel centres along each spatial axis, in mm (in pixels if unknown)."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)[: self.dims])

    @property
    def orientation(self) -> str:
        """Nearest anatomical direction each axis points to, e.g. 'LPS'; 2D images give two letters."""
        return orientation_of(self.affine)[: self.dims]

    @property
    def diagonal_mm(self) -> float:
        """Length of the image's diagonal in mm, which replaces an infinite distance in a mean."""
        return float(np.linalg.norm(np.multiply(self.shape, self.spacing_mm)))

    def with_array(self, array: ArrayLike, channels: int = 0) -> Volume:
        """The same volume with another array on the same grid.

        Raises:
            GeometryError: if the spatial shape differs.
        """
        other = replace(self, array=np.asarray(array), channels=channels)
        if other.shape != self.shape:
            raise GeometryError(f"array of spatial shape {other.shape} does not lie on a grid of shape {self.shape}")
        return other

    def same_geometry(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether both are on the same grid: equal shape, and no corner more than `tolerance_mm` away."""
        if self.shape != other.shape or self.spacing_known != other.spacing_known:
            return False
        size = np.array(self.shape + (1,) * (3 - self.dims)) - 1
        corners = np.array(np.meshgrid(*[(0, n) for n in size])).reshape(3, -1)
        homogeneous = np.vstack([corners, np.ones(corners.shape[1])])
        apart = (self.affine - other.affine) @ homogeneous
        return bool(np.linalg.norm(apart[:3], axis=0).max() <= tolerance_mm)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm) + (" mm" if self.spacing_known else " (pixels)")
        channels = f", channels={self.channels}" if self.channels else ""
        findings = f", findings={len(self.findings)}" if self.findings else ""
        shape = " x ".join(map(str, self.shape))
        orientation = f", {self.orientation}" if self.spacing_known else ""
        return f"Volume({shape}, {spacing}{orientation}, {self.array.dtype}{channels}{findings})"
