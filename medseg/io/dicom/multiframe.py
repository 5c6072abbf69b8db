"""Frames of multi-frame files: enhanced objects give each frame's position in functional groups, others rarely do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from medseg.errors import ReadError
from medseg.io.dicom.elements import Elements, to_numbers
from medseg.io.dicom.slice import SliceHeader
from medseg.io.dicom.tags import impossible, tagged
from medseg.io.plausible import FARTHEST_MM

__all__ = ["functional_frames", "plain_frames"]

_MOST_FRAMES = 2**16
# Dimensions that count the slices of a volume: StackID separates volumes by itself; InStackPositionNumber,
# ImagePositionPatient, PlanePositionSequence, SliceLocation; TemporalPositionIndex has a mark of its own.
_OF_SLICES = frozenset({0x00209056, 0x00209057, 0x00200032, 0x00209113, 0x00201041, 0x00209128})


def functional_frames(dataset: Any, base: SliceHeader) -> tuple[SliceHeader, ...]:
    """The frames of an enhanced multi-frame object (DICOM PS3.3 C.7.6.16); per-frame groups override shared ones.

    Args:
        dataset: pydicom data set.
        base: the header of the file as a whole.

    Raises:
        ReadError: if NumberOfFrames and the functional groups disagree.
        ValueError, AttributeError: if the groups are damaged.
    """
    per_frame = dataset.PerFrameFunctionalGroupsSequence
    shared = dataset.get("SharedFunctionalGroupsSequence") or [None]
    if len(per_frame) != base.frames:
        raise ReadError(
            f"{base.path} says it has {base.frames} frames ({tagged('NumberOfFrames')}), but describes "
            f"{len(per_frame)}; export it again"
        )
    dimensions = _separating(dataset)
    return tuple(_frame(base, n, _Groups(own, shared[0], n + 1), dimensions) for n, own in enumerate(per_frame))


def _separating(dataset: Any) -> tuple[int, ...]:
    """Which of the Dimension Index Values do not count slices."""
    pointers = [item.get("DimensionIndexPointer") for item in dataset.get("DimensionIndexSequence") or ()]
    return tuple(n for n, pointer in enumerate(pointers) if pointer is not None and int(pointer) not in _OF_SLICES)


class _Groups:
    """The functional groups of one frame."""

    def __init__(self, own: Any, shared: Any, frame: int) -> None:
        self._own, self._shared, self._frame = own, shared, frame

    def value(self, sequence: str, keyword: str) -> Any:
        """The value of an attribute in a group; None if absent."""
        for place in (self._own, self._shared):
            items = place.get(sequence) if place is not None else None
            if items:
                value = items[0].get(keyword)
                return None if value == "" else value
        return None

    def numbers(self, sequence: str, keyword: str, count: int) -> tuple[float, ...]:
        value = self.value(sequence, keyword)
        if value is None or len(value) != count:
            return ()
        return self._finite(keyword, value)

    def gradient(self) -> str:
        """The direction of a diffusion gradient, '' without one."""
        items = self.value("MRDiffusionSequence", "DiffusionGradientDirectionSequence")
        value = items[0].get("DiffusionGradientOrientation") if items else None
        return "" if value is None else " ".join(f"{v:g}" for v in self._finite("DiffusionGradientOrientation", value))

    def indices(self, dimensions: tuple[int, ...]) -> str:
        """The Dimension Index Values of some dimensions (PS3.3 C.7.6.17)."""
        value = self.value("FrameContentSequence", "DimensionIndexValues")
        values = [] if value is None else list(value) if hasattr(value, "__iter__") else [value]
        return " ".join(str(values[n]) for n in dimensions if n < len(values))

    def text(self, sequence: str, keyword: str) -> str:
        value = self.value(sequence, keyword)
        return "" if value is None else str(value)

    def number(self, sequence: str, keyword: str, otherwise: float) -> float:
        value = self.value(sequence, keyword)
        return otherwise if value is None else self._finite(keyword, [value])[0]

    def _finite(self, keyword: str, values: Iterable[Any]) -> tuple[float, ...]:
        numbers = to_numbers(keyword, values)
        if not np.isfinite(numbers).all():
            raise ValueError(f"frame {self._frame}: {impossible(keyword, numbers, 'finite numbers')}")
        return numbers


def _frame(base: SliceHeader, number: int, groups: _Groups, dimensions: tuple[int, ...]) -> SliceHeader:
    kind = next(
        (
            value
            for sequence in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
            if (value := groups.value(sequence, "FrameType")) is not None
        ),
        base.image_type,
    )
    image_type = (kind,) if isinstance(kind, str) else tuple(str(v) for v in kind)
    content = "FrameContentSequence"
    position = groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = groups.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    slope = groups.number("PixelValueTransformationSequence", "RescaleSlope", base.slope)
    intercept = groups.number("PixelValueTransformationSequence", "RescaleIntercept", base.intercept)
    index = groups.value(content, "InStackPositionNumber")
    return replace(
        base,
        frame=number,
        image_type=image_type,
        instance_number=None if index is None else int(index),
        position=position or base.position,
        orientation=orientation or base.orientation,
        pixel_spacing=spacing or base.pixel_spacing,
        thickness=groups.number("PixelMeasuresSequence", "SliceThickness", base.thickness),
        slope=slope,
        intercept=intercept,
        marks=(
            "\\".join(image_type),
            groups.text(content, "StackID"),
            groups.text(content, "TemporalPositionIndex"),
            groups.text("MREchoSequence", "EffectiveEchoTime"),
            groups.text("MRDiffusionSequence", "DiffusionBValue"),
            groups.gradient(),
            groups.text("CTReconstructionSequence", "ConvolutionKernel"),
            groups.text("CTXRayDetailsSequence", "KVP"),
            groups.text("MRModifierSequence", "InversionTimes"),
            groups.text("MRTimingAndRelatedParametersSequence", "FlipAngle"),
            groups.text("MRImageFrameTypeSequence", "ComplexImageComponent"),
            "",
            groups.text("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
            groups.text("PETFrameAcquisitionSequence", "FrameReferenceTime"),
            groups.text(content, "FrameAcquisitionNumber"),
            groups.indices(dimensions),
            groups.text(content, "FrameAcquisitionDateTime"),
        ),
    )


def plain_frames(elements: Elements, base: SliceHeader) -> tuple[SliceHeader, ...]:
    """The frames of a multi-frame object without functional groups.

    Radiotherapy doses give offsets along the normal (PS3.3 C.8.8.3.2); other objects, such as ultrasound loops, give
    no position, so their frames cannot form a volume.

    Raises:
        ReadError: if there are more frames than any object has.
    """
    if base.frames > _MOST_FRAMES:
        raise ReadError(
            f"{base.path} says it has {base.frames} frames ({tagged('NumberOfFrames')}), more than the {_MOST_FRAMES} "
            "that are read; export it again"
        )
    offsets = elements.numbers("GridFrameOffsetVector")
    outlier = next((offset for offset in offsets if not abs(offset) <= FARTHEST_MM), None)
    if outlier is not None:
        fault = impossible("GridFrameOffsetVector", outlier, f"offsets within {FARTHEST_MM:g} mm")
        raise ReadError(f"{base.path} has {fault}: export it again", kind="impossible_value")
    if offsets and len(offsets) != base.frames:
        raise ReadError(
            f"{base.path} says it has {base.frames} frames ({tagged('NumberOfFrames')}), but gives {len(offsets)} "
            f"offsets ({tagged('GridFrameOffsetVector')}); export it again"
        )
    if offsets and len(base.position) == 3 and len(base.orientation) == 6:
        normal = np.cross(base.orientation[:3], base.orientation[3:])
        # The first offset is 0; in very old files it is the position itself, and so are the others.
        places = [np.array(base.position) + normal * (offset - offsets[0]) for offset in offsets]
        return tuple(replace(base, frame=n, position=tuple(map(float, p))) for n, p in enumerate(places))
    return tuple(replace(base, frame=n, position=()) for n in range(base.frames))
