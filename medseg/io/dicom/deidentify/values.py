"""The values of a DICOM file that may identify a patient, in the forms in which a message may quote them.

Exceptions of pydicom and of our readers quote values of any element. Therefore not only the values that the profile
removes count, but also misplaced ones, such as a name in place of a number.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from medseg.io.dicom.deidentify.elements import vr_of
from medseg.io.dicom.deidentify.rules import Action, action_for
from medseg.io.dicom.slice import MARKS, SliceHeader

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["UID", "Values", "values_of_file", "values_of_headers"]

# A unique identifier in a text. If it begins with 2.25 (a UUID, PS3.5 B.2), two dots are enough.
UID = re.compile(r"2\.25\.\d{10,}|\d+(?:\.\d+){5,}")
# An exception quotes the beginning of a value, and messages are cut after 200 characters.
_QUOTED = 512
# A match of this many characters cannot be a coincidence; shorter values must match as a whole.
GRAM = 8
_SHORTEST, _SHORTEST_NAME, _SHORTEST_FOREIGN = 4, 3, 2
_SINGLE = frozenset({"LT", "ST", "UR", "UT"})
_BYTES = frozenset({"", "AT", "FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "UN", "US", "UV"})
# The form of well-formed values in elements that the profile keeps.
_HARMLESS = {
    "CS": re.compile(r"[A-Z0-9 _\\]*"),
    "DS": re.compile(r"[-+0-9.eE \\]*"),
    "IS": re.compile(r"[-+0-9 \\]*"),
    "AS": re.compile(r"\d{3}[DWMY]"),
}
# Patient ID, accession number, other patient IDs; a study ID is usually just '1'.
_NUMBERS_OF_PERSONS = frozenset({0x00080050, 0x00100020, 0x00101000, 0x00100010})
_STUDY_ID = 0x00200010
_DELIMITERS = {ord(c) for c in "\\^="}
_RUN = re.compile(rb"[\x20-\x7e\x1b\x80-\xff]{4,512}")
# Searched in files that cannot be parsed; pixels come later.
_HEADER_BYTES = 1 << 16
_ENCODINGS = ("utf-8", "latin-1", "iso8859-5", "iso2022_jp_2", "shift_jis", "euc_kr", "gb18030")


@dataclass(slots=True)
class Values:
    """Values that may identify a patient, in lower case.

    Args:
        uids: unique identifiers of instances.
        short: values of 2 to 7 characters, which count only as whole words.
        grams: all substrings of 8 characters of longer values.
        names: parts of person names, patient IDs and accession numbers, folded (see `folded`).
    """

    uids: set[str] = field(default_factory=set)
    short: set[str] = field(default_factory=set)
    grams: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    _seen: set[tuple[str, str, int]] = field(default_factory=set)

    def add(self, value: str, vr: str, tag: int, is_name: bool = True) -> None:
        """Add one value of an element; with `is_name` it may become one of `names`."""
        value = value.strip(" \0\t\r\n")[:_QUOTED]
        # Slices of a series share most of their values.
        if not value or (key := (value, vr, tag)) in self._seen:
            return
        self._seen.add(key)
        if vr == "UI":
            if re.fullmatch(r"\d+(\.\d+)+", value):
                self.uids.add(value)
                return
        elif vr == "PN" or tag in _NUMBERS_OF_PERSONS or (tag == _STUDY_ID and re.search(r"\d", value)):
            self._add_parts(value, vr, is_name)
        if vr == "DA" and re.fullmatch(r"\d{8}", value):
            self._add_text(f"{value[:4]}-{value[4:6]}-{value[6:]}")
        if vr != "TM" or len(value) >= 6:
            self._add_text(value)

    def name_in(self, text: str) -> bool:
        """Whether the name of a file, folder or case contains one of `names`."""
        plain = folded(text)
        return any(name in plain for name in self.names)

    def _add_parts(self, value: str, vr: str, is_name: bool) -> None:
        least = _SHORTEST_NAME if vr == "PN" else _SHORTEST
        for part in re.split(r"[\^=\\,;\s]+", value) if vr == "PN" else [value]:
            self._add_text(part, least)
            if is_name and _is_long(plain := folded(part), least):
                self.names.add(plain)

    def _add_text(self, value: str, least: int = _SHORTEST) -> None:
        forms = {value, repr(value)[1:-1]}
        if not value.isascii():
            forms |= {ascii(value)[1:-1], value.encode(errors="backslashreplace").decode()}
            forms |= {unicodedata.normalize(form, value) for form in ("NFC", "NFD")}
        for each in forms:
            low = lowered(each)
            if len(low) >= GRAM:
                self.grams |= {low[n : n + GRAM] for n in range(len(low) - GRAM + 1)}
            elif _is_long(low, least):
                self.short.add(low)


def _is_long(text: str, least: int) -> bool:
    return len(text) >= (least if text.isascii() else _SHORTEST_FOREIGN)


def lowered(text: str) -> str:
    """The text in lower case, character by character, so that offsets do not change."""
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def folded(text: str) -> str:
    """The letters and digits of a text, without case and accents, as people write them into folder names."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in plain if c.isalnum())


def values_of_headers(headers: Iterable[SliceHeader], values: Values) -> None:
    """Add the identifying values of some headers."""
    for header in headers:
        uids = (header.series_instance_uid, header.study_instance_uid, header.sop_instance_uid)
        for uid in (*uids, header.frame_of_reference_uid):
            values.add(uid, "UI", 0)
        values.add(header.patient_id, "LO", 0x00100020)
        values.add(header.description, "LO", 0)
        values.add(header.stack_id, "SH", 0)
        values.add(header.date, "DA", 0)
        values.add(header.marks[MARKS.index("acquisition time")], "DT", 0)
        for code in (header.modality, header.body_part, header.photometric, *header.image_type):
            if not _HARMLESS["CS"].fullmatch(code):
                values.add(code, "CS", 0)


def values_of_file(file: IO[bytes], values: Values) -> None:
    """Add the identifying values of a DICOM file except its pixels; if it cannot be parsed, all its texts."""
    import pydicom
    from pydicom.config import disable_value_validation

    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            encodings = _encodings_of(dataset)
            for part in (getattr(dataset, "file_meta", None), dataset):
                if part is not None:
                    _note(part, encodings, values)
            is_parsed = "SOPClassUID" in dataset
        except Exception:  # pydicom raises any exception its parsers raise on a damaged file
            is_parsed = False
        if not is_parsed:
            file.seek(0)
            _note_bytes(file.read(_HEADER_BYTES), _ENCODINGS, values)


def _encodings_of(dataset: Dataset) -> tuple[str, ...]:
    from pydicom.charset import convert_encodings

    try:
        named = dataset.get("SpecificCharacterSet") or "ISO_IR 6"
        return (*dict.fromkeys((*convert_encodings(named), "utf-8", "latin-1")),)
    except Exception:  # a damaged value, see above
        return _ENCODINGS


def _note(dataset: Dataset, encodings: tuple[str, ...], values: Values) -> None:
    for tag in list(dataset.keys()):
        element, vr = dataset.get_item(tag), vr_of(dataset, tag)
        content: Any = getattr(element, "value", None)
        if vr == "SQ":
            try:
                items = list(dataset[tag].value or [])
            except Exception:  # see above
                _note_bytes(content, encodings, values)
                continue
            for item in items:
                _note(item, encodings, values)
        elif vr in _BYTES or tag >> 16 & 1:
            _note_bytes(content[:_QUOTED] if isinstance(content, bytes) else content, encodings, values)
        elif isinstance(content, bytes):
            keeps = action_for(tag) is Action.KEEP
            for n, text in enumerate(_texts(content, vr, encodings)):
                if not (keeps and _is_harmless(text, vr)):
                    values.add(text, vr, tag, is_name=n == 0)
        elif content is not None:
            # Already decoded: file meta information.
            for text in str(content).split("\\"):
                values.add(text, vr, tag)


def _is_harmless(text: str, vr: str) -> bool:
    form = _HARMLESS.get(vr)
    return form is not None and form.fullmatch(text.strip(" \0")) is not None


def _note_bytes(content: Any, encodings: tuple[str, ...], values: Values) -> None:
    """Add the texts found in bytes of unknown structure."""
    if isinstance(content, str):
        content = content.encode(errors="replace")
    if not isinstance(content, bytes):
        return
    for run in _RUN.findall(content[:_HEADER_BYTES]):
        for text in _texts(run, "LO", encodings):
            values.add(text, "PN" if "^" in text else "LO", 0)
            # The group number of the next element may look like a letter.
            values.add(text[:-1], "LO", 0)
            for uid in UID.findall(text):
                values.add(uid, "UI", 0)


def _texts(content: bytes, vr: str, encodings: tuple[str, ...]) -> Iterator[str]:
    """All values together and one by one, in every decoding that a reader may choose; the declared one first."""
    from pydicom.charset import decode_bytes

    content = content[: 4 * _QUOTED]
    if content.isascii() and b"\x1b" not in content:
        whole = [content.decode("ascii")]
    else:
        whole = []
        for choice in (list(encodings), *([each] for each in encodings)):
            # Decoding bytes that are not text in this encoding may raise any exception.
            with contextlib.suppress(Exception):
                whole.append(decode_bytes(content, choice, set() if vr in _SINGLE else _DELIMITERS))
        # The forms in which readers show bytes that they cannot decode.
        whole += [repr(content)[2:-1], *(content.decode(each, errors="replace") for each in ("utf-8", "latin-1"))]
    yield from dict.fromkeys(whole)
    if vr not in _SINGLE:
        yield from dict.fromkeys(part for text in whole for part in text.split("\\"))
