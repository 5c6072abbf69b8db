"""Which study a name in an output folder belongs to, so that no result replaces another study's.

A name belongs to the study that took it first. Another study that would get the same name gets a suffix, in this run
and in every later one. The names are entered in a file of the output folder, which holds hashes only.
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
    """Who a result belongs to; every value is a hash under the site's key.

    Args:
        study: of PatientID and StudyInstanceUID, or of the path where there is no UID; '' where nothing could be read.
        series: of SeriesInstanceUID; '' for other files, and as long as no series of the study is chosen.
        place: of the folder or file, by which a study is known while nothing of it can be read.
    """

    study: str
    series: str
    place: str

    def has(self, other: Owner) -> bool:
        """Whether what belongs to this owner also belongs to `other`."""
        if not self.study or not other.study:
            return self.place == other.place
        return self.study == other.study and self.series in ("", other.series)


def owner_of_series(series: Sequence[Series], place: Path) -> Owner:
    """The owner of what is made from a study.

    Args:
        series: the series that was chosen; several while none is.
        place: where the study lies; inside a zip as `archive.zip/folder`.
    """
    first = series[0].slices[0]
    where = _hash_of_path(place)
    uid = first.study_instance_uid
    study = keyed_hash("study", first.patient_id, uid, length=_DIGITS) if uid else where
    return Owner(study, keyed_hash("series", series[0].key, length=_DIGITS) if len(series) == 1 else "", where)


def owner_of_file(path: Path) -> Owner:
    """The owner of what is made from an image file that is no DICOM."""
    where = _hash_of_path(path)
    return Owner(where, "", where)


def owner_of_folder(path: Path) -> Owner:
    """The owner of a failure: a folder or file of which nothing can be read yet."""
    return Owner("", "", _hash_of_path(path))


def _hash_of_path(path: Path) -> str:
    return keyed_hash("path", str(path.resolve()), length=_DIGITS)


def claim_names(
    folder: Path,
    wanted: Sequence[tuple[str, Owner]],
    owns: Callable[[int, str], bool | None],
    dry_run: bool = False,
) -> list[str]:
    """The name in `folder` of each wanted result; no two are equal, nor differ in case or Unicode form alone.

    Args:
        folder: the output folder, made if it is not there.
        wanted: the name that each result would have if it were alone, and its owner.
        owns: called with (index, name) for a name that is not entered under this site's key: whether it stands for the
            wanted result of that index already; None where it stands for nothing.
        dry_run: enter nothing.

    Returns:
        Names in the order of `wanted`; another owner's name gets a hash of the owner as its suffix.

    Raises:
        WriteError: no permission, disk full.

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
        # An owner whose key is another site's, or was lost, cannot be compared.
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
        # What cannot be read yet is entered when it can.
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
        """Whether that told something new: the first study keeps a name, and its first series."""
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
    """What disks that know no case, or store accents in another form, take for the same name."""
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
