"""The PatientID of an image, read from one header without its pixels."""

from __future__ import annotations

import re
from pathlib import Path

from medseg.disk.directory_walk import is_hidden
from medseg.errors import ReadError
from medseg.io.dicom.headers import read_headers
from medseg.io.formats import has_dicom_magic, is_dicom_directory, may_be_dicom

__all__ = ["patient_id_of"]

# What de-identification and phantoms put in place of an ID says nothing about who the patient is.
_NOBODY = re.compile(
    r"(?:anon\w*|anonymi[sz]ed|de-?identified|removed|unknown|none|null|n/?a|no ?(?:id|name)|patient(?: ?id)?|test|"
    r"phantom|[x0*?._ -]*)",
    re.IGNORECASE,
)
# Reports and directories may lie beside the images of a study.
_MOST_TRIED = 8


def patient_id_of(image: Path) -> str:
    """PatientID (0010,0020) of a DICOM file, or of the first image in a folder of a study.

    '' for everything else, for an image without one, and for what stands in place of one ('ANON', '0000', 'unknown').
    The result identifies a person: compare it, and keep it in memory only.
    """
    if image.is_dir():
        files = sorted(path for path in image.rglob("*") if path.is_file() and not is_hidden(path))
    else:
        files = [image]
    tried = 0
    for path in files:
        if not may_be_dicom(path) or is_dicom_directory(path):
            continue
        tried += 1
        if tried > _MOST_TRIED:
            break
        try:
            if not has_dicom_magic(path):
                continue
            headers = read_headers(path)
        except ReadError:
            # Reading the whole image later says what is wrong with it.
            continue
        if not headers:
            continue
        found = headers[0].patient_id.strip()
        return "" if _NOBODY.fullmatch(found) else found
    return ""
