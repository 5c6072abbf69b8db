"""How messages name an element of a DICOM header and its fault: by keyword, tag and value."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["impossible", "shown_value", "tagged"]


def tagged(keyword: str) -> str:
    """Keyword and tag, e.g. 'PixelSpacing (0028,0030)'."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    return keyword if tag is None else f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def impossible(keyword: str, value: float | Sequence[float] | str, expected: str) -> str:
    """The fault of a file in a phrase: 'an impossible PixelSpacing (0028,0030): PixelSpacing is 0\\0; expected ...'."""
    return f"an impossible {tagged(keyword)}: {keyword} is {shown_value(value)}; expected {expected}"


def shown_value(value: float | Sequence[float] | str) -> str:
    """A value as stored in a file: several numbers separated by backslashes, text in quotation marks."""
    if isinstance(value, str):
        return repr(value[:64])
    return f"{value:g}" if isinstance(value, int | float) else "\\".join(f"{v:g}" for v in value)
