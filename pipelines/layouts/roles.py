"""Which file of a data set is an image and which a mask: told by the voxels, as names differ from set to set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import medseg
from medseg.disk.directory_walk import is_hidden
from medseg.io.formats import has_dicom_magic, image_files, kind_of, stem_of

__all__ = ["SOFT", "Role", "roles_in"]

# A label map of many structures holds fewer values than any image; a mask with soft edges holds mostly its two ends.
_MOST_VALUES = 64
_LEAST_ENDS = 0.9
SOFT = 255


@dataclass(frozen=True, slots=True)
class Role:
    """What a file (or DICOM folder) is.

    Args:
        path: where it lies.
        shape: its voxels, without channels.
        is_mask: whether it holds labels.
        values: what a mask holds beside 0; (255,) for a mask of 8 bits with soft edges.
    """

    path: Path
    shape: tuple[int, ...]
    is_mask: bool = False
    values: tuple[int, ...] = ()

    @property
    def stem(self) -> str:
        """Its name without suffixes."""
        return self.path.name if self.path.is_dir() else stem_of(self.path)


def roles_in(folder: Path) -> list[Role]:
    """The files of one folder. DICOM folders in it count where no image file does."""
    roles = [_role_of(path) for path in image_files(folder)]
    studies = [p for p in sorted(folder.iterdir()) if p.is_dir() and _is_dicom(p)]
    if all(role.is_mask for role in roles):
        roles += [Role(study, medseg.read(study).shape) for study in studies]
    return roles


def _is_dicom(folder: Path) -> bool:
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not is_hidden(p)]
    return bool(files) and (kind_of(files[0]) == "dicom" or has_dicom_magic(files[0]))


def _role_of(path: Path) -> Role:
    volume = medseg.read(path)
    planes = volume.array if volume.channels else volume.array[None]
    first = planes[0]
    if first.min() < 0 or not all(np.array_equal(first, other) for other in planes[1:]):
        return Role(path, volume.shape)
    distinct = np.unique(first)
    if len(distinct) <= _MOST_VALUES and np.array_equal(distinct, np.rint(distinct)):
        return Role(path, volume.shape, True, tuple(int(v) for v in distinct if v))
    if distinct[-1] == SOFT and float(np.mean((first == 0) | (first == SOFT))) >= _LEAST_ENDS:
        return Role(path, volume.shape, True, (SOFT,))
    return Role(path, volume.shape)
