"""Small CT studies with a DICOM Segmentation (by highdicom) or an RT Structure Set drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_phantoms import Phantom, write_study
from made_segmentations import write_segmentation

from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme
from medseg.volume import Volume

SHAPE = (20, 18, 8)
_PERSON = dict.fromkeys(
    (
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ),
    "",
) | {"PatientPosition": "HFS"}
# A box of each organ, by name, as slices of i and j.
_BOXES = {"Liver": (2, 9), "Spleen": (11, 17), "Heart": (6, 13), "Kidney": (3, 6)}


def phantom(number: int, series: int = 1) -> Phantom:
    """The CT of a patient of this number."""
    return Phantom(
        shape=SHAPE,
        spacing=(1.0, 1.0, 2.0),
        patient=number,
        study=number,
        series=10 * number + series,
        frame_of_reference=number,
        tags=_PERSON,
    )


def mask(name: str) -> np.ndarray:
    """The voxels `[i, j, k]` of an organ."""
    found = np.zeros(SHAPE, bool)
    low, high = _BOXES[name.capitalize()]
    found[low:high, low:high, 2:6] = True
    return found


def write_images(folder: Path, number: int, series: int = 1) -> list[Path]:
    """The slices of a CT of a patient."""
    return write_study(folder, phantom(number, series))


def draw_seg(images: list[Path], path: Path, *names: str) -> None:
    """A DICOM Segmentation whose segments 1 ... n are these organs."""
    write_segmentation(images, [mask(name) for name in names], list(names), path)


def draw_rtstruct(images: list[Path], path: Path, *names: str) -> None:
    """A structure set whose ROIs 1 ... n are these organs."""
    grid = grid_of(find_series(images)[0])
    scheme = LabelScheme.from_mapping({name: n for n, name in enumerate(names, start=1)})
    array = np.zeros(SHAPE, np.uint8)
    for n, name in enumerate(names, start=1):
        array[mask(name)] = n
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rtstruct(Volume(array, grid.affine), path, scheme, grid, Algorithm("a person", "1", "0" * 64, ""))


DRAW = {"seg": draw_seg, "rtstruct": draw_rtstruct}


def write_drawn(folder: Path, number: int, *names: str, kind: str = "seg", place: str = "drawn.dcm") -> None:
    """A folder with the CT of a patient, in `ct/`, and an object with these organs at `place`."""
    DRAW[kind](write_images(folder / "ct", number), folder / place, *names)
