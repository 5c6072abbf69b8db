"""The algorithm that made a segmentation, and the UIDs derived from it; shared by all DICOM objects that we write."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Algorithm", "derived_uid"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The model that made a segmentation.

    Args:
        name: human-readable name of the model.
        version: version of the model or of the program that runs it.
        model_hash: hexadecimal hash of the model bundle; another model makes another DICOM object.
        options: the options of the run that change its result, as one string; '' for the defaults.
        review: whether a person should check this result; descriptions then begin with 'NEEDS REVIEW'.
        made: the date of the content; None for the study's date, so that the same inputs give the same bytes.
        mark: what descriptions begin with, such as 'RESEARCH'; '' for nothing.

    Example:
        >>> Algorithm("lung", "1.0", "9f2c").name
        'lung'
    """

    name: str
    version: str
    model_hash: str
    options: str = ""
    review: bool = False
    made: datetime | None = None
    mark: str = ""

    @property
    def description(self) -> str:
        """The text that viewers list: 'Segmentation by lung', or 'NEEDS REVIEW: segmentation by lung'."""
        return self.describes("segmentation")

    def describes(self, content: str) -> str:
        """The text that viewers list for an object, with the marks that a reader must see first.

        Args:
            content: what the object contains, in lower case.

        Example:
            >>> Algorithm("lung", "1.0", "9f2c", review=True, mark="RESEARCH").describes("measurements")
            'RESEARCH, NEEDS REVIEW: measurements by lung'
        """
        marks = ", ".join(filter(None, (self.mark, "NEEDS REVIEW" * self.review)))
        text = f"{content} by {self.name}"
        return f"{marks}: {text}" if marks else text[:1].upper() + text[1:]

    @property
    def identity(self) -> tuple[str, ...]:
        """The texts to derive UIDs from: results that differ in any of them are different objects."""
        notes = (*(("needs review",) if self.review else ()), *((self.made.isoformat(),) if self.made else ()))
        marks = (f"marked {self.mark}",) if self.mark else ()
        return (self.name, self.version, self.model_hash, self.options, *notes, *marks)


def derived_uid(*parts: str) -> str:
    """A DICOM UID that depends only on `parts`: the same parts give the same UID on every machine.

    It is '2.25.' and a UUID as a decimal number (DICOM PS3.5 B.2), the UUID being the first 128 bits of the SHA-256 of
    the parts with the bits of a name-based UUID (RFC 4122, version 5) set.

    Args:
        parts: at least one text; ('ab', 'c') and ('a', 'bc') give different UIDs.

    Raises:
        ValueError: if there are no parts, since every caller would then get the same UID.

    Example:
        >>> derived_uid("series", "1.2.3", "9f2c")[:5]
        '2.25.'
    """
    if not parts:
        raise ValueError("derived_uid needs at least one text to derive a UID from")
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}"
