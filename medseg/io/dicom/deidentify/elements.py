"""Access to the elements of a DICOM data set, possibly damaged, for de-identification."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["items_of", "nested", "put", "says_what_it_should", "text_of", "vr_of"]

# Other programs parse these as numbers or codes; a name stored there by mistake is neither.
_FORMS = {
    "DS": re.compile(rb"[-+0-9.eE\\ ]*"),
    "IS": re.compile(rb"[-+0-9.eE\\ ]*"),
    "CS": re.compile(rb"[A-Za-z0-9_\-+./\\ ]*"),
    "UI": re.compile(rb"[0-9.\\ ]*"),
}
_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4}


def says_what_it_should(dataset: Dataset, tag: int, vr: str) -> bool:
    """Whether a number, code or identifier is well-formed: no letters in numbers, not too many values for the tag."""
    from pydicom.datadict import dictionary_VM

    content = getattr(dataset.get_item(tag), "value", None)
    if not isinstance(content, bytes):
        return True  # already parsed, so it is well-formed
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
    """The value representation of an element, from the standard if the file does not give it; '' if unknown."""
    from pydicom.datadict import dictionary_VR

    vr = getattr(dataset.get_item(tag), "VR", None)
    if vr is None or vr == "UN":
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return ""
    return str(vr).split(" or ")[0]


def text_of(dataset: Dataset, tag: int) -> str:
    """The value as text, several joined by a backslash; '' if there is none or it cannot be decoded."""
    if tag not in dataset:
        return ""
    try:
        value = dataset[tag].value
    except Exception:  # pydicom raises any exception its parsers raise on a damaged value
        return ""
    if value is None or isinstance(value, bytes):
        return ""
    return "\\".join(map(str, value)) if hasattr(value, "append") else str(value)


def items_of(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence. One that cannot be parsed is removed, since its content is unknown."""
    try:
        return list(dataset[tag].value or [])
    except Exception:  # pydicom raises any exception its parsers raise on a damaged value
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
