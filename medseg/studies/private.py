"""Names and texts about cases with the patient's identity removed (`--anonymize`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from medseg.disk.archive import split_zip_path
from medseg.errors import MedsegError
from medseg.io.dicom.deidentify.texts import PrivateTexts, named_files
from medseg.io.dicom.deidentify.values import Values
from medseg.io.dicom.slice import SliceHeader
from medseg.io.formats import kind_of
from medseg.studies.ledger import LedgerRow
from medseg.studies.sources import Source

if TYPE_CHECKING:
    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["PrivateCases"]

E = TypeVar("E", bound=MedsegError)
# Names of this many bytes may have been shortened by `safe_name`.
_CUT = 140


class PrivateCases:
    """Names and texts of cases that identify no patient.

    Args:
        deidentifier: the run's deidentifier.
    """

    def __init__(self, deidentifier: Deidentifier) -> None:
        self.texts = PrivateTexts(deidentifier)

    def named(self, source: Source) -> Source:
        """The source under a pseudonym if the name of the case contains the patient's name, numbers or any UID.

        The same name gives the same pseudonym with the same key, so that a rerun recognises the case.
        """
        values = self._known(source)
        # The end of a shortened name is a plain hash, which could be reversed by trying.
        whole = source.case if len(source.case.encode()) < _CUT else f"{source.case} {source.paths[0]}"
        if not values.name_in(whole) and self.texts.clean(whole, Values(values.uids)) == whole:
            return source
        return _renamed(source, self.texts.deidentifier.pseudonym(source.case))

    def error(self, error: E, source: Source) -> E:
        """The error of a case with a clean text; it may quote any value of any of its files."""
        values = self._all_values(str(error), source)
        error.args = (self.texts.clean(str(error), values, source.paths),)
        error.files = tuple(self.texts.clean(name, values) for name in error.files)
        return error

    def reason(self, text: str, source: Source) -> str:
        """The cleaned reason why a case is done in some way, or refused."""
        values = self._all_values(text, source) if source.error else self._known(source)
        return self.texts.clean(text, values, source.paths)

    def row(self, row: LedgerRow, source: Source) -> LedgerRow:
        """A row of the ledger with cleaned reason and findings; its error and UID have been cleaned before."""
        values = self._known(source)
        return replace(
            row,
            series_reason=self.texts.clean(row.series_reason, values, source.paths),
            findings=[self.texts.clean(text, values, source.paths) for text in row.findings],
        )

    def _known(self, source: Source) -> Values:
        return self.texts.values(_dicom(source.paths[:1]), _headers(source))

    def _all_values(self, text: str, source: Source) -> Values:
        # A damaged file does not belong to the case's files; it is next to them, and the text names it.
        beside = {(inside[0] if (inside := split_zip_path(p)) else p.parent) for p in source.paths}
        files = dict.fromkeys((*source.paths, *named_files(text, sorted(beside), below=False)))
        return self.texts.values(_dicom(tuple(files)), _headers(source))


def _dicom(paths: tuple[Path, ...]) -> Iterator[Path]:
    return (path for path in paths if kind_of(path) in ("dicom", ""))


def _headers(source: Source) -> Iterator[SliceHeader]:
    for series in (source.series, *source.candidates):
        if series is not None:
            yield from series.slices
    for channel in source.channels:
        yield from _headers(channel)


def _renamed(source: Source, case: str) -> Source:
    return replace(source, case=case, channels=tuple(_renamed(each, case) for each in source.channels))
