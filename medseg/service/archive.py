"""What the two ways to fetch studies from an archive share: what it has of a study, and which series are images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

__all__ = ["MOST_STUDIES", "Archive", "Found", "FoundSeries", "dates", "is_wanted"]

MOST_STUDIES = 100_000
"""Answers to one query that are read."""
# Series that contain no image to segment, and what medseg itself writes but captures.
_NOT_IMAGES = frozenset(
    {
        *("SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "FID", "KO", "PR", "DOC", "PLAN"),
        *("AU", "ECG", "HD", "EPS", "STAIN", "SMR", "ASMT", "RWV", "ANN", "M3D"),
    }
)


@dataclass(frozen=True, slots=True)
class Found:
    """A study that an archive has.

    Args:
        study_uid, patient_id: as the archive says them.
        objects: how many it has of it; None if it does not say.
    """

    study_uid: str
    patient_id: str
    objects: int | None


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series of a study that an archive has.

    Args:
        uid: SeriesInstanceUID.
        modality: '' if the archive does not say.
        objects: SOPInstanceUID -> SOP class, '' if the archive does not say.
    """

    uid: str
    modality: str
    objects: dict[str, str]


class Archive(Protocol):
    """A way to ask an archive and to fetch from it; raises `RefusedError` where the archive does not answer."""

    calling_ae: str

    def open(self) -> AbstractContextManager[None]:
        """Connect for a round of queries."""

    def studies(self) -> Iterator[Found]:
        """The studies that the site file asks for."""

    def series(self, study_uid: str) -> list[FoundSeries]:
        """The wanted series of a study, with their objects."""

    def fetch(self, study_uid: str, series: FoundSeries, missing: Sequence[str], take: Callable[[Path], None]) -> None:
        """Fetch objects of a series; `take` is called with the file of each that comes, which is removed afterwards."""


def is_wanted(modality: str, modalities: Sequence[str]) -> bool:
    """Whether series of a modality are fetched.

    Example:
        >>> is_wanted("CT", ()), is_wanted("SEG", ()), is_wanted("MR", ("CT",))
        (True, False, False)
    """
    return modality in modalities if modalities else modality not in _NOT_IMAGES


def dates(days: int, today: date) -> str:
    """The range of StudyDate (PS3.4, C.2.2.2.5) from so many days ago, with no end.

    Example:
        >>> dates(1, date(2026, 12, 1))
        '20261130-'
    """
    return f"{today - timedelta(days=days):%Y%m%d}-"
