"""Which study owns a name in an output folder, so that no result replaces another study's.

A name belongs to the study that used it first. Another study that would get the same name gets a suffix, in this run
and in every later one. The names are recorded in a file of the output folder, which contains only hashes.
"""

from __future__ import annotations

import itertools
import json
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.disk.shared_lines import shared_lines
from medseg.io.dicom.deidentify.site_key import keyed_hash
from medseg.io.dicom.series import Series

__all__ = ["NAMES_FILE", "Owner", "claim_names", "folded", "owner_of_file", "owner_of_folder", "owner_of_series"]

NAMES_FILE = "names.jsonl"
FORMAT_VERSION = 1
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a result; every value is a hash with the site's key.

    Args:
        study: hash of PatientID and StudyInstanceUID, or of the path if there is no UID; '' if nothing could be read.
        series: hash of SeriesInstanceUID; '' for other files, and while no series of the study is chosen.
        place: hash of the folder or file, which identifies a study while nothing in it can be read.
    """

    study: str
    series: str
    place: str

    def has(self, other: Owner) -> bool:
        """Whether results of this owner also belong to `other`."""
        if not self.study or not other.study:
            return self.place == other.place
        return self.study == other.study and self.series in ("", other.series)


def owner_of_series(series: Sequence[Series], place: Path) -> Owner:
    """The owner of results made from a study.

    Args:
        series: the chosen series; several while none is chosen.
        place: the path of the study; inside a zip as `archive.zip/folder`.
    """
    first = series[0].slices[0]
    where = _hash_of_path(place)
    uid = first.study_instance_uid
    study = keyed_hash("study", first.patient_id, uid, length=_DIGITS) if uid else where
    return Owner(study, keyed_hash("series", series[0].key, length=_DIGITS) if len(series) == 1 else "", where)


def owner_of_file(path: Path) -> Owner:
    """The owner of results made from an image file other than DICOM."""
    where = _hash_of_path(path)
    return Owner(where, "", where)


def owner_of_folder(path: Path) -> Owner:
    """The owner of a failure: a folder or file in which nothing can be read yet."""
    return Owner("", "", _hash_of_path(path))


def _hash_of_path(path: Path) -> str:
    return keyed_hash("path", str(path.resolve()), length=_DIGITS)


def claim_names(
    folder: Path,
    wanted: Sequence[tuple[str, Owner]],
    owns: Callable[[int, str], bool | None],
    dry_run: bool = False,
) -> list[str]:
    """The name in `folder` of each wanted result; no two are equal, or differ only in case or Unicode form.

    Args:
        folder: the output folder, created if missing.
        wanted: the name that each result would have on its own, and its owner.
        owns: called with (index, name) for a name that is not recorded under this site's key: whether it already
            belongs to the wanted result of that index; None if it belongs to nothing.
        dry_run: record nothing.

    Returns:
        Names in the order of `wanted`; if another owner has the name, with a hash of the owner as suffix.

    Raises:
        WriteError: if permission is missing or the disk is full.

    Example:
        >>> one, other = owner_of_file(Path("a/DICOM.nii")), owner_of_file(Path("b/dicom.nii"))
        >>> claim_names(Path("masks"), [("DICOM", one), ("dicom", other)], lambda n, name: None)
        ['DICOM', 'dicom_...']
    """
    path = folder / NAMES_FILE
    if dry_run:
        return _Claims(path.read_bytes().splitlines() if path.is_file() else [], owns).of(wanted)
    with shared_lines(path) as lines:
        claims = _Claims(lines.read(), owns)
        names = claims.of(wanted)
        if claims.fresh:
            lines.append(claims.fresh)
    return names


class _Claims:
    def __init__(self, lines: Sequence[bytes], owns: Callable[[int, str], bool | None]) -> None:
        self.fresh: list[dict[str, Any]] = []
        self._owns = owns
        # An owner recorded with another or a lost key cannot be compared.
        self._key = keyed_hash("key")
        self._owners: dict[str, Owner] = {}
        self._foreign: set[str] = set()
        self._given: set[str] = set()
        for name, owner, key in filter(None, map(_parse, lines)):
            if key == self._key:
                self._take(name, owner)
            else:
                self._foreign.add(folded(name))

    def of(self, wanted: Sequence[tuple[str, Owner]]) -> list[str]:
        return [self._name(index, name, owner) for index, (name, owner) in enumerate(wanted)]

    def _name(self, index: int, wanted: str, owner: Owner) -> str:
        name = next(name for name in _candidates(wanted, owner) if self._is_free(index, name, owner))
        self._given.add(folded(name))
        # A study that cannot be read yet is recorded once it can.
        if owner.study and self._take(name, owner):
            values = {"study": owner.study, "series": owner.series, "place": owner.place}
            self.fresh.append({"format_version": FORMAT_VERSION, "name": name, "key": self._key, **values})
        return name

    def _is_free(self, index: int, name: str, owner: Owner) -> bool:
        same = folded(name)
        if same in self._given:
            return False  # copies of one study in several folders have one owner and a result each
        if same in self._owners:
            return self._owners[same].has(owner)
        owned = self._owns(index, name)
        return owned or (owned is None and same not in self._foreign)

    def _take(self, name: str, owner: Owner) -> bool:
        """Record an owner; whether that was new: a name keeps its first study, and that study's first series."""
        before = self._owners.get(folded(name))
        if before is None:
            self._owners[folded(name)] = owner
        elif before.study == owner.study and not before.series and owner.series:
            self._owners[folded(name)] = replace(before, series=owner.series)
        else:
            return False
        return True


def _candidates(name: str, owner: Owner) -> Iterator[str]:
    yield name
    suffixed = f"{name}_{keyed_hash(owner.study or owner.place, owner.series)}"
    yield suffixed
    yield from (f"{suffixed}_{n}" for n in itertools.count(2))


def folded(name: str) -> str:
    """The name as compared by file systems that ignore case, or store accents in another form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", os.fsdecode(name)).casefold())


def _parse(line: bytes) -> tuple[str, Owner, str] | None:
    try:
        values = json.loads(line)
        texts = [values[key] for key in ("name", "study", "series", "place", "key")]
    except (ValueError, KeyError, TypeError):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    name, study, series, place, key = texts
    return name, Owner(study, series, place), key
