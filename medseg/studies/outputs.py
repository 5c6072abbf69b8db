"""Writing what was predicted of a case: masks, contours, measurements and a picture, in one or several formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import atomic_path
from medseg.io import write
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import COLOURS
from medseg.io.formats import kind_of
from medseg.labels import LabelScheme
from medseg.output_formats import MASK_FORMATS, several_formats
from medseg.reports.montage import MontageLabel, montage
from medseg.studies.measurements import Measurement
from medseg.studies.sources import Source, open_series, require_series
from medseg.volume import Finding, Metadata, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = [
    "PREVIEWS",
    "UNCERTAINTY",
    "Segmented",
    "algorithm_of",
    "formats_for",
    "refuse_formats",
    "save_probabilities",
    "write_mask",
    "write_voxels",
]

# Folder with a small picture per case; next to the masks they would be mistaken for masks.
PREVIEWS = "previews"
# The same for uncertainty maps.
UNCERTAINTY = "uncertainty"
_LONGEST_NAME = 64  # of a DICOM long string (LO)
# Texts of our objects that come from the program and its model, never from the patient's images.
_OWN_TEXTS = ("ContentSequence", "SeriesDescription")


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A case with what was predicted of it.

    Args:
        mask: integers on the grid of the image.
        image: the image.
        scheme: the meaning of the integers.
        source: where the image came from; DICOM objects refer to its slices.
        measurements: one for each label of the scheme, in its order.
    """

    mask: Volume
    image: Volume
    scheme: LabelScheme
    source: Source
    measurements: Sequence[Measurement]


def formats_for(source: Source, wanted: str | None) -> tuple[str, ...]:
    """The names of a case's formats: the requested ones; otherwise PNG for pictures, else NIfTI."""
    return several_formats(wanted) or (("png",) if kind_of(source.paths[0]) == "raster" else ("nifti",))


def refuse_formats(source: Source, kinds: Sequence[str]) -> None:
    """Refuse a case of which one of the formats cannot be written, before any time is spent on it.

    Raises:
        ReadError: if a DICOM kind is requested for a source that is not a DICOM series.
    """
    if any(MASK_FORMATS[kind].needs_series for kind in kinds):
        require_series(source)


def algorithm_of(scheme: LabelScheme, version: str, model_hash: str, settings: Mapping[str, Any]) -> Algorithm:
    """The description of the model in a DICOM object."""
    name = f"medseg: {', '.join(scheme.names)}"
    return Algorithm(name[:_LONGEST_NAME], version, model_hash, json.dumps(settings, sort_keys=True))


def write_mask(
    case: Segmented,
    files: Mapping[str, Path],
    algorithm: Algorithm,
    deidentifier: Deidentifier | None = None,
) -> tuple[Finding, ...]:
    """Write the files of a case; each appears complete or not at all, and none before all DICOM objects are made.

    Args:
        case: the case and its mask.
        files: key of `MASK_FORMATS` -> the file to write.
        algorithm: the model.
        deidentifier: removes the patient's identity from DICOM objects; NIfTI and PNG contain none anyway.

    Returns:
        Findings about what could not be removed.

    Raises:
        ReadError: if a DICOM kind is requested for a source that is not a DICOM series, or its files are missing.
        WriteError: if the disk is full, permission is missing, or a format cannot store the values.
    """
    from medseg.io.dicom.writing.saving import save_object

    wanted = [kind for kind in files if MASK_FORMATS[kind].needs_series]
    objects: dict[str, Dataset] = {}
    if wanted:
        with open_series(case.source) as grid:
            for kind in wanted:
                objects[kind] = _object(
                    kind, case, files[kind], grid, _of_format(algorithm, kind), objects.get("dicom-seg")
                )
    # The last one first, as PNG may refuse a mask that NIfTI stores.
    for kind in reversed([kind for kind in files if kind not in objects]):
        write_voxels(case.mask, files[kind])
    found: dict[Finding, None] = {}
    for kind, target in objects.items():
        found.update(dict.fromkeys(save_object(target, files[kind], deidentifier, _OWN_TEXTS)))
    return tuple(found)


def write_voxels(volume: Volume, path: Path) -> None:
    """Write a mask or map without anything that the image's header said.

    Raises:
        WriteError: if the disk is full, permission is missing, or the format cannot store the values.
    """
    write(replace(volume, metadata=Metadata(), findings=()), path)


def save_probabilities(probabilities: NDArray[np.float16], scheme: LabelScheme, path: Path) -> None:
    """Write `(labels, I, J[, K])` as `probabilities` of an .npz, with the names of the labels as `labels`.

    Raises:
        WriteError: if the disk is full or permission is missing.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, probabilities=probabilities, labels=np.array(scheme.names))


def _of_format(algorithm: Algorithm, kind: str) -> Algorithm:
    """The model as one object describes it, so that the object is the same whatever is written beside it."""
    return replace(algorithm, options=json.dumps(json.loads(algorithm.options) | {"format": kind}, sort_keys=True))


def _object(
    kind: str, case: Segmented, path: Path, grid: SeriesGrid, algorithm: Algorithm, segmentation: Dataset | None
) -> Dataset:
    """A DICOM object of a case in memory; a report refers to the segmentation, if there is one."""
    if kind == "dicom-seg":
        from medseg.io.dicom.seg.write import segmentation_of

        return segmentation_of(case.mask, path, case.scheme, grid, algorithm)
    if kind == "rtstruct":
        from medseg.io.dicom.rtstruct.write import structure_set_of

        return structure_set_of(case.mask, path, case.scheme, grid, algorithm)
    if kind == "sr":
        from medseg.io.dicom.sr.write import measurement_report_of

        return measurement_report_of(case.measurements, path, grid, algorithm, segmentation)
    from medseg.io.dicom.capture.write import capture_of

    made_by = f"{algorithm.name}, version {algorithm.version}, model {algorithm.model_hash[:12]}"
    picture = montage(case.image, case.mask, _legend(case), made_by, algorithm.review)
    return capture_of(picture, path, grid, algorithm)


def _legend(case: Segmented) -> list[MontageLabel]:
    """The labels with the colours that the segmentation recommends."""
    legend = []
    for n, (name, values, size) in enumerate(
        zip(case.scheme.names, case.scheme.values, case.measurements, strict=True)
    ):
        texts = [f"{size.volume_ml:.1f} ml"] if size.volume_ml is not None else []
        if size.long_axis_mm is not None and size.short_axis_mm is not None:
            texts.append(f"{size.long_axis_mm:.0f} x {size.short_axis_mm:.0f} mm")
        legend.append(MontageLabel(name, values, COLOURS[n % len(COLOURS)], ", ".join(texts)))
    return legend
