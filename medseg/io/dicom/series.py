"""From the headers of many files to series, each of which is one volume.

Images are grouped by SeriesInstanceUID. Within a series localizers are dropped, and stacks that differ in orientation,
size or pixel spacing are split, as are images at the same positions that differ in one of `MARKS`: time points, echoes,
magnitude and phase; and, by file, views without a position, such as radiographs and ultrasound clips, and
reconstructions of nuclear medicine. Exact copies are dropped. What cannot be separated is left for the grid to refuse.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.errors import ReadError
from medseg.io.dicom.frame_checks import is_out_of_space
from medseg.io.dicom.headers import scan_headers
from medseg.io.dicom.repeated_positions import SMALLEST_STACK, moments
from medseg.io.dicom.slice import SliceHeader, are_views, shown
from medseg.volume import Finding

__all__ = ["Scan", "Series", "find_series", "scan"]

_SAME_DIRECTION = 1e-3
_SPACING_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Series:
    """Image frames that make up one volume, in no particular order.

    Args:
        uid: SeriesInstanceUID, '' without one.
        slices: the frames.
        part: what distinguishes this volume from others of the same series; '' if it is the only one.
        number: 1, 2, ... among the volumes of the same series; 0 if it is the only one.
        findings: findings made while splitting the series.
    """

    uid: str
    slices: tuple[SliceHeader, ...]
    part: str = ""
    number: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def key(self) -> str:
        """The identifier of this volume: the SeriesInstanceUID, followed by '#2' for the second volume of a series."""
        return f"{self.uid}#{self.number}" if self.number else self.uid

    @property
    def title(self) -> str:
        """Key, modality, description, part and number of images in one phrase, for choosing a series."""
        first = self.slices[0]
        words = " ".join(w for w in (first.modality, repr(first.description) if first.description else "") if w)
        count = len(self.slices)
        images = shown(self.slices) if count < SMALLEST_STACK else f"{count} images"
        return f"{self.key or '(no SeriesInstanceUID)'} ({', '.join(w for w in (words, self.part, images) if w)})"


@dataclass(frozen=True, slots=True)
class Scan:
    """The image series in some files, the damaged files, and the number of files that are not images."""

    series: tuple[Series, ...]
    damaged: tuple[tuple[Path, ReadError], ...]
    passed_over: int


def scan(source: Path | Iterable[Path]) -> Scan:
    """Every image series in the given files, or in a folder and its sub-folders, ordered by UID.

    Damaged files are returned alongside the series, so that one does not hide the others. Files without a
    SeriesInstanceUID form one series per folder; copies of a study in several folders stay separate.
    """
    headers = scan_headers(source)
    groups: dict[tuple[str, str], list[SliceHeader]] = {}
    for frame in headers.frames:
        uid = frame.series_instance_uid
        groups.setdefault((uid, "" if uid else str(frame.path.parent)), []).append(frame)
    found: list[Series] = []
    for (uid, _), frames in sorted(groups.items()):
        for copy in _by_folder_of_copies(frames):
            found += _volumes(Series(uid, tuple(copy)))
    return Scan(tuple(found), headers.damaged, headers.passed_over)


def find_series(source: Path | Iterable[Path]) -> list[Series]:
    """Like `scan`, but only the series.

    Raises:
        ReadError: for a DICOM image whose header is damaged.
    """
    found = scan(source)
    if found.damaged:
        raise found.damaged[0][1]
    return list(found.series)


def _by_folder_of_copies(frames: list[SliceHeader]) -> list[list[SliceHeader]]:
    """The frames, split by folder if sibling folders contain the same images.

    Those are copies of a study; copies in a sub-folder are a backup of the slices, and dropped like any other copy.
    """
    folders = sorted({f.path.parent for f in frames})
    nested = all(folder.is_relative_to(folders[0]) for folder in folders)
    if nested or len({(f.sop_instance_uid, f.frame) for f in frames}) == len(frames):
        return [frames]
    copies: dict[Path, list[SliceHeader]] = {folder: [] for folder in folders}
    for frame in frames:
        copies[frame.path.parent].append(frame)
    return list(copies.values())


def _volumes(series: Series) -> list[Series]:
    """The volumes of one series; the grid later refuses several patients or studies and impossible positions."""
    if len({(s.patient_id, s.study_instance_uid) for s in series.slices}) > 1:
        return [series]
    series = _without_localizers(series)
    if any(is_out_of_space(s) for s in series.slices):
        return [series]
    parts = []
    for stack in _by_file(series) or _stacks(series):
        for part, slices, findings in moments(stack.slices):
            words = ", ".join(w for w in (stack.part, part) if w)
            parts.append(replace(stack, slices=slices, part=words, findings=(*stack.findings, *findings)))
    return parts if len(parts) == 1 else [replace(p, number=n) for n, p in enumerate(parts, start=1)]


def _without_localizers(series: Series) -> Series:
    scouts = tuple(s for s in series.slices if s.is_localizer)
    if not scouts or len(scouts) == len(series.slices):
        return series
    text = f"{len(scouts)} localizer image(s) among the slices were skipped: {shown(scouts)}"
    finding = Finding("localizer_dropped", text, tuple(s.name for s in scouts))
    rest = tuple(s for s in series.slices if not s.is_localizer)
    return replace(series, slices=rest, findings=(*series.findings, finding))


def _by_file(series: Series) -> list[Series]:
    """A series per file, if each file is an image of its own: radiographs, clips, nuclear reconstructions."""
    files: dict[Path, list[SliceHeader]] = {}
    for s in series.slices:
        files.setdefault(s.path, []).append(s)
    are_volumes = all(s.modality == "NM" and s.frames > 1 for s in series.slices)
    if len(files) == 1 or not (are_volumes or are_views(series.slices)):
        return []
    # Copies of an object, as in a backup folder, count once.
    objects = {frames[0].sop_instance_uid or str(path): (path, frames) for path, frames in reversed(files.items())}
    parts = [replace(series, slices=tuple(frames), part=f"file {path.name}") for path, frames in objects.values()]
    return parts[::-1]


def _stacks(series: Series) -> list[Series]:
    """One series per orientation, StackID, size, pixel spacing, and grey or colour."""
    groups: list[list[SliceHeader]] = []
    for turned in _by_orientation(series.slices):
        kinds: dict[tuple[object, ...], list[SliceHeader]] = {}
        for s in turned:
            spacing = tuple(round(v, _SPACING_DECIMALS) for v in s.pixel_spacing)
            kinds.setdefault((s.stack_id, s.rows, s.columns, s.is_colour, spacing), []).append(s)
        # A single slice of another size may be the one that the stack lacks, so they stay together and are refused.
        has_outlier = len(kinds) > 1 and min(map(len, kinds.values())) < SMALLEST_STACK
        groups += [turned] if has_outlier else kinds.values()
    if len(groups) == 1:
        return [replace(series, slices=tuple(groups[0]))]
    return [replace(series, slices=tuple(g), part=_looks(g[0])) for g in groups]


def _by_orientation(slices: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Groups of slices within 1e-3 of the direction of their first one; the first matching group is used."""
    groups: list[list[SliceHeader]] = []
    known: dict[tuple[float, ...], list[SliceHeader]] = {}
    # Hashed by the cells of a grid, because a damaged series can have as many directions as slices.
    cells: dict[tuple[float, ...], list[int]] = {}
    for s in slices:
        members = known.get(s.orientation)
        if members is None:
            near = {n for cell in _cells(s.orientation, 1.001 * _SAME_DIRECTION) for n in cells.get(cell, ())}
            number = next((n for n in sorted(near) if _same_direction(s, groups[n][0])), len(groups))
            if number == len(groups):
                groups.append([])
                cells.setdefault(next(_cells(s.orientation, 0.0)), []).append(number)
            members = known[s.orientation] = groups[number]
        members.append(s)
    return groups


def _same_direction(a: SliceHeader, b: SliceHeader) -> bool:
    return all(abs(x - y) <= _SAME_DIRECTION for x, y in zip(a.orientation, b.orientation, strict=True))


def _cells(direction: tuple[float, ...], around: float) -> Iterator[tuple[float, ...]]:
    """The cells, twice the tolerance wide, that a box around a direction touches: at most two per axis."""
    return itertools.product(*({_cell(v - around), _cell(v + around)} for v in direction))


def _cell(value: float) -> float:
    number = value / (2.01 * _SAME_DIRECTION)
    return math.floor(number) if math.isfinite(number) else value


def _looks(first: SliceHeader) -> str:
    size = f"{first.columns} x {first.rows} pixels"
    if len(first.orientation) != 6:
        return size
    normal = np.abs(np.cross(first.orientation[:3], first.orientation[3:]))
    plane = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    return f"{plane}, {size}" + (f", stack {first.stack_id}" if first.stack_id else "")
