"""The results of a job that may leave the service: the DICOM objects that `predict` wrote, as its ledger knows them."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import ReadError
from medseg.output_formats import MASK_FORMATS, file_names, several_formats
from medseg.studies.ledger import Ledger, hash_file

__all__ = ["LEDGER", "outgoing_files"]

LEDGER = "ledger.jsonl"


def outgoing_files(folder: Path) -> tuple[Path, ...]:
    """The DICOM objects of a job, in the order of their formats; () once they are deleted.

    Args:
        folder: of the job's results.

    Raises:
        ReadError: if one of them is missing or has changed since it was written.
    """
    rows = Ledger(folder / LEDGER).rows
    found = []
    for row in rows:
        kinds = several_formats(row.options.get("format"))
        for kind, name in file_names(row.case, kinds).items():
            if not MASK_FORMATS[kind].needs_series:
                continue
            path = folder / name
            if not path.is_file() or hash_file(path) != (row.outputs.get(kind) or row.output_hash):
                raise ReadError(f"{path} is missing or has changed since it was written; it is not sent")
            found.append(path)
    return tuple(found)
