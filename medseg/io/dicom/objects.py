"""DICOM objects that contain label maps: recognising them, and reading them onto the series they were drawn on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from medseg.errors import ReadError
from medseg.io.dicom.decode_errors import damage
from medseg.io.dicom.elements import walk
from medseg.io.dicom.grid import SeriesGrid, grid_of
from medseg.io.dicom.loading import load_object, refusing_damage
from medseg.io.dicom.series import Series, scan
from medseg.io.formats import check_source
from medseg.volume import Metadata, Volume

if TYPE_CHECKING:
    from medseg.io.dicom.seg.read import SegmentationObject

__all__ = ["ObjectContents", "ObjectKind", "find_reference", "object_contents", "object_kind", "read_object"]

ObjectKind = Literal["", "dicom-seg", "rtstruct"]
_KINDS: dict[str, ObjectKind] = {
    "1.2.840.10008.5.1.4.1.1.66.4": "dicom-seg",
    "1.2.840.10008.5.1.4.1.1.66.7": "dicom-seg",
    "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct",
}


@dataclass(frozen=True, slots=True)
class ObjectContents:
    """What the header of an object says: names of its segments or ROIs, the series it refers to, and its patient."""

    names: tuple[str, ...]
    series_uids: tuple[str, ...]
    patient_id: str


def object_kind(path: Path) -> ObjectKind:
    """'dicom-seg' for a DICOM Segmentation, 'rtstruct' for an RT Structure Set, '' for everything else."""
    try:
        elements = walk(path)
        return _KINDS.get(_class_in_meta(path) if elements is None else elements.text("SOPClassUID"), "")
    except OSError:
        return ""


def _class_in_meta(path: Path) -> str:
    """The class that the file meta information names, which is never deflated or big-endian; '' without any."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    with warnings.catch_warnings():
        # What is wrong with the header is reported when the object is read.
        warnings.simplefilter("ignore")
        try:
            return str(read_file_meta_info(path).get("MediaStorageSOPClassUID", ""))
        except InvalidDicomError:
            return ""
        except damage():
            return ""


def object_contents(path: Path) -> ObjectContents:
    """The names of the segments or ROIs of an object, and what it was drawn on; no pixel is read.

    Raises:
        ReadError: if the object is damaged or of another kind.
    """
    from medseg.io.dicom.rtstruct.rois import rois_of
    from medseg.io.dicom.seg.segments import segments_of

    what = "a DICOM Segmentation or an RT Structure Set"
    with refusing_damage(path, what):
        dataset = load_object(path, tuple(_KINDS), what, pixels=False)
        patient = str(dataset.get("PatientID", "") or "").strip()
        if _KINDS[dataset.SOPClassUID] == "rtstruct":
            from medseg.io.dicom.rtstruct.read import referenced_series

            return ObjectContents(tuple(r.name for r in rois_of(dataset, path)), referenced_series(path), patient)
        series = [str(each.get("SeriesInstanceUID", "")) for each in dataset.get("ReferencedSeriesSequence") or ()]
        names = tuple(segment.label for segment in segments_of(dataset, path))
        return ObjectContents(names, tuple(dict.fromkeys(filter(None, series))), patient)


def find_reference(study: Path, series_uids: Sequence[str] = ()) -> Series:
    """The series of a study that an object refers to, or the only series of the study.

    Raises:
        ReadError: if the study has several series and the object does not refer to exactly one of them.
    """
    check_source(study)
    found = scan([study] if study.is_file() else study).series
    fitting = [s for s in found if s.uid in series_uids] or list(found)
    if len(fitting) != 1:
        titles = "; ".join(s.title for s in found[:12]) or "none"
        raise ReadError(
            f"{study} contains {len(found)} image series, and the object does not tell which one it belongs to "
            f"({', '.join(filter(None, series_uids)) or 'no UID given'}): {titles}; give the folder of that series"
        )
    return fitting[0]


def read_object(
    path: Path,
    reference: Path | None = None,
    *,
    strict: bool = False,
    values: Mapping[str, int] | None = None,
    keep_overlaps: bool = False,
) -> tuple[Volume, Mapping[str, int | tuple[int, ...]]]:
    """The label map of a DICOM Segmentation or RT Structure Set, and name -> value, or values of a region.

    Args:
        path: the object.
        reference: the study it was drawn on. The result is on the grid of that series, including empty slices. A
            segmentation read without it is on its own grid; a structure set cannot be read without it.
        strict: refuse an object of which an ROI or segment cannot be read, instead of leaving that one out.
        values: read only the segments or ROIs with these names, and give them these values; of overlapping ones the
            largest value is kept. The object may contain none of them.
        keep_overlaps: where segments or ROIs overlap, give each combination of them a value of its own, and each name
            all of its values, instead of keeping the last one.

    Raises:
        ReadError: if the object is damaged or of another kind, or a structure set has no reference.
        GeometryError: if the object is not on the grid of the reference.
    """
    if object_kind(path) == "rtstruct":
        from medseg.io.dicom.rtstruct.read import read_rtstruct, referenced_series

        if reference is None:
            raise ReadError(
                f"{path} is an RT Structure Set, which has no grid; give the study it was drawn on (--reference)"
            )
        grid = grid_of(find_reference(reference, referenced_series(path)))
        return read_rtstruct(path, grid, strict=strict, values=values, keep_overlaps=keep_overlaps)
    from medseg.io.dicom.seg.read import read_dicom_seg

    if reference is None:
        found = read_dicom_seg(path, strict=strict, values=values, keep_overlaps=keep_overlaps)
        return found.volume, _names(found)
    grid = grid_of(find_reference(reference, object_contents(path).series_uids))
    found = read_dicom_seg(path, _empty(grid), strict=strict, values=values, keep_overlaps=keep_overlaps)
    return found.volume, _names(found)


def _names(found: SegmentationObject) -> Mapping[str, int | tuple[int, ...]]:
    regions = [bool(segment.region) for segment in found.segments]
    return found.scheme.mapping if regions and all(regions) else found.labels


def _empty(grid: SeriesGrid) -> Volume:
    """A volume with the geometry of the grid that takes no memory."""
    first = grid.slices[0]
    shape = (first.columns, first.rows) + ((grid.planes,) if len(grid.slices) > 1 else ())
    metadata = Metadata(
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
    )
    array = np.broadcast_to(np.uint8(0), shape)
    return Volume(array, grid.affine, metadata=metadata, spacing_known=grid.spacing_known)
