"""Frames of nuclear medicine objects: one geometry for all of them, and vectors that number them (PS3.3 C.8.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from medseg.errors import ReadError
from medseg.io.dicom.elements import DatasetElements
from medseg.io.dicom.slice import MARKS, SliceHeader
from medseg.io.dicom.tags import impossible, tagged

__all__ = ["nuclear_frames"]

# What else the frames of a reconstruction can differ in, and under which name.
_VECTORS = {"TimeSlotVector": "time point", "RRIntervalVector": "trigger time", "EnergyWindowVector": "acquisition"}


def nuclear_frames(elements: DatasetElements, detectors: Any, base: SliceHeader) -> tuple[SliceHeader, ...]:
    """The slices of a reconstruction (RECON TOMO), or () if the object is not one.

    The first slice lies at the position in Detector Information Sequence, the others SpacingBetweenSlices apart; a
    negative spacing runs against the normal (PS3.3 C.8.4.15).

    Args:
        elements: the header.
        detectors: items of the Detector Information Sequence.
        base: the header of the file as a whole.

    Raises:
        ReadError: if the frames are numbered inconsistently.
        ValueError: for values that are not numbers.
    """
    position, orientation = (
        _of_detector(detectors, k, n)
        for k, n in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
        )
    )
    position, orientation = position or base.position, orientation or base.orientation
    spacing = elements.numbers("SpacingBetweenSlices")
    is_tomographic = any("RECON" in word for word in base.image_type)
    if not (is_tomographic and len(position) == 3 and len(orientation) == 6 and spacing and spacing[0]):
        return ()
    if not np.isfinite([*position, *orientation, spacing[0]]).all():
        values = (*position, *orientation, spacing[0])
        raise ValueError(impossible("DetectorInformationSequence", values, "finite numbers"))
    numbers = {keyword: _vector(elements, keyword, base) for keyword in ("SliceVector", *_VECTORS)}
    slices = numbers["SliceVector"] or tuple(range(1, base.frames + 1))
    step = spacing[0] * np.cross(orientation[:3], orientation[3:])
    frames = []
    for n in range(base.frames):
        marks = list(base.marks)
        for keyword, mark in _VECTORS.items():
            if numbers[keyword]:
                marks[MARKS.index(mark)] = str(numbers[keyword][n])
        place = tuple(float(v) for v in np.array(position) + (slices[n] - 1) * step)
        frames.append(
            replace(
                base,
                frame=n,
                position=place,
                orientation=orientation,
                marks=tuple(marks),
                runs_backwards=spacing[0] < 0,
            )
        )
    return tuple(frames)


def _of_detector(detectors: Any, keyword: str, count: int) -> tuple[float, ...]:
    values = detectors[0].get(keyword) if detectors else None
    return tuple(float(v) for v in values) if values is not None and len(values) == count else ()


def _vector(elements: DatasetElements, keyword: str, base: SliceHeader) -> tuple[int, ...]:
    numbers = tuple(int(v) for v in elements.numbers(keyword))
    if numbers and len(numbers) != base.frames:
        raise ReadError(
            f"{base.path} says it has {base.frames} frames ({tagged('NumberOfFrames')}), but {tagged(keyword)} numbers "
            f"{len(numbers)}; export it again"
        )
    return numbers
