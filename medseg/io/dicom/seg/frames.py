"""The positions of the frames of a DICOM Segmentation (DICOM PS3.3 C.7.6.16, C.8.20.3), on their own or a given grid.

Writers omit frames in which a segment does not occur, so the frames contain less than their source grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.geometry import flip_lps_ras
from medseg.io.dicom.elements import to_numbers
from medseg.io.dicom.tags import impossible, tagged
from medseg.io.plausible import MOST_PLANES, affine_fault, place_fault, spacing_fault
from medseg.volume import Volume

__all__ = ["Frames", "frames_of", "own_axes", "own_grid", "slices_in"]

# How far a frame may be from its slice, as a fraction of slice spacing and pixel; covers rounding of decimal strings.
_ALONG, _ACROSS, _FLOOR_MM = 0.1, 0.1, 0.01

Floats = NDArray[np.float64]


def _cosine_fault(numbers: Sequence[float]) -> str:
    return "" if max(map(abs, numbers)) < 1.01 else "two unit vectors at right angles"


_FAULTS = {
    "ImagePositionPatient": place_fault,
    "ImageOrientationPatient": _cosine_fault,
    "PixelSpacing": spacing_fault,
}


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one object, in the order of its pixel data. Positions and directions are DICOM's: LPS, millimetres.

    Args:
        path: the file.
        segments: segment number of each frame; 0 for a label map, whose pixel values are segment numbers.
        positions: `(F, 3)`, centre of the first pixel of each frame; None if the object has no frame of reference.
        orientation: direction cosines along a row and down a column, `(2, 3)`.
        pixel_spacing: row spacing and column spacing, empty if unknown.
        step: SpacingBetweenSlices, 0 if unknown.
        thickness: SliceThickness, 0 if unknown.
        rows: pixels down a column.
        columns: pixels along a row.
    """

    path: Path
    segments: tuple[int, ...]
    positions: Floats | None
    orientation: Floats
    pixel_spacing: tuple[float, ...]
    step: float
    thickness: float
    rows: int
    columns: int

    @property
    def normal(self) -> Floats:
        """Row cosines x column cosines."""
        return np.asarray(np.cross(self.orientation[0], self.orientation[1]))

    @property
    def in_plane(self) -> Floats:
        """`(3, 2)`: one pixel along a row and one down a column, in mm."""
        return np.asarray((self.orientation * np.array([[self.pixel_spacing[1]], [self.pixel_spacing[0]]])).T)


def frames_of(dataset: Any, path: Path) -> Frames:
    """The frames of a Segmentation, given as a pydicom Dataset.

    Raises:
        ReadError: if functional groups are missing or contradictory, or a whole slide image is segmented.
        GeometryError: if the frames have several orientations or spacings.
    """
    _check_pixel_module(dataset, path)
    per_frame = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if not per_frame or len(per_frame) != count:
        raise ReadError(
            f"{path} holds {count} frames ({tagged('NumberOfFrames')}) and describes {len(per_frame)}; expected each "
            "frame to be described"
        )

    def group(name: str) -> list[Any]:
        """The item of each frame, or the shared one; empty if any frame lacks it."""
        common = (shared.get(name) or [None])[0] if shared is not None else None
        found = [(item.get(name) or [common])[0] for item in per_frame]
        return [] if any(each is None for each in found) else found

    if group("PlanePositionSlideSequence"):
        raise ReadError(f"{path} segments a whole slide image; expected a segmentation in patient coordinates")
    if dataset.SegmentationType == "LABELMAP":
        segments = (0,) * count
    else:
        segments = tuple(
            int(to_numbers("ReferencedSegmentNumber", [item.ReferencedSegmentNumber])[0])
            for item in group("SegmentIdentificationSequence")
        )
        if len(segments) != count:
            raise ReadError(f"{path} does not say which segment each frame belongs to (SegmentIdentificationSequence)")
    planes, turns, measures = (
        group("PlanePositionSequence"),
        group("PlaneOrientationSequence"),
        group("PixelMeasuresSequence"),
    )
    spacing = _common(measures, "PixelSpacing", 2, path) if measures else None
    orientation, positions = np.eye(3)[:2], None
    if planes and turns and spacing is not None:
        orientation = _unit(_common(turns, "ImageOrientationPatient", 6, path).reshape(2, 3), path)
        positions = np.array([_numbers(item, "ImagePositionPatient", 3, path) for item in planes])
    return Frames(
        path=path,
        segments=segments,
        positions=positions,
        orientation=orientation,
        pixel_spacing=() if spacing is None else (float(spacing[0]), float(spacing[1])),
        step=_length(measures, "SpacingBetweenSlices", path),
        thickness=_length(measures, "SliceThickness", path),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
    )


def _check_pixel_module(dataset: Any, path: Path) -> None:
    """Refuse impossible sizes and bit depths (PS3.3 C.8.20.2)."""
    for keyword, values, expected in (
        ("Rows", range(1, 1 << 16), "at least 1"),
        ("Columns", range(1, 1 << 16), "at least 1"),
        ("BitsAllocated", (1, 8, 16), "1, 8 or 16"),
        ("SamplesPerPixel", (1,), "1"),
        ("MaximumFractionalValue", range(1, 256), "1 to 255"),
    ):
        value = dataset.get(keyword)
        is_needed = keyword not in ("SamplesPerPixel", "MaximumFractionalValue")
        if int(value or 0) not in values and (is_needed or value is not None):
            raise ReadError(f"{path} has {impossible(keyword, int(value or 0), expected)}: export it again")


def _numbers(item: Any, name: str, count: int, path: Path) -> Floats:
    value = item.get(name)
    numbers = np.array(to_numbers(name, value) if value not in (None, "") else ())
    fault = f"{count} finite numbers"
    if len(numbers) == count and np.isfinite(numbers).all():
        fault = _FAULTS[name](numbers.tolist())
    if fault:
        raise ReadError(f"{path} has {impossible(name, numbers.tolist(), fault)}: export it again")
    return numbers


def _length(items: list[Any], name: str, path: Path) -> float:
    """An optional length: 0 if it is absent."""
    value = items[0].get(name) if items else None
    length = abs(to_numbers(name, [value])[0]) if value not in (None, "") else 0.0
    if length != 0 and (fault := spacing_fault([length])):
        raise ReadError(f"{path} has {impossible(name, length, f'0, or {fault}')}: export it again")
    return length


def _common(items: list[Any], name: str, count: int, path: Path) -> Floats:
    """The value that all frames share."""
    numbers = [_numbers(item, name, count, path) for item in ({id(i): i for i in items}).values()]
    if np.ptp(numbers, axis=0).max() > 1e-3:
        raise GeometryError(f"{path} holds frames that differ in {name}; expected one grid for all of them")
    return numbers[0]


def _unit(orientation: Floats, path: Path) -> Floats:
    lengths = np.linalg.norm(orientation, axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(float(orientation[0] @ orientation[1])) > 1e-2:
        values = orientation.ravel().tolist()
        fault = impossible("ImageOrientationPatient", values, "two unit vectors at right angles")
        raise ReadError(f"{path} has {fault}: export it again")
    row = orientation[0] / lengths[0]
    column = orientation[1] - row * (row @ orientation[1])
    return np.stack([row, column / np.linalg.norm(column)])


def own_axes(frames: Frames) -> Floats:
    """An affine (RAS+) with the directions and spacings of the frames, but with the origin at zero."""
    affine = np.eye(4)
    if frames.pixel_spacing:
        affine[:3, :2] = frames.in_plane
        affine[:3, 2] = frames.normal * (frames.step or frames.thickness or 1.0)
    return flip_lps_ras(affine)


def own_grid(frames: Frames) -> tuple[Floats, NDArray[np.intp], int]:
    """The smallest regular grid that contains every frame: its affine (RAS+), slice of each frame, number of slices.

    Slices between two frames are included even if no segment has a frame there; slices before the first and after the
    last frame cannot be known from the object.

    Raises:
        GeometryError: if the positions are not multiples of one spacing, not on one line, or impossibly far apart.
    """
    affine, slices, count = _own_grid(frames)
    if fault := affine_fault(affine, (frames.columns, frames.rows, count)):
        tags = " and ".join(tagged(keyword) for keyword in ("PixelSpacing", "ImagePositionPatient"))
        raise GeometryError(f"{frames.path} has, by {tags}, {fault}: export it again")
    return affine, slices, count


def _own_grid(frames: Frames) -> tuple[Floats, NDArray[np.intp], int]:
    affine = flip_lps_ras(own_axes(frames))
    if frames.positions is None:
        if len(set(frames.segments)) < len(frames.segments):
            raise GeometryError(f"{frames.path} does not give the position of its frames (no plane positions)")
        return flip_lps_ras(affine), np.zeros(len(frames.segments), np.intp), 1
    along = frames.positions @ frames.normal
    first = int(np.argmin(along))
    affine[:3, 3] = frames.positions[first]
    distances = along - along[first]
    steps = np.diff(np.sort(distances))
    steps = steps[steps > _FLOOR_MM]
    if not steps.size:
        return flip_lps_ras(affine), np.zeros(len(along), np.intp), 1
    # Missing slices hide the true spacing, so the object's own value is used if the positions agree with it.
    for step in (frames.step, float(steps.min()), frames.thickness):
        if step <= _FLOOR_MM:
            continue
        slices = np.rint(distances / step)
        last = int(slices.max())
        if last == 0 or last >= MOST_PLANES:
            continue
        end = int(np.argmax(slices))
        vector = (frames.positions[end] - frames.positions[first]) / last
        apart = frames.positions - frames.positions[first] - slices[:, None] * vector
        if np.linalg.norm(apart, axis=1).max() <= max(2 * _FLOOR_MM, _ALONG * step):
            affine[:3, 2] = vector
            return flip_lps_ras(affine), slices.astype(np.intp), last + 1
    raise GeometryError(
        f"{frames.path} has frames at uneven distances ({steps.min():.3f} to {steps.max():.3f} mm along the normal), "
        "which do not form a regular grid; give the source images to read it onto"
    )


def slices_in(frames: Frames, like: Volume) -> NDArray[np.intp]:
    """The slice of `like` that each frame is on.

    Raises:
        GeometryError: if the frames have another size or are not on slices of `like`.
    """
    columns, rows, count = like.shape + (1,) * (3 - like.dims)
    where = f"{frames.path} is not on the grid of {like.metadata.source or 'the given volume'}"
    if (frames.columns, frames.rows) != (columns, rows):
        raise GeometryError(
            f"{where}: its frames are {frames.columns} x {frames.rows} pixels, the slices there {columns} x {rows}"
        )
    if frames.positions is None:
        if count == 1 and len(set(frames.segments)) == len(frames.segments):
            return np.zeros(len(frames.segments), np.intp)
        raise GeometryError(f"{where}: it does not give the position of its frames (no plane positions)")
    lps = flip_lps_ras(like.affine)
    along = (frames.positions - lps[:3, 3]) @ np.linalg.inv(lps[:3, :3])[2]
    slices = np.rint(along)
    # First and opposite pixel of each frame, in voxel indices relative to their expected position.
    first = frames.positions - lps[:3, 3] - slices[:, None] * lps[:3, 2]
    turn = (frames.in_plane - lps[:3, :2]) @ np.array([[columns - 1, 0, columns - 1], [0, rows - 1, rows - 1]])
    apart = np.stack([first, *(first + corner for corner in turn.T)])
    tolerance = np.max([_ALONG * np.linalg.norm(lps[:3, 2]), _FLOOR_MM])
    across = apart - (apart @ frames.normal)[..., None] * frames.normal
    pixel = max(_ACROSS * min(frames.pixel_spacing), _FLOOR_MM)
    off = float(np.linalg.norm(apart, axis=-1).max())
    if np.abs(apart @ frames.normal).max() > tolerance or np.linalg.norm(across, axis=-1).max() > 2 * pixel:
        raise GeometryError(
            f"{where}: frames are up to {off:.2f} mm away from its slices; give the images that were segmented"
        )
    outside = (slices < 0) | (slices >= count)
    if outside.any():
        raise GeometryError(
            f"{where}: {int(outside.sum())} of {len(outside)} frames are on slices beyond its {count}; give all of the "
            "images that were segmented"
        )
    return np.asarray(slices, np.intp)
