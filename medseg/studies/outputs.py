"""The file a predicted mask becomes: NIfTI, PNG, DICOM SEG or RTSTRUCT."""

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

# Folder of a small picture per case; beside the masks they would be taken for masks.
PREVIEWS = "previews"
# The same for maps of uncertainty.
UNCERTAINTY = "uncertainty"
_LONGEST_NAME = 64  # of a DICOM long string (LO)


def format_for(source: Source, wanted: str | None) -> str:
    """The name of the output's format: the one asked for, else PNG for pictures and NIfTI for all else."""
    if wanted is not None:
        return wanted
    return "png" if kind_of(source.paths[0]) == "raster" else "nifti"


def algorithm_of(scheme: LabelScheme, version: str, model_hash: str, settings: Mapping[str, Any]) -> Algorithm:
    """What a DICOM object says about the model that made it."""
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
    """Write a mask; it appears whole or not at all.

    Args:
        mask: integers on the grid of the source.
        path: where it goes.
        kind: a key of `MASK_FORMATS`.
        scheme: what the integers mean.
        source: what was segmented; 'dicom-seg' and 'rtstruct' refer to its slices.
        algorithm: the model.
        deidentifier: removes the patient from a DICOM object; NIfTI and PNG hold nothing of the patient anyway.

    Returns:
        What could not be removed.

    Raises:
        ReadError: a DICOM kind for a source that is no DICOM series, or whose files are gone.
        WriteError: disk full, no permission, values that the format does not hold.
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
