"""Who made a segmentation, and the identifiers that follow from it: what DICOM SEG and RTSTRUCT files share."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

__all__ = ["Algorithm", "derived_uid"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The model behind a segmentation.

    Args:
        name: name of the model, for people.
        version: version of the model or of the program that runs it.
        model_hash: hash of the model bundle (hex); another model makes another object.
        options: the options of the run that alter its result, as one string, '' for the defaults.
        review: whether a person should look at this result; descriptions then begin with it.

    Example:
        >>> Algorithm("lung", "1.0", "9f2c").name
        'lung'
    """

    name: str
    version: str
    model_hash: str
    options: str = ""
    review: bool = False

    @property
    def description(self) -> str:
        """What lists of series show: 'Segmentation by lung', or 'NEEDS REVIEW: segmentation by lung'."""
        return f"NEEDS REVIEW: segmentation by {self.name}" if self.review else f"Segmentation by {self.name}"

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two results of the same input different objects, as texts to derive UIDs from."""
        return (self.name, self.version, self.model_hash, self.options, *(("needs review",) if self.review else ()))


def derived_uid(*parts: str) -> str:
    """A DICOM UID that follows from `parts` alone: the same parts give the same UID on every machine.

    It is '2.25.' and a UUID as a decimal number (DICOM PS3.5 B.2), the UUID being the first 128 bits of the SHA-256 of
    the parts with the bits of a name-based UUID (RFC 4122, version 5) set.

    Args:
        parts: any texts, at least one; ('ab', 'c') and ('a', 'bc') differ.

    Raises:
        ValueError: for no parts at all, which would give everybody the same UID.

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
