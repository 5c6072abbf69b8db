"""Elements of a DICOM data set, damaged ones included, as the de-identifier handles them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["items_of", "nested", "put", "says_what_it_should", "text_of", "vr_of"]

# What other programs read as a number or code; names that stand there by mistake are neither.
_FORMS = {
    "DS": re.compile(rb"[-+0-9.eE\\ ]*"),
    "IS": re.compile(rb"[-+0-9.eE\\ ]*"),
    "CS": re.compile(rb"[A-Za-z0-9_\-+./\\ ]*"),
    "UI": re.compile(rb"[0-9.\\ ]*"),
}
_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4}


def says_what_it_should(dataset: Dataset, tag: int, vr: str) -> bool:
    """Whether a number, code or identifier can be one: no letters in numbers, no more numbers than the tag holds."""
    from pydicom.datadict import dictionary_VM

    content = getattr(dataset.get_item(tag), "value", None)
    if not isinstance(content, bytes):
        return True  # parsed already, so it could be
    if vr in _FORMS:
        return _FORMS[vr].fullmatch(content.strip(b" \0")) is not None
    if vr not in _SIZES:
        return True
    try:
        most = dictionary_VM(tag)
    except KeyError:
        return True
    return not most.isdigit() or len(content) == int(most) * _SIZES[vr] or not content


def vr_of(dataset: Dataset, tag: int) -> str:
    """The value representation of an element, of the standard where the file does not say; '' where nobody knows."""
    from pydicom.datadict import dictionary_VR

    vr = getattr(dataset.get_item(tag), "VR", None)
    if vr is None or vr == "UN":
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return ""
    return str(vr).split(" or ")[0]


def text_of(dataset: Dataset, tag: int) -> str:
    """The value as text, several joined by a backslash; '' where there is none or it cannot be decoded."""
    if tag not in dataset:
        return ""
    try:
        value = dataset[tag].value
    except Exception:  # pydicom raises whatever a damaged value makes its parsers raise
        return ""
    if value is None or isinstance(value, bytes):
        return ""
    return "\\".join(map(str, value)) if hasattr(value, "append") else str(value)


def items_of(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence; one that cannot be parsed is removed, since nobody can tell what it holds."""
    try:
        return list(dataset[tag].value or [])
    except Exception:  # pydicom raises whatever a damaged value makes its parsers raise
        del dataset[tag]
        return []


def put(dataset: Dataset, tag: int, vr: str, value: Any) -> None:
    from pydicom.dataelem import DataElement

    dataset[tag] = DataElement(tag, vr, value)


def nested(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for tag in list(dataset.keys()):
        if vr_of(dataset, tag) == "SQ" and tag in dataset:
            for item in items_of(dataset, tag):
                yield from nested(item)
