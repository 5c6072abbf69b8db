"""Writing a predicted mask as NIfTI, PNG, DICOM SEG or RTSTRUCT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.io import write
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.formats import kind_of
from medseg.labels import LabelScheme
from medseg.output_formats import MASK_FORMATS
from medseg.studies.sources import Source, open_series
from medseg.volume import Finding, Metadata, Volume

if TYPE_CHECKING:
    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["PREVIEWS", "UNCERTAINTY", "algorithm_of", "format_for", "write_mask"]

# Folder with a small picture per case; next to the masks they would be mistaken for masks.
PREVIEWS = "previews"
# The same for uncertainty maps.
UNCERTAINTY = "uncertainty"
_LONGEST_NAME = 64  # of a DICOM long string (LO)


def format_for(source: Source, wanted: str | None) -> str:
    """The name of the output's format: the requested one; otherwise PNG for pictures, else NIfTI."""
    if wanted is not None:
        return wanted
    return "png" if kind_of(source.paths[0]) == "raster" else "nifti"


def algorithm_of(scheme: LabelScheme, version: str, model_hash: str, settings: Mapping[str, Any]) -> Algorithm:
    """The description of the model in a DICOM object."""
    name = f"medseg: {', '.join(scheme.names)}"
    return Algorithm(name[:_LONGEST_NAME], version, model_hash, json.dumps(settings, sort_keys=True))


def write_mask(
    mask: Volume,
    path: Path,
    kind: str,
    scheme: LabelScheme,
    source: Source,
    algorithm: Algorithm,
    deidentifier: Deidentifier | None = None,
) -> tuple[Finding, ...]:
    """Write a mask; the file appears complete or not at all.

    Args:
        mask: integers on the grid of the source.
        path: the file to write.
        kind: a key of `MASK_FORMATS`.
        scheme: the meaning of the integers.
        source: the segmented case; 'dicom-seg' and 'rtstruct' refer to its slices.
        algorithm: the model.
        deidentifier: removes the patient's identity from a DICOM object; NIfTI and PNG contain none anyway.

    Returns:
        Findings about what could not be removed.

    Raises:
        ReadError: if a DICOM kind is requested for a source that is not a DICOM series, or its files are missing.
        WriteError: if the disk is full, permission is missing, or the format cannot store the values.
    """
    if not MASK_FORMATS[kind].needs_series:
        write(replace(mask, metadata=Metadata(), findings=()), path)
        return ()
    with open_series(source) as grid:
        if kind == "rtstruct":
            from medseg.io.dicom.rtstruct.write import write_rtstruct

            return write_rtstruct(mask, path, scheme, grid, algorithm, deidentifier=deidentifier)
        from medseg.io.dicom.seg.write import write_dicom_seg

        return write_dicom_seg(mask, path, scheme, grid, algorithm, deidentifier=deidentifier)
