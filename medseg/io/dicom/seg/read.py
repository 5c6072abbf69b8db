"""A DICOM Segmentation as a label map: BINARY, FRACTIONAL or LABELMAP (PS3.3 A.51, C.8.20), read with pydicom only."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.geometry import Reorientation, orientation_of
from medseg.io.dicom.labels import painted_regions
from medseg.io.dicom.loading import DEFLATED_FRAMES, load_object, metadata_of, refusing_damage
from medseg.io.dicom.overlaps import Overlaps
from medseg.io.dicom.seg.frames import Frames, frames_of, own_axes, own_grid, slices_in
from medseg.io.dicom.seg.segments import Segment, segments_of
from medseg.io.dicom.tags import tagged
from medseg.labels import LabelScheme
from medseg.machine import free_memory
from medseg.volume import Finding, Volume

__all__ = ["SegmentationObject", "read_dicom_seg"]

# Segmentation Storage, Label Map Segmentation Storage.
_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_WHAT = "a DICOM Segmentation"


@dataclass(frozen=True, slots=True)
class SegmentationObject:
    """A segmentation read from a file.

    Args:
        volume: integers `(I, J, K)` or `(I, J)`, 0 is background.
        segments: the meaning of each value.
        source_series_uid: SeriesInstanceUID of the segmented images, '' if the object names none.
        description: ContentDescription, e.g. 'segmented, none found'.
    """

    volume: Volume
    segments: tuple[Segment, ...]
    source_series_uid: str = ""
    description: str = ""

    @property
    def labels(self) -> dict[str, int]:
        """Label -> value of its voxels."""
        return {s.label: s.value for s in self.segments}

    @property
    def scheme(self) -> LabelScheme:
        """The labels as a scheme; a scheme of regions if medseg wrote the object from regions.

        Raises:
            ConfigError: if the object's labels do not form a scheme.
        """
        if all(s.region for s in self.segments):
            return LabelScheme.from_mapping({s.label: s.region for s in self.segments})
        return LabelScheme.from_mapping(self.labels)


def read_dicom_seg(
    path: str | Path,
    like: Volume | None = None,
    *,
    strict: bool = False,
    values: Mapping[str, int] | None = None,
    keep_overlaps: bool = False,
) -> SegmentationObject:
    """Read a DICOM Segmentation.

    Segments are painted in the order of their numbers, so the later of two overlapping segments is kept, with a finding
    'overlap' (not for regions written by medseg, whose label map has a value for each combination). FRACTIONAL segments
    are cut at 0.5, with a finding 'fractional'. A segment whose frames are not on slices of `like` is left out with
    a finding 'segment_left_out', unless it is the only one.

    Args:
        path: the file.
        like: the segmented volume, its axes in any direction. The result is then on exactly its grid, including empty
            slices; without it, on the smallest regular grid that contains every frame.
        strict: refuse the file if any segment cannot be read, instead of leaving that one out.
        values: read only the segments with these labels, and give them these values; of overlapping ones the largest
            value is kept. The file may contain none of them.
        keep_overlaps: give each combination of overlapping segments a value of its own, and each segment all of its
            values, as `region`.

    Returns:
        The label map and its segments. A voxel has the label value that medseg wrote, otherwise the segment number.

    Raises:
        ReadError: if the file is damaged or not a DICOM Segmentation.
        GeometryError: if frames are not on slices of `like` or in another frame of reference; without `like`, if they
            do not form a regular grid.

    Example:
        >>> found = read_dicom_seg("lung_seg.dcm", like=medseg.read("study/"))
        >>> found.labels
        {'lung': 1, 'tumour': 2}
    """
    path = Path(path)
    with refusing_damage(path, _WHAT):
        dataset = load_object(path, _CLASSES, _WHAT)
        if dataset.get("SegmentationType") not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise ReadError(f"{path} is of no known SegmentationType; expected BINARY, FRACTIONAL or LABELMAP")
        return _read(dataset, path, like, strict, values, keep_overlaps)


def _read(
    dataset: Any,
    path: Path,
    like: Volume | None,
    strict: bool,
    values: Mapping[str, int] | None,
    keep_overlaps: bool,
) -> SegmentationObject:
    segments = segments_of(dataset, path)
    frames = frames_of(dataset, path)
    unknown = (
        set(frames.segments) - {s.number for s in segments} - ({0} if dataset.SegmentationType == "LABELMAP" else set())
    )
    if unknown:
        raise ReadError(f"{path} has frames of segment(s) {sorted(unknown)}, which it does not describe")
    faults: dict[int, GeometryError] = {}
    reference = str(dataset.get("FrameOfReferenceUID", "") or "")
    move = None
    if like is not None:
        known = like.metadata.frame_of_reference_uid
        if reference and known and reference != known:
            raise GeometryError(
                f"{path} and {like.metadata.source or 'the given volume'} are in different frames of reference; give "
                "the images that were segmented"
            )
        slices, count, move = _placed_segments(frames, like, faults)
        affine = like.affine
    else:
        affine, slices, count = own_grid(frames)
    left_out = np.isin(frames.segments, list(faults))
    if faults and strict:
        raise next(iter(faults.values()))
    slices = np.where(left_out, -1, slices)
    segments = tuple(s for s in segments if s.number not in faults)
    if values is not None:
        segments = _with_values(segments, values)
    tables = dict(
        zip((s.number for s in segments), painted_regions([(s.label, s.region) for s in segments]), strict=False)
    )
    largest = max([*(s.value for s in segments), *(int(table.max()) for table in tables.values()), 0])
    small = largest < 256 and not keep_overlaps
    _check_size(dataset, frames, count * (1 if small else 2))
    stack = np.zeros((count, frames.rows, frames.columns), np.uint8 if small else np.uint16)
    overlaps = Overlaps([s.value for s in segments]) if keep_overlaps else None
    painted = _paint(dataset, frames, segments, tables, overlaps, slices, stack)
    if overlaps is not None and any(finding.kind == "overlap" for finding in painted):
        regions = overlaps.regions(np.unique(stack))
        segments = tuple(replace(s, region=regions[s.value]) for s in segments)
    findings = painted + tuple(
        Finding("segment_left_out", f"segment {number} was left out: {error}".replace(f"{path} ", ""), (path.name,))
        for number, error in faults.items()
    )
    flat = like is not None and like.dims == 2
    array = stack[0].T if flat else stack.transpose(2, 1, 0)
    if move is not None:
        array = move.undo(array)
    volume = Volume(array, affine, 0, metadata_of(dataset, path), findings, bool(frames.pixel_spacing))
    if like is not None:
        volume = replace(volume, spacing_known=like.spacing_known)
    series = list(dataset.get("ReferencedSeriesSequence") or [])
    return SegmentationObject(
        volume,
        tuple(s for s in segments if s.value),
        str(series[0].get("SeriesInstanceUID", "")) if len(series) == 1 else "",
        str(dataset.get("ContentDescription", "") or ""),
    )


def _with_values(segments: Sequence[Segment], values: Mapping[str, int]) -> tuple[Segment, ...]:
    """The segments in ascending order of the values that they get; 0 for those that get none."""
    changed = [replace(s, value=values.get(s.label, 0), region=()) for s in segments]
    return tuple(sorted(changed, key=lambda s: s.value))


def _check_size(dataset: Any, frames: Frames, bytes_of_pixel: int) -> None:
    """Refuse a header that claims more pixels than the file contains or the memory can take."""
    size = frames.rows * frames.columns
    of_what = f"{tagged('Rows')} {frames.rows}, {tagged('Columns')} {frames.columns}"
    promised = -(-size * len(frames.segments) * int(dataset.BitsAllocated) // 8)
    if not _is_encapsulated(dataset) and len(dataset.PixelData) < promised:
        raise ReadError(
            f"{frames.path} contains {len(dataset.PixelData)} bytes of pixels, expected {promised} ({of_what}, "
            f"{tagged('NumberOfFrames')} {len(frames.segments)}); it was cut short: copy or export it again"
        )
    free = free_memory()
    if free is not None and size * bytes_of_pixel > free:
        raise ReadError(
            f"{frames.path} needs {size * bytes_of_pixel / 1e9:.1f} GB ({of_what}), but only {free / 1e9:.1f} GB are "
            "free; export it again, or use a larger machine"
        )


def _placed_segments(
    frames: Frames, like: Volume, faults: dict[int, GeometryError]
) -> tuple[NDArray[np.intp], int, Reorientation | None]:
    """As `_placed`; if some segments are not on the grid, they are added to `faults`, and their slices mean nothing.

    Raises:
        GeometryError: if no segment is on the grid.
    """
    try:
        return _placed(frames, like)
    except GeometryError:
        numbers = np.array(frames.segments)
        if frames.positions is None or len(set(frames.segments)) < 2:
            raise
        placed: dict[int, tuple[NDArray[np.intp], int, Reorientation | None]] = {}
        for number in sorted(set(frames.segments)):
            some = numbers == number
            part = replace(frames, segments=(number,) * int(some.sum()), positions=frames.positions[some])
            try:
                placed[number] = _placed(part, like)
            except GeometryError as error:
                faults[number] = error
        if not placed:
            raise
        slices = np.full(len(numbers), -1, np.intp)
        for number, (where, _, _) in placed.items():
            slices[numbers == number] = where
        _, count, move = next(iter(placed.values()))
        return slices, count, move


def _placed(frames: Frames, like: Volume) -> tuple[NDArray[np.intp], int, Reorientation | None]:
    """Slice of each frame, number of slices, and how the axes of `like` were reoriented to match those of the frames.

    Raises:
        GeometryError: if the frames are not on the grid of `like` in any orientation of its axes.
    """
    try:
        return slices_in(frames, like), like.shape[-1] if like.dims == 3 else 1, None
    except GeometryError:
        if like.dims != 3 or frames.positions is None:
            raise
        # A NIfTI copy of the source often has its rows or columns in the opposite direction.
        move = Reorientation.between(like.affine, orientation_of(own_axes(frames)))
        moved = Volume(move.apply(np.broadcast_to(np.uint8(0), like.shape)), move.move_affine(like.affine, like.shape))
        try:
            return slices_in(frames, moved), moved.shape[2], move
        except GeometryError:
            pass
        raise


def _paint(
    dataset: Any,
    frames: Frames,
    segments: tuple[Segment, ...],
    tables: Mapping[int, NDArray[np.int64]],
    combinations: Overlaps | None,
    slices: NDArray[np.intp],
    stack: NDArray[Any],
) -> tuple[Finding, ...]:
    """Fill the stack `[k, j, i]` with label values; returns the findings.

    `tables`: segment number -> value -> value after a region of ours was painted; empty for other objects.
    `combinations`: values of overlapping segments; None to keep the last segment.
    """
    if dataset.SegmentationType == "LABELMAP":
        _paint_label_map(dataset, frames, segments, slices, stack)
        return ()
    by_number = {s.number: s for s in segments}
    fractional = dataset.SegmentationType == "FRACTIONAL"
    half = int(dataset.MaximumFractionalValue) / 2 if fractional else 0.5
    overlaps: dict[tuple[str, str], int] = {}
    label_of = {s.value: s for s in segments}
    # Frames may be stored in any order; overlaps are resolved in the order of the segments. 0 is background.
    rank = {s.number: n for n, s in enumerate(segments) if s.value}
    order = [f for f in np.flatnonzero(slices >= 0).tolist() if frames.segments[f] in rank]
    order.sort(key=lambda f: (rank[frames.segments[f]], f))
    for f, pixels in zip(order, _pixels(dataset, frames, order), strict=True):
        segment, target = by_number[frames.segments[f]], stack[slices[f]]
        mask = pixels >= half
        under = target[mask]
        if tables:
            target[mask] = tables[segment.number][under]
            continue
        for value in np.unique(under) if under.any() else ():
            for own in (int(value),) if combinations is None else combinations.held(int(value)):
                if own in (0, segment.value):
                    continue
                pair = (label_of[own].label, segment.label)
                overlaps[pair] = overlaps.get(pair, 0) + int(np.count_nonzero(under == value))
        target[mask] = segment.value if combinations is None else combinations.painted(under, segment.value)
    findings = []
    if overlaps:
        pairs = "; ".join(f"{a!r} and {b!r} in {n} voxels" for (a, b), n in list(overlaps.items())[:6])
        last = "painted one after the other, so the last named is kept"
        text = f"segments overlap: {pairs}; {last if combinations is None else 'all of each is kept'}"
        findings.append(Finding("overlap", text, (frames.path.name,)))
    if fractional:
        kind = str(dataset.get("SegmentationFractionalType", "fractional")).lower()
        text = f"the segments are fractional ({kind}); voxels of 0.5 and more are included"
        findings.append(Finding("fractional", text, (frames.path.name,)))
    return tuple(findings)


def _paint_label_map(
    dataset: Any, frames: Frames, segments: tuple[Segment, ...], slices: NDArray[np.intp], stack: NDArray[Any]
) -> None:
    background = int(dataset.get("PixelPaddingValue", 0) or 0)
    table = np.full(1 << 16, -1, np.int32)
    table[[s.number for s in segments]] = [s.value for s in segments]
    table[background] = 0
    if len(set(slices.tolist())) < len(slices):
        raise ReadError(f"{frames.path} has several label maps at one position; expected one frame per position")
    order = list(range(len(slices)))
    for f, pixels in zip(order, _pixels(dataset, frames, order), strict=True):
        values = table[pixels]
        if values.min() < 0:
            unknown = sorted({int(v) for v in np.unique(pixels[values < 0])})[:8]
            raise ReadError(f"{frames.path} has segment(s) {unknown}, which it does not describe")
        stack[slices[f]] = values


def _pixels(dataset: Any, frames: Frames, order: list[int]) -> Iterator[NDArray[Any]]:
    """The pixels `[j, i]` of each requested frame, in the requested order."""
    from pydicom.pixels.utils import iter_pixels
    from pydicom.uid import RLELossless

    size = frames.rows * frames.columns
    if _syntax(dataset) == DEFLATED_FRAMES:
        yield from _inflated(dataset, frames, order)
        return
    if int(dataset.BitsAllocated) != 1 or _is_encapsulated(dataset):
        _check_decoder(dataset, frames)
        # On damaged data the faster RLE plugin panics, which is not an Exception and prints to the terminal.
        plugin = "pydicom" if _syntax(dataset) == RLELossless else ""
        for pixels in iter_pixels(dataset, indices=order, decoding_plugin=plugin):
            if pixels.shape != (frames.rows, frames.columns):
                raise ReadError(f"{frames.path} has frames of {pixels.shape}, expected {(frames.rows, frames.columns)}")
            yield pixels
        return
    # Bits are packed across frame boundaries, the lowest bit first (PS3.5 8.1.1 and annex D).
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if dataset["PixelData"].VR == "OW" and not dataset.file_meta.TransferSyntaxUID.is_little_endian:
        packed = packed[: len(packed) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    for f in order:
        start, offset = divmod(f * size, 8)
        bits = np.unpackbits(packed[start : start + -(-(offset + size) // 8)], bitorder="little")
        yield bits[offset : offset + size].reshape(frames.rows, frames.columns)


def _syntax(dataset: Any) -> str:
    return str(dataset.file_meta.TransferSyntaxUID)


def _is_encapsulated(dataset: Any) -> bool:
    return _syntax(dataset) == DEFLATED_FRAMES or bool(dataset.file_meta.TransferSyntaxUID.is_encapsulated)


def _check_decoder(dataset: Any, frames: Frames) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        is_available = False
    if not is_available:
        raise ReadError(
            f"{frames.path} is stored in the transfer syntax {syntax.name} ({syntax}), which no installed decoder "
            "reads; convert it to Explicit VR Little Endian where it comes from"
        )


def _inflated(dataset: Any, frames: Frames, order: list[int]) -> Iterator[NDArray[Any]]:
    """Frames that are deflated one by one (PS3.5 A.4.13), so that bits are not packed across them."""
    from pydicom.encaps import generate_frames

    bits, size = int(dataset.BitsAllocated), frames.rows * frames.columns
    promised = -(-size * bits // 8)
    stored = list(generate_frames(dataset.PixelData, number_of_frames=len(frames.segments)))
    for f in order:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored[f], promised)
        if len(data) < promised:
            raise ReadError(f"{frames.path} has {len(data)} bytes of pixels in frame {f + 1}, expected {promised}")
        pixels = np.frombuffer(data, {1: "u1", 8: "u1", 16: "<u2"}[bits])
        pixels = np.unpackbits(pixels, count=size, bitorder="little") if bits == 1 else pixels
        yield pixels.reshape(frames.rows, frames.columns)
