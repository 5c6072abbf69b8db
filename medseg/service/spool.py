"""The spool: received objects on the disk, complete or not at all, before their sender gets an answer."""

from __future__ import annotations

import filecmp
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medseg.disk.atomic import write_error
from medseg.errors import ReadError, WriteError
from medseg.service.fault_points import reached
from medseg.service.places import Places

__all__ = ["NoReserveError", "Outcome", "Spool", "Taken"]

Outcome = Literal["new", "again", "replaced", "own", "not_image"]
_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Manufacturer", "Rows"]
# PS3.5, 9.1, and letters, as some anonymisers write them; UIDs become no part of a path.
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
# Manufacturer in every DICOM object that medseg writes.
_OURS = "medseg"


class NoReserveError(WriteError):
    """Taking the object would leave less free space than the site file reserves (DICOM status A700)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an object.

    Args:
        outcome: 'new'; 'again' (known, the same bytes); 'replaced' (known with other content; the new one counts);
            'own' (written by medseg) or 'not_image', neither of which is kept.
        study: keyed hash of patient and study, '' where it was not kept.
        size: bytes.
    """

    outcome: Outcome
    study: str = ""
    size: int = 0


class Spool:
    """Takes objects into the spool.

    Args:
        places: of the service.
        reserve_bytes: left free on the disk.
        incoming: folder for an object while it is copied, on the same disk; None for `places.incoming`.
    """

    def __init__(self, places: Places, reserve_bytes: int = 0, incoming: Path | None = None) -> None:
        self._places = places
        self._reserve = reserve_bytes
        self._incoming = incoming or places.incoming

    def check_reserve(self, size: int = 0) -> None:
        """Refuse `size` bytes that would leave less than the reserve.

        Raises:
            NoReserveError: with what is free.
        """
        free = shutil.disk_usage(self._places.root).free
        if free - size < self._reserve:
            raise NoReserveError(
                f"{self._places.root} has {free / 1e9:.1f} GB free, and {self._reserve / 1e9:.1f} GB are reserved; "
                "free some space"
            )

    def study(self, patient_id: str, study_uid: str) -> str:
        """The keyed hash of a study. One moved to another patient is another study: masks must not follow it."""
        return self._places.hash("study", patient_id, study_uid)

    def has(self, study: str, object_uid: str) -> bool:
        """Whether an object of a study is there."""
        return self._target(study, object_uid).is_file()

    def count(self, study: str) -> int:
        """Number of objects of a study that are there."""
        folder = self._places.spool / study
        return sum(path.suffix == ".dcm" for path in folder.iterdir()) if folder.is_dir() else 0

    def take(self, path: Path, announce: Callable[[str], object]) -> Taken:
        """Copy an object into the spool; it is on the disk when this returns.

        Args:
            path: a DICOM file; stays as it is.
            announce: called with the study before the object is in the spool, so that no object is without its study.

        Raises:
            ReadError: for a file that cannot be read, is not a DICOM object, or has no UIDs.
            NoReserveError: if too little space is free.
            WriteError: if the disk is full or permission is missing.
        """
        header = _header(path)
        if str(header.get("Manufacturer", "")).strip() == _OURS:
            return Taken("own")
        if "Rows" not in header:
            return Taken("not_image")
        size = path.stat().st_size
        self.check_reserve(size)
        study = self.study(str(header.get("PatientID", "")), str(header.StudyInstanceUID))
        target = self._target(study, str(header.SOPInstanceUID))
        fresh = self._incoming / f"{secrets.token_hex(8)}.part"
        announce(study)
        try:
            return Taken(self._place(path, fresh, target), study, size)
        except OSError as error:
            raise write_error(target, error) from error
        finally:
            fresh.unlink(missing_ok=True)

    def clear_incoming(self) -> None:
        """Remove what a killed receiver left; its sender got no answer, and sends it again."""
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)

    def _target(self, study: str, object_uid: str) -> Path:
        return self._places.spool / study / f"{self._places.hash('object', object_uid)}.dcm"

    def _place(self, path: Path, fresh: Path, target: Path) -> Outcome:
        with (
            path.open("rb") as source,
            os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        reached("spool.before_rename")
        known = target.exists()
        if known and filecmp.cmp(fresh, target, shallow=False):
            return "again"
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(target.parent.parent)
        fresh.replace(target)
        _sync_folder(target.parent)
        reached("spool.after_rename")
        return "replaced" if known else "new"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(path: Path) -> Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        uids = [str(header.get(each, "")) for each in ("StudyInstanceUID", "SOPInstanceUID")]
    except InvalidDicomError:
        raise ReadError(f"{path} is not a DICOM file") from None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    # pydicom raises many kinds of errors for damaged files.
    except Exception as error:
        raise ReadError(f"{path}: its header is damaged ({type(error).__name__})") from None
    if not all(_UID.fullmatch(uid) for uid in uids):
        raise ReadError(f"{path} has no usable StudyInstanceUID or SOPInstanceUID; expected a DICOM image of a study")
    return header
