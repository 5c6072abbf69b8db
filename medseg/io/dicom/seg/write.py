"""A label map as a DICOM Segmentation on its source series (DICOM PS3.3 A.51 and C.8.20), with highdicom.

BINARY has one bit-packed frame per segment and slice, omits empty frames, and lets regions overlap. LABELMAP has one
run-length encoded frame per slice. The same inputs give the same bytes: UIDs are derived from the source instances,
the model and the label map, and dates are the study's.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import WriteError
from medseg.geometry import flip_lps_ras
from medseg.io.dicom.algorithm import Algorithm, derived_uid
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import MANUFACTURER, check_grid, check_labels, plain_text
from medseg.io.dicom.seg.segments import describe
from medseg.io.dicom.seg.source import (
    copy_patient_and_study,
    planes_of,
    read_source_header,
    refer_to,
    series_number,
    with_references,
)
from medseg.io.dicom.writing.saving import save_object
from medseg.labels import LabelScheme
from medseg.volume import Finding, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["Encoding", "segmentation_of", "write_dicom_seg"]

Encoding = Literal["binary", "labelmap"]
_TOLERANCE_MM = 1e-2


def write_dicom_seg(
    label_map: Volume,
    path: Path,
    scheme: LabelScheme,
    source: SeriesGrid,
    algorithm: Algorithm,
    *,
    encoding: Encoding = "binary",
    deidentifier: Deidentifier | None = None,
) -> tuple[Finding, ...]:
    """Write a label map as a DICOM Segmentation that refers to its source series.

    Segments are numbered 1 ... n in the order of the scheme ('binary') or by label value ('labelmap'). The label value
    is stored in SegmentDescription, so that `read_dicom_seg` restores the same integers. A map without any label
    becomes a valid object whose ContentDescription says 'segmented, none found'.

    Args:
        label_map: integers `(I, J, K)`, or `(I, J)` for a single slice, on the grid of `source`.
        path: the file to write; it appears complete or not at all.
        scheme: names and values of the labels. Regions become overlapping segments, as painted.
        source: the series; its first file must still exist.
        algorithm: the model that made the label map.
        encoding: 'binary', or 'labelmap' (Label Map Segmentation Storage; fewer programs read it).
        deidentifier: removes the patient's identity before anything is written.

    Returns:
        Findings about what the deidentifier could not remove; () without one.

    Raises:
        GeometryError: if the label map is not on the grid of the source.
        DatasetError: if it has a value that the scheme does not name.
        ReadError: if the first file of the source is missing or damaged.
        WriteError: if the disk is full, permission is missing, the values are not integers, the source has no UIDs, or
            regions are written as 'labelmap'.

    Example:
        >>> from medseg.io.dicom.grid import grid_of
        >>> from medseg.io.dicom.series import find_series
        >>> series = grid_of(find_series(Path("study/"))[0])
        >>> mask, scheme = medseg.read("masks/study.nii.gz"), LabelScheme.from_mapping({"lung": 1, "tumour": 2})
        >>> write_dicom_seg(mask, Path("lung.dcm"), scheme, series, Algorithm("lung", "1.0", "9f2c"))
        ()
    """
    target = segmentation_of(label_map, path, scheme, source, algorithm, encoding=encoding)
    return save_object(target, Path(path), deidentifier)


def segmentation_of(
    label_map: Volume,
    path: Path,
    scheme: LabelScheme,
    source: SeriesGrid,
    algorithm: Algorithm,
    *,
    encoding: Encoding = "binary",
) -> Dataset:
    """The DICOM Segmentation of `write_dicom_seg` in memory, with the patient's identity.

    Args:
        label_map, scheme, source, algorithm, encoding: see `write_dicom_seg`.
        path: the file that it is for, named in errors.

    Raises:
        GeometryError, DatasetError, ReadError, WriteError: as `write_dicom_seg`, but nothing about the disk.
    """
    path = Path(path)
    if encoding not in ("binary", "labelmap"):
        raise WriteError(f"cannot write {path}: encoding is {encoding!r}; expected 'binary' or 'labelmap'")
    if encoding == "labelmap" and scheme.is_regions:
        raise WriteError(f"cannot write {path}: regions overlap, which a label map cannot hold; use encoding='binary'")
    scheme = scheme.written
    source = with_references(source, path)
    check_grid(label_map, source, path)
    frames = _frames(label_map, scheme, path)
    seeds = _seeds(frames, scheme, source, algorithm, encoding)
    import pydicom.config

    # Headers of the source may break value rules that do not affect our object.
    with pydicom.config.disable_value_validation():
        header = read_source_header(source)
        target: Dataset
        target, found = _segmentation(frames, scheme, source, algorithm, encoding, seeds)
        copy_patient_and_study(header, target, algorithm.made)
        refer_to(source, target)
        _complete(target, header, source)
        target.SeriesDescription = plain_text(algorithm.description)
        target.ContentDescription = (
            target.SeriesDescription
            if found
            else plain_text(f"{'NEEDS REVIEW: ' * algorithm.review}segmented, none found")
        )
        for item in (*target.DimensionOrganizationSequence, *target.DimensionIndexSequence):
            item.DimensionOrganizationUID = derived_uid("dimensions", *seeds)
    return target


def _frames(label_map: Volume, scheme: LabelScheme, path: Path) -> NDArray[Any]:
    """The label map as `[k, j, i]`, contiguous, in the scheme's data type, after checking its values."""
    array = label_map.array
    if array.dtype.kind not in "iub":
        raise WriteError(f"cannot write {path}: a segmentation needs integer labels, found {array.dtype}")
    frames = np.ascontiguousarray(array.T[None] if label_map.dims == 2 else array.transpose(2, 1, 0))
    if frames.dtype.kind in "ub" and frames.dtype.itemsize == 1:
        found = np.flatnonzero(np.sum([np.bincount(f.ravel(), minlength=256) for f in frames], axis=0))
    else:
        found = np.unique(np.concatenate([np.unique(f) for f in frames]))
    values = [int(v) for v in found]
    check_labels(values, scheme, path)
    largest = max(max(each) for each in scheme.values)
    if largest >= 1 << 16:
        raise WriteError(f"cannot write {path}: label value {largest} is above 65535, the largest a segment can have")
    return frames.astype(np.uint16 if largest > 255 else np.uint8, copy=False)


def _seeds(
    frames: NDArray[Any], scheme: LabelScheme, source: SeriesGrid, algorithm: Algorithm, encoding: str
) -> tuple[str, ...]:
    """The texts to derive UIDs from: segmentations that differ in any of them are different objects."""
    return (
        "DICOM SEG",
        *(f"{s.sop_instance_uid} {s.frame}" for s in source.slices),
        *algorithm.identity,
        *(encoding, repr((scheme.names, scheme.values)), hashlib.sha256(frames.data).hexdigest()),
    )


def _segmentation(
    frames: NDArray[Any],
    scheme: LabelScheme,
    source: SeriesGrid,
    algorithm: Algorithm,
    encoding: Encoding,
    seeds: tuple[str, ...],
) -> tuple[Any, bool]:
    """The highdicom object, with placeholders for references and identity, and whether it contains any label."""
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    binary = encoding == "binary"
    filled = [k for k in range(len(frames)) if frames[k].any()]
    # highdicom drops empty frames too, but processes each of them first. At least one frame must remain.
    kept = (filled or [0]) if binary else list(range(len(frames)))
    pixels = frames if len(kept) == len(frames) else frames[kept]
    present = frozenset(int(v) for k in filled for v in np.flatnonzero(np.bincount(frames[k].ravel()))) - {0}
    if binary:
        pixels = _numbered(pixels, scheme)
    instance_uid = derived_uid("instance", *seeds)
    target = Segmentation(
        source_images=planes_of(source, kept),
        pixel_array=pixels,
        segmentation_type=encoding.upper(),
        segment_descriptions=describe(scheme, present, algorithm, instance_uid, numbered=binary),
        series_instance_uid=derived_uid("series", *seeds),
        series_number=1,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=plain_text(algorithm.name),
        software_versions=plain_text(algorithm.version),
        device_serial_number=plain_text(algorithm.model_hash),
        content_label="SEGMENTATION",
        omit_empty_frames=binary and bool(filled),
        transfer_syntax_uid=ExplicitVRLittleEndian if binary else RLELossless,
    )
    if len(kept) < len(frames) and "DimensionOrganizationType" in target:
        # The remaining frames may be evenly spaced, but by more than the spacing between slices.
        del target.DimensionOrganizationType
    return target, bool(filled)


def _numbered(pixels: NDArray[Any], scheme: LabelScheme) -> NDArray[Any]:
    """Label values as segment numbers 1 ... n; for regions one 0/1 plane per region, last."""
    if scheme.is_regions:
        table = scheme.region_table().astype(np.uint8)
        result = np.empty((*pixels.shape, len(scheme.names)), np.uint8)
    elif scheme.values == tuple((n + 1,) for n in range(len(scheme.names))):
        return pixels
    else:
        table = scheme.channel_table().clip(0).astype(np.uint8 if len(scheme.names) < 256 else np.uint16)
        result = np.empty(pixels.shape, table.dtype)
    # numpy turns indices into 64-bit integers, so one slice at a time.
    for frame, out in zip(pixels, result, strict=True):
        out[...] = table[frame]
    return result


def _complete(target: Any, header: Any, source: SeriesGrid) -> None:
    """Fill in the attributes that highdicom does not know, and remove those that differ from run to run."""
    from pydicom.valuerep import DSfloat

    first = source.slices[0]
    target.StudyInstanceUID = first.study_instance_uid
    target.SeriesNumber = series_number(header, str(target.SeriesInstanceUID))
    # A program, not a person: with a caret it is a valid name of only a family name.
    target.ContentCreatorName = f"{MANUFACTURER}^"
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
        if keyword in target:
            delattr(target, keyword)
    if header.get("LossyImageCompression") == "01":
        target.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                setattr(target, keyword, header.get(keyword))
    if "FrameOfReferenceUID" not in target:
        return
    target.FrameOfReferenceUID = first.frame_of_reference_uid or derived_uid("frame", first.series_instance_uid)
    target.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or ""
    measures = target.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if source.planes > 1:
        # Measured along the normal, also where slices are sheared (C.7.6.16.2.1).
        matrix = flip_lps_ras(source.affine)[:3, :3]
        normal = np.cross(matrix[:, 0], matrix[:, 1])
        step = DSfloat(float(abs(matrix[:, 2] @ normal) / np.linalg.norm(normal)), auto_format=True)
        measures.SpacingBetweenSlices = step
        if not measures.get("SliceThickness"):
            measures.SliceThickness = step
    elif measures.get("SliceThickness") is None and "SliceThickness" in measures:
        del measures.SliceThickness
