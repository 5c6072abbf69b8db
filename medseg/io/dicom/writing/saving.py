"""Saving DICOM objects made in memory, optionally de-identified."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.disk.atomic import atomic_path
from medseg.volume import Finding

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["save_object"]


def save_object(
    target: Dataset, path: Path, deidentifier: Deidentifier | None = None, own: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Write a DICOM object; the file appears complete or not at all.

    Args:
        target: the object with its file meta information.
        path: the file to write.
        deidentifier: removes the patient's identity before a byte is written; None keeps it.
        own: keywords of attributes whose texts the program made and the deidentifier keeps, see `Deidentifier.apply`.

    Returns:
        Findings about what could not be removed, see `medseg.io.dicom.deidentify.profile.deidentify`.

    Raises:
        WriteError: if the disk is full or permission is missing.
    """
    import pydicom
    from pydicom.config import disable_value_validation

    # Values copied from the source may break rules that do not matter here.
    with disable_value_validation(), atomic_path(path) as temporary:
        if deidentifier is None:
            target.save_as(temporary, enforce_file_format=True)
            return ()
        # Parsed again, because objects made in memory share items, whose UIDs would be replaced once per reference, and
        # contain sequences that are encoded already.
        encoded = io.BytesIO()
        target.save_as(encoded, enforce_file_format=True)
        encoded.seek(0)
        with warnings.catch_warnings():
            # pydicom warns about values that are about to be replaced, and quotes them.
            warnings.filterwarnings("ignore", module=r"pydicom\.")
            parsed = pydicom.dcmread(encoded)
            del encoded
            findings = deidentifier.apply(parsed, own)
            pydicom.dcmwrite(temporary, parsed, enforce_file_format=True)
    return tuple(Finding(f.kind, f.message, (path.name,)) for f in findings)
