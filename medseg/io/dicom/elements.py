"""The data elements of a DICOM header that medseg uses, and the position of the pixel data in the file.

pydicom needs about a millisecond per header, most of it holding the interpreter lock, which is longer than reading the
pixels takes. Plain little-endian files are therefore parsed here, element by element (DICOM PS3.5 section 7.1);
everything else (no preamble, big-endian, deflated, any irregularity) is left to pydicom.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medseg.io.dicom.deflated import DEFLATED
from medseg.io.dicom.tags import impossible

__all__ = [
    *("KEYWORDS", "NESTED", "NO_PIXELS", "PARSED_KEYWORDS", "UIH_TILES"),
    *("DatasetElements", "Elements", "RawElements", "to_numbers", "walk"),
]

# Tag -> keyword of every element that medseg uses.
_TAGS = {
    0x00020002: "MediaStorageSOPClassUID",
    0x00020010: "TransferSyntaxUID",
    0x00080005: "SpecificCharacterSet",
    0x00080008: "ImageType",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080020: "StudyDate",
    0x00080021: "SeriesDate",
    0x00080022: "AcquisitionDate",
    0x0008002A: "AcquisitionDateTime",
    0x00080032: "AcquisitionTime",
    0x00080033: "ContentTime",
    0x00080060: "Modality",
    0x00080070: "Manufacturer",
    0x0008103E: "SeriesDescription",
    0x00089208: "ComplexImageComponent",
    0x00100020: "PatientID",
    0x00180010: "ContrastBolusAgent",
    0x00180012: "ContrastBolusAgentSequence",
    0x00180015: "BodyPartExamined",
    0x00180050: "SliceThickness",
    0x00180060: "KVP",
    0x00180081: "EchoTime",
    0x00180082: "InversionTime",
    0x00180086: "EchoNumbers",
    0x00180088: "SpacingBetweenSlices",
    0x00181060: "TriggerTime",
    0x00181164: "ImagerPixelSpacing",
    0x00181210: "ConvolutionKernel",
    0x00181314: "FlipAngle",
    0x00186011: "SequenceOfUltrasoundRegions",
    0x00189087: "DiffusionBValue",
    0x00189089: "DiffusionGradientOrientation",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200011: "SeriesNumber",
    0x00200012: "AcquisitionNumber",
    0x00200013: "InstanceNumber",
    0x00200032: "ImagePositionPatient",
    0x00200037: "ImageOrientationPatient",
    0x00200052: "FrameOfReferenceUID",
    0x00200100: "TemporalPositionIdentifier",
    0x00209056: "StackID",
    0x00280002: "SamplesPerPixel",
    0x00280004: "PhotometricInterpretation",
    0x00280008: "NumberOfFrames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280030: "PixelSpacing",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    0x00280103: "PixelRepresentation",
    0x00280120: "PixelPaddingValue",
    0x00280121: "PixelPaddingRangeLimit",
    0x00281052: "RescaleIntercept",
    0x00281053: "RescaleSlope",
    0x00282110: "LossyImageCompression",
    0x00283000: "ModalityLUTSequence",
    0x00540022: "DetectorInformationSequence",
    0x00541300: "FrameReferenceTime",
    0x3004000C: "GridFrameOffsetVector",
    0x3004000E: "DoseGridScaling",
    0x52009229: "SharedFunctionalGroupsSequence",
    0x52009230: "PerFrameFunctionalGroupsSequence",
}
KEYWORDS = tuple(_TAGS.values())
# What nuclear medicine and enhanced objects need besides; pydicom reads it.
PARSED_KEYWORDS = (
    *KEYWORDS,
    *("DimensionIndexSequence", "SliceVector", "TimeSlotVector", "RRIntervalVector", "EnergyWindowVector"),
)
# Sequences whose items matter, so that pydicom has to read the header.
NESTED = (
    *("PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"),
    *("DetectorInformationSequence", "SequenceOfUltrasoundRegions"),
)
# Of these `walk` tells only whether they are present.
_SEQUENCES = frozenset({*NESTED, "ContrastBolusAgentSequence", "SharedFunctionalGroupsSequence"})
_DOUBLES = frozenset({"DiffusionBValue", "DiffusionGradientOrientation"})
# The number of images that UIH tiles into one, in its 'Image Private Header'.
UIH_TILES = 0x00651050
_UIH_TILES = "UIH tiles"
_WANTED = {**_TAGS, UIH_TILES: _UIH_TILES}
_BINARY = frozenset(
    {
        "SamplesPerPixel",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
    }
)
_META = frozenset({"MediaStorageSOPClassUID", "TransferSyntaxUID"})
_PIXEL_DATA = 0x7FE00010
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"),
        *(b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    }
)
NO_PIXELS = -2
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_EXPLICIT_ELEMENT = struct.Struct("<HH2sH")
_IMPLICIT_ELEMENT = struct.Struct("<HHI")
_LONGEST_DECIMAL_STRING = 16
# Headers are a few kilobytes; only files with large private elements or many frames need another read.
_READS = (1 << 14, 1 << 20, 1 << 24)


class Elements(Protocol):
    """The elements of a header by DICOM keyword; absent and empty elements give '' or ()."""

    def text(self, keyword: str) -> str: ...
    def texts(self, keyword: str) -> tuple[str, ...]: ...
    def numbers(self, keyword: str) -> tuple[float, ...]: ...
    def has(self, keyword: str) -> bool: ...
    def uih_tiles(self) -> int: ...
    def too_long(self, *keywords: str) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class RawElements:
    """The elements of a file that `walk` parsed.

    Args:
        values: keyword -> bytes as stored in the file.
        pixel_offset: where the value of PixelData begins, -1 if there is none or only pydicom can find it.
        pixel_length: its length in bytes as far as the file goes, -1 for encapsulated pixels, `NO_PIXELS` if there is
            none.
    """

    values: dict[str, bytes]
    pixel_offset: int
    pixel_length: int

    def text(self, keyword: str) -> str:
        """The value as one string."""
        raw = self.values.get(keyword, b"").strip(b" \0")
        try:
            return raw.decode("ascii")
        except UnicodeDecodeError:
            utf8 = b"192" in self.values.get("SpecificCharacterSet", b"")
            return raw.decode("utf-8" if utf8 else "latin-1", errors="replace")

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a multi-valued element."""
        text = self.text(keyword)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The numbers of a decimal, integer or unsigned-short element.

        Raises:
            ValueError: for text that is not a number.
        """
        if keyword in _BINARY:
            raw = self.values.get(keyword, b"")
            return struct.unpack(f"<{len(raw) // 2}H", raw[: len(raw) // 2 * 2])
        if keyword in _DOUBLES:
            raw = self.values.get(keyword, b"")
            return struct.unpack(f"<{len(raw) // 8}d", raw[: len(raw) // 8 * 8])
        return to_numbers(keyword, self.texts(keyword))

    def has(self, keyword: str) -> bool:
        """Whether the element is present and not empty."""
        return bool(self.values.get(keyword))

    def uih_tiles(self) -> int:
        """How many images UIH tiled into this one, 0 if the file does not say it."""
        return _leading_number(self.values.get(_UIH_TILES, b""))

    def too_long(self, *keywords: str) -> tuple[str, ...]:
        """The names of those decimal strings that exceed 16 characters (PS3.5 section 6.2)."""
        return tuple(k for k in keywords if max(map(len, self.texts(k)), default=0) > _LONGEST_DECIMAL_STRING)


class DatasetElements:
    """The same interface on top of a pydicom data set."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._meta = getattr(dataset, "file_meta", {})

    def _value(self, keyword: str) -> Any:
        value = (self._meta if keyword in _META else self._dataset).get(keyword)
        return None if value == "" else value

    def text(self, keyword: str) -> str:
        """The value as one string."""
        value = self._value(keyword)
        return "" if value is None else str(value).strip()

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a multi-valued element."""
        value = self._value(keyword)
        if value is None:
            return ()
        return tuple(str(v).strip() for v in value) if _is_list(value) else (str(value).strip(),)

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The numbers of any numeric element; unsigned where pydicom leaves the choice open."""
        value = self._value(keyword)
        if value is None:
            return ()
        if isinstance(value, bytes):
            return struct.unpack(f"<{len(value) // 2}H", value[: len(value) // 2 * 2])
        return to_numbers(keyword, value if _is_list(value) else [value])

    def has(self, keyword: str) -> bool:
        """Whether the element is present and not empty."""
        value = self._value(keyword)
        return value is not None and not (_is_list(value) and len(value) == 0)

    def uih_tiles(self) -> int:
        """How many images UIH tiled into this one, 0 if the file does not say it."""
        value = self._dataset[UIH_TILES].value if UIH_TILES in self._dataset else b""
        return _leading_number(value if isinstance(value, bytes) else str(value).encode())

    def too_long(self, *keywords: str) -> tuple[str, ...]:
        """The names of those decimal strings that exceed 16 characters (PS3.5 section 6.2)."""
        return tuple(k for k in keywords if self._longest(k) > _LONGEST_DECIMAL_STRING)

    def _longest(self, keyword: str) -> int:
        value = self._value(keyword)
        values = value if _is_list(value) else [value]
        return max((len(getattr(v, "original_string", "")) for v in values), default=0)


def _leading_number(text: bytes) -> int:
    digits = re.match(rb"\s*(\d{1,6})", text)
    return int(digits[1]) if digits else 0


def to_numbers(keyword: str, values: Iterable[Any]) -> tuple[float, ...]:
    """The values of an element as numbers, whether stored as numbers or as text.

    Raises:
        ValueError: naming the element and its value.
    """
    values = list(values)
    try:
        return tuple(float(v) for v in values)
    except (ValueError, TypeError):  # text that is not a number, no value at all, or several
        raise ValueError(impossible(keyword, "\\".join(map(str, values)), "numbers")) from None


def _is_list(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes)


class _Unsupported(Exception):
    """The file uses something that this parser does not handle."""


def walk(path: Path) -> RawElements | None:
    """The elements of a little-endian DICOM file with a preamble; None where pydicom has to parse the file.

    Raises:
        OSError: if the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = b""
        for wanted in (*_READS, size):
            data += file.read(max(0, min(size, wanted) - len(data)))
            try:
                return _elements(data, size)
            except (_Unsupported, ValueError):
                return None
            except (IndexError, struct.error):
                if len(data) == size:
                    return None
    return None


def _elements(data: bytes, size: int) -> RawElements:
    if data[128:132] != b"DICM":
        raise _Unsupported
    values: dict[str, bytes] = {}
    position = _walk_group(data, 132, size, True, values, meta=True)[0]
    syntax = values.get("TransferSyntaxUID", b"").rstrip(b" \0").decode("ascii")
    if syntax in ("", DEFLATED, _BIG_ENDIAN):
        raise _Unsupported
    _, offset, length = _walk_group(data, position, size, syntax != _IMPLICIT, values, meta=False)
    if offset >= 0 and length >= 0 and offset + length > size:
        raise _Unsupported
    return RawElements(values, offset, length)


def _walk_group(
    data: bytes, position: int, size: int, explicit: bool, values: dict[str, bytes], meta: bool
) -> tuple[int, int, int]:
    """Collect the wanted values; returns the next position, and offset and length of the pixel data (-1 if absent)."""
    last = 0
    while position < size:
        if position + 8 > size:
            raise _Unsupported
        if meta and data[position : position + 2] != b"\x02\0":
            return position, -1, -1
        tag, length, head = _element(data, position, explicit)
        # Elements are stored in ascending order; any other order means damage or another encoding.
        if tag <= last:
            raise _Unsupported
        last = tag
        start = position + head
        if tag == _PIXEL_DATA:
            return start, start, -1 if length == _UNDEFINED else length
        if tag > _PIXEL_DATA - 0x10 and tag < 0x7FE10000:
            raise _Unsupported  # float and double pixels
        if length == _UNDEFINED:
            end = _after_sequence(data, start, explicit)
        else:
            end = start + length
            if end > size:
                raise _Unsupported
        keyword = _WANTED.get(tag)
        if keyword in _SEQUENCES:
            values[keyword] = b"+" if length else b""
        elif keyword is not None:
            if end > len(data):
                raise IndexError
            values[keyword] = data[start:end]
        position = end
    return position, -1, NO_PIXELS


def _element(data: bytes, position: int, explicit: bool) -> tuple[int, int, int]:
    """Tag, value length and size of the element's header."""
    if not explicit:
        group, element, length = _IMPLICIT_ELEMENT.unpack_from(data, position)
        return group << 16 | element, length, 8
    group, element, representation, length = _EXPLICIT_ELEMENT.unpack_from(data, position)
    if representation in _SHORT:
        return group << 16 | element, length, 8
    if representation in _LONG:
        (length,) = struct.unpack_from("<I", data, position + 8)
        # Unknown elements of undefined length are always encoded implicitly.
        if length == _UNDEFINED and representation not in (b"SQ", b"OB", b"OW"):
            raise _Unsupported
        return group << 16 | element, length, 12
    raise _Unsupported


def _after_sequence(data: bytes, position: int, explicit: bool) -> int:
    """The position after a sequence of undefined length."""
    while True:
        group, element, length = _IMPLICIT_ELEMENT.unpack_from(data, position)
        tag = group << 16 | element
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise _Unsupported
        if length != _UNDEFINED:
            position += length
            continue
        while True:
            group, element = struct.unpack_from("<HH", data, position)
            if group << 16 | element == _ITEM_END:
                position += 8
                break
            _, length, head = _element(data, position, explicit)
            start = position + head
            position = _after_sequence(data, start, explicit) if length == _UNDEFINED else start + length
