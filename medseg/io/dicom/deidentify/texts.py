"""Removes patient identifiers from texts about DICOM studies (messages, ledgers, logs) when anonymizing.

Unique identifiers get the same replacements as in the copied objects, so that a message still identifies its study.
Other identifying values of the headers are replaced by a neutral word.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from medseg.disk.archive import split_zip_path
from medseg.disk.directory_walk import files_below
from medseg.errors import MedsegError
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.deidentify.values import GRAM, UID, Values, lowered, values_of_file, values_of_headers
from medseg.io.dicom.slice import SliceHeader

__all__ = ["REMOVED", "CleanText", "PrivateTexts", "named_files"]

REMOVED = "(removed)"
# Shorter ones, which no program produces, cannot be distinguished from version numbers.
_SHORTEST_UID = 5
# Packages whose messages quote headers; the log messages of other packages are not filtered.
_QUOTING = ("pydicom", "highdicom")
_HIDDEN = "a message of %s, which may quote the header, is not shown with --anonymize"


class CleanText(str):
    """A text that has been cleaned already and is not changed again when it is logged."""

    __slots__ = ()


class PrivateTexts:
    """Cleans the texts of a run.

    Args:
        deidentifier: the run's deidentifier; unique identifiers get the same replacements as in its objects.
    """

    def __init__(self, deidentifier: Deidentifier) -> None:
        self.deidentifier = deidentifier
        self._given: set[str] = set()
        self._files = _Files()

    def uid(self, uid: str) -> str:
        """The replacement of a unique identifier; a replacement made earlier is returned unchanged."""
        if uid in self._given:
            return uid
        given = self.deidentifier.uid(uid)
        self._given.add(given)
        return given

    def values(self, files: Iterable[Path] = (), headers: Iterable[SliceHeader] = ()) -> Values:
        """The values that may identify a patient and may be quoted in a text about these files or headers.

        Args:
            files: DICOM files, `archive.zip/member` for those in a zip; missing files are skipped.
            headers: headers read earlier.
        """
        values = Values()
        values_of_headers(headers, values)
        for path in files:
            with contextlib.suppress(OSError), self._files.open(path) as file:
                values_of_file(file, values)
        return values

    def clean(self, text: str, values: Values | None = None, paths: Iterable[Path] = ()) -> str:
        """The text without identifiers.

        Args:
            text: a message.
            values: the values to remove.
            paths: files that the text may mention; parts of their paths that contain the name of a patient are removed.
        """
        if values is not None:
            named = {part for path in paths for part in path.parts if values.name_in(part)}
            for part in sorted(named, key=lambda part: (-len(part), part)):
                text = text.replace(part, REMOVED)
        text = UID.sub(lambda match: self.uid(match[0]), text)
        if values is None or not text:
            return text
        for uid in sorted(values.uids, key=lambda uid: (-len(uid), uid)):
            if len(uid) >= _SHORTEST_UID:
                text = re.sub(rf"(?<![\d.]){re.escape(uid)}(?!\.?\d)", lambda match: self.uid(match[0]), text)
        low = lowered(text)
        hidden = [False] * len(low)
        for n in range(len(low)):
            for length in range(2, GRAM + 1):
                if _holds(values, low, n, n + length):
                    hidden[n : n + length] = [True] * length
        parts = itertools.groupby(zip(text, hidden, strict=True), key=lambda each: each[1])
        return "".join(REMOVED if gone else "".join(c for c, _ in part) for gone, part in parts)

    @contextlib.contextmanager
    def guarded(self, places: Sequence[Path]) -> Iterator[None]:
        """Clean everything that leaves the block: exceptions, medseg's log messages and Python's warnings.

        Args:
            places: files, folders and zips that the block reads; if an error mentions a file in them, that file is
                searched for the values that the error may quote.
        """
        with self._guarded_log(), _guarded_warnings():
            try:
                yield
            except MedsegError as error:
                text = str(error)
                files = named_files(text, places)
                error.args = (self.clean(text, self.values(files), files),)
                # A traceback also shows the exceptions that led to an error.
                error.__cause__, error.__suppress_context__ = None, True
                raise
            except OSError as error:
                name = None if error.filename is None else self.clean(str(error.filename))
                raise OSError(error.errno, error.strerror, name).with_traceback(error.__traceback__) from None
            except Exception as error:  # an internal error of medseg is reported without its text
                text = f"{type(error).__name__}, whose text may quote a header and is not shown with --anonymize"
                raise RuntimeError(text).with_traceback(error.__traceback__) from None

    @contextlib.contextmanager
    def _guarded_log(self) -> Iterator[None]:
        make = logging.getLogRecordFactory()

        def cleaned(name: str, *args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(name, *args, **kwargs)
            package = name.partition(".")[0]
            if package in _QUOTING:
                record.msg, record.args, record.exc_info = _HIDDEN, (package,), None
            elif package == "medseg" and isinstance(record.args, tuple):
                record.args = tuple(self._argument(each) for each in record.args)
            return record

        def is_silent(record: logging.LogRecord) -> bool:
            return False

        pydicom = logging.getLogger("pydicom")
        logging.setLogRecordFactory(cleaned)
        pydicom.addFilter(is_silent)
        try:
            yield
        finally:
            pydicom.removeFilter(is_silent)
            logging.setLogRecordFactory(make)

    def _argument(self, value: object) -> object:
        return self.clean(str(value)) if isinstance(value, str | Path) and not isinstance(value, CleanText) else value


def named_files(text: str, places: Iterable[Path], below: bool = True) -> list[Path]:
    """The files a text mentions, among folders (recursive with `below`) and zips; files in `places` always count."""
    found: list[Path] = []
    for place in places:
        if place.is_file() and not zipfile.is_zipfile(place):
            found.append(place)
        elif place.is_dir():
            inside = files_below(place)[0] if below else place.iterdir()
            found += [path for path in inside if str(path) in text]
        elif place.is_file() and str(place) in text:
            with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(place) as archive:
                found += [path for name in archive.namelist() if str(path := place / name) in text]
    return found


@contextlib.contextmanager
def _guarded_warnings() -> Iterator[None]:
    """Remove the text of Python warnings raised in pydicom, highdicom and medseg."""
    show = warnings.showwarning

    def cleaned(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
        package = next((name for name in (*_QUOTING, "medseg") if name in Path(filename).parts), None)
        show(message if package is None else category(_HIDDEN % package), category, filename, *rest, **more)

    warnings.showwarning = cleaned
    try:
        yield
    finally:
        warnings.showwarning = show


def _holds(values: Values, text: str, start: int, end: int) -> bool:
    if end > len(text):
        return False
    piece = text[start:end]
    if len(piece) == GRAM:
        return piece in values.grams
    if piece not in values.short:
        return False
    # Chinese and Japanese names have no spaces around them.
    around = text[max(0, start - 1) : start] + text[end : end + 1]
    return (not piece.isascii() and len(piece) < 4) or not any(c.isalnum() for c in around)


class _Files:
    """Files on disk and in zips. One zip stays open, because reading its directory may take long."""

    def __init__(self) -> None:
        self._archive: tuple[Path, zipfile.ZipFile] | None = None

    def open(self, path: Path) -> IO[bytes]:
        """Open a file for reading.

        Raises:
            OSError: if it, or its archive, is missing.
        """
        inside = None if path.exists() else split_zip_path(path)
        if inside is None:
            return path.open("rb")
        archive, member = inside
        try:
            if self._archive is None or self._archive[0] != archive:
                self._archive = archive, zipfile.ZipFile(archive)
            return self._archive[1].open(member)
        except (KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise OSError(str(error)) from None
