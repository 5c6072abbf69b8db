"""The results of a job: what `predict` wrote, and the DICOM objects as they may leave the service."""

from __future__ import annotations

from pathlib import Path

import pydicom

from medseg.disk.atomic import atomic_path

__all__ = ["OUTGOING", "marked_results", "outgoing_files", "result_files"]

OUTGOING = "outgoing"
_LONGEST_DESCRIPTION = 64  # of a DICOM long string (LO)
_BESIDE = ("ledger.jsonl", "measurements.csv", "labels.json")


def result_files(folder: Path, case: str) -> tuple[Path, ...]:
    """The masks and reports of a case in an output folder of `predict`, by name."""
    found = (path for path in folder.glob(f"{case}.*") if path.is_file() and path.name not in _BESIDE)
    return tuple(sorted(found))


def outgoing_files(folder: Path) -> tuple[Path, ...]:
    """The files of a job that may leave the service, by name; () once they are deleted."""
    return tuple(sorted((folder / OUTGOING).glob("*.dcm")))


def marked_results(folder: Path, case: str, prefix: str) -> tuple[Path, ...]:
    """Copies of the DICOM results in `outgoing/`, the SeriesDescription begun with `prefix`; the same bytes each time.

    Raises:
        WriteError: if the disk is full or permission is missing.
    """
    written = []
    for path in result_files(folder, case):
        if path.suffix != ".dcm":
            continue
        data = pydicom.dcmread(path)
        description = str(data.get("SeriesDescription", ""))
        if prefix and not description.upper().startswith(prefix.upper()):
            data.SeriesDescription = f"{prefix} {description}".strip()[:_LONGEST_DESCRIPTION]
        target = folder / OUTGOING / path.name
        with atomic_path(target) as temporary:
            data.save_as(temporary, enforce_file_format=True)
        written.append(target)
    return tuple(written)
