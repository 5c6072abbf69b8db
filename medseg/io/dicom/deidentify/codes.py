"""Standard meanings of codes. CodeMeaning beside a code is free text and may identify a patient."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

__all__ = ["harmless_meaning", "standard_meanings"]


def harmless_meaning(given: str, standard: Sequence[str]) -> str:
    """The meaning to keep beside a code: the given one if it is a standard one, otherwise the first standard one.

    Args:
        given: CodeMeaning as stored in the object.
        standard: see `standard_meanings`.

    Example:
        >>> harmless_meaning("brain", ("Brain",)), harmless_meaning("Brain of Jane Doe", ("Brain",))
        ('brain', 'Brain')
    """
    words = _words(given)
    return given if any(words <= _words(each) for each in standard) else next(iter(standard), "")


def standard_meanings(value: str, scheme: str) -> tuple[str, ...]:
    """The meanings of a code in DICOM PS3.16, the shortest first; () for codes that PS3.16 does not list.

    Its context groups and its table of SNOMED codes may word the meaning of a code differently.

    Args:
        value: CodeValue.
        scheme: CodingSchemeDesignator, such as 'SCT', 'SRT' (SNOMED's older codes, which are translated) or 'DCM'.

    Example:
        >>> standard_meanings("12738006", "SCT")
        ('Brain', 'Brain structure (body structure)')
    """
    from pydicom.sr.coding import Code

    return _meanings().get(Code(value, scheme, ""), ()) if value and scheme else ()


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


@functools.cache
def _meanings() -> dict[Code, tuple[str, ...]]:
    from pydicom.sr.codedict import codes

    found: defaultdict[Code, set[str]] = defaultdict(set)
    for name in codes.schemes():
        for code in getattr(codes, name).concepts.values():
            found[code].add(code.meaning)
    return {code: tuple(sorted(meanings, key=lambda text: (len(text), text))) for code, meanings in found.items()}
