"""What the codes of standard terminologies mean: the meaning that stands beside a code may be anybody's words."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

__all__ = ["harmless_meaning", "standard_meaning"]


def harmless_meaning(given: str, standard: str) -> str:
    """The meaning that may stay beside a code: the given one, if it says no more than the standard one, else that."""
    words, known = (set(re.findall(r"\w+", text.casefold())) for text in (given, standard))
    return given if words <= known else standard


def standard_meaning(value: str, scheme: str) -> str:
    """The meaning of a code as DICOM PS3.16 gives it; '' for codes that are not of its context groups.

    Args:
        value: CodeValue.
        scheme: CodingSchemeDesignator, such as 'SCT', 'SRT' (SNOMED's older codes, which are translated) or 'DCM'.

    Example:
        >>> standard_meaning("12738006", "SCT")
        'Brain'
    """
    from pydicom.sr.coding import Code

    return _meanings().get(Code(value, scheme, ""), "") if value and scheme else ""


@functools.cache
def _meanings() -> dict[Code, str]:
    from pydicom.sr.codedict import codes

    schemes = (getattr(codes, name) for name in codes.schemes())
    return {code: code.meaning for scheme in schemes for code in scheme.concepts.values()}
