"""What the names of cases say about the patient: `patient001_frame01` and `patient001_frame12` are of one.

Two kinds of answer: `patient_in` is certain enough to split a data set by, `likeness_in` only raises the question.
Source of the conventions: BIDS 1.9 (`sub-<label>`), BraTS 2023 (`BraTS-GLI-00005-001`), ACDC (`patient001_frame01`),
CHASE_DB1 (`Image_01L`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medseg.io.channel_names import kind_of_name

__all__ = ["has_lettered_twins", "likeness_in", "patient_in"]

# Conventions of data sets that name the patient: BIDS, and BraTS since 2023, whose last number is the time point.
_KNOWN = re.compile(r"^(?:.*[_/\\])?sub-[A-Za-z0-9]+(?=$|[_./\\-])|^BraTS-[A-Z]+-\d{5}(?=-\d{3}$)")
_PERSON = (
    r"patients?|pat|pt|subjects?|subj|sub|sbj|participant|person|proband|volunteer|donor|case|specimen|animal|mouse|rat"
)
# A word for a person, its number, and then something more: case_003_0, patient001_frame01, P12-left, pat7R.
_NUMBERED = re.compile(
    rf"^(?P<before>.*?)(?P<person>(?:(?<![a-z])(?:{_PERSON})|(?<![a-z0-9])p)[-_ .]?(?:id|no|nr)?[-_ .]?)(?P<number>\d+)"
    r"(?P<rest>[-_ .].+|[lr])$",
    re.IGNORECASE,
)
_SIDES = r"left|right|lt|rt|od|os|lh|rh"
_SIDE = re.compile(rf"{_SIDES}|l|r", re.IGNORECASE)
_SIDE_FIRST = re.compile(rf"^(?:{_SIDES})[-_ .]+(?=.)", re.IGNORECASE)
_VIEWS = (
    r"frame|frm|slices?|slc?|time|timepoint|tp|phase|ph|ses|session|visit|scan|acq|run|rep|echo|series|view|patch|crop|"
    r"tile|roi|lesion|nodule|tumou?r|week|month|day|year|followup|fu|aug|img|image|z|t"
)
_COUNTED = re.compile(rf"(?:{_VIEWS})\d+", re.IGNORECASE)
_COUNTER = re.compile(_VIEWS, re.IGNORECASE)
# Words that tell images of one patient apart without a number.
_VARIANT = re.compile(
    r"ed|es|systole|diastole|sys|dia|baseline|base|followup|fu|pre|post|preop|postop|arterial|venous|portal|delayed|native|"
    r"axial|ax|tra|sagittal|sag|coronal|cor|sax|lax|[234]ch|frontal|lateral|pa|ap|cc|mlo|flipped|rotated",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(r"(?<![a-z])(?:site|center|centre|hospital|clinic|vendor|scanner|cohort)", re.IGNORECASE)
_PLACES = (
    r"sites?|cent(?:er|re)s?|hospital|clinic|vendor|scanner|cohort|dataset|task|fold|batch|set|group|class|part|train|"
    r"test|val"
)
_PLACE = re.compile(rf"(?<![a-z])(?:{_PLACES})(?![a-z])", re.IGNORECASE)
_PLACE_NUMBER = re.compile(rf"(?<![a-z])(?:{_PLACES})[-_ .]?\d+(?!\d)", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_SEPARATOR = re.compile(r"[-_ .]+")
_ATTACHED_SIDE = re.compile(r"^(?P<patient>.*\d)(?:[lr]|od|os)$", re.IGNORECASE)
_ATTACHED_LETTER = re.compile(r"^(?P<patient>.*\d)(?P<letter>[a-z])$", re.IGNORECASE)
_LAST_WORD = re.compile(r"^(?P<patient>.*\d.*?)[-_ .]+(?:\d{1,3}|[a-z]{1,3}\d{0,3}|[a-z]+\d{1,3})$", re.IGNORECASE)
_ONLY_COUNTED = re.compile(r"(?:frame|frm|slices?|slc?)[-_ .]?\d+", re.IGNORECASE)
_FIRST_WORD = re.compile(r"^(?P<word>[a-z]+\d?)[-_ .]+(?P<patient>.*\d.*)$", re.IGNORECASE)


def patient_in(name: str, sides_attached: bool = True) -> str:
    """The part of a case's name that names its patient; the whole name where nothing in it tells images apart.

    Args:
        name: of a case.
        sides_attached: whether a letter L or R directly after a number is a side (not where other letters occur there).

    Example:
        >>> [patient_in(n) for n in ("patient001_frame01", "Image_01L", "sub-07_ses-1_T1w", "case_003_0", "case_003")]
        ['patient001', 'Image_01', 'sub-07', 'case_003', 'case_003']
        >>> [patient_in(n) for n in ("hippocampus_003", "ab12_slice_07", "12_left", "site1_scan2")]
        ['hippocampus_003', 'ab12', '12', 'site1_scan2']
    """
    known = _KNOWN.match(name)
    if known:
        return known[0]
    numbered = _NUMBERED.match(name)
    if numbered:
        rest = numbered["rest"]
        # case_2020_014 may be the fourteenth patient of 2020; patient1_hospitalB is another than patient1_hospitalA.
        by_year = _YEAR.fullmatch(numbered["number"]) and re.fullmatch(r"[-_ .]\d+", rest)
        if not by_year and not _ELSEWHERE.search(rest) and (sides_attached or len(rest) > 1):
            return _SIDE_FIRST.sub("", numbered["before"] + numbered["person"] + numbered["number"])
    without_side = _SIDE_FIRST.sub("", _without_last(name, sides_only=True))
    stem = _SIDE_FIRST.sub("", _without_last(name))
    attached = _ATTACHED_SIDE.match(stem) if sides_attached else None
    stem = attached["patient"] if attached else stem
    return stem if _names_somebody(stem) else without_side


def likeness_in(name: str) -> str:
    """What a name has in common with others that could be of the same patient; the whole name if there is no doubt.

    Example:
        >>> [likeness_in(n) for n in ("BraTS-GLI-00005-001", "12b", "ct_104", "hippocampus_003", "slice_17")]
        ['BraTS-GLI-00005', '12', '104', 'hippocampus_003', '']
    """
    stem = _without_last(name)
    if stem != name:
        return name if _PLACE.search(stem) else stem
    if _ONLY_COUNTED.fullmatch(name):
        return ""
    first = _FIRST_WORD.match(name)
    if first and kind_of_name(first["word"]):
        return first["patient"]
    for pattern in (_ATTACHED_LETTER, _LAST_WORD):
        found = pattern.match(name)
        if found and not _PLACE.search(found["patient"]):
            return found["patient"]
    return name


def has_lettered_twins(names: Sequence[str]) -> bool:
    """Whether letters other than L and R follow a number directly, so that `12l` is rather the twelfth of a list."""
    letters = {found["letter"].lower() for name in names if (found := _ATTACHED_LETTER.match(name))}
    return not letters <= {"l", "r"}


def _without_last(name: str, sides_only: bool = False) -> str:
    """The name without what its end says about side, slice, time, view or kind of image; never empty."""
    words = _SEPARATOR.split(name)
    kept = len(words)
    while kept > 1:
        if sides_only:
            drop = int(_SIDE.fullmatch(words[kept - 1]) is not None)
        elif words[kept - 1].isdecimal() and _COUNTER.fullmatch(words[kept - 2]):
            drop = 2
        else:
            drop = int(_is_view(words[kept - 1]))
        if not drop or kept - drop < 1:
            break
        kept -= drop
    return _first_words(name, kept)


def _is_view(word: str) -> bool:
    return bool(
        _SIDE.fullmatch(word)
        or _COUNTED.fullmatch(word)
        or _VARIANT.fullmatch(word)
        or kind_of_name(word.rstrip("0123456789") if word[:1].lower() in ("m", "c", "p") else word)
    )


def _first_words(name: str, count: int) -> str:
    end = 0
    for found in re.finditer(r"[^-_ .]+", name):
        if count <= 0:
            break
        end, count = found.end(), count - 1
    return name[:end]


def _names_somebody(stem: str) -> bool:
    """Whether a number is left that is neither a year nor that of a site, a task or a part of the data."""
    return bool(re.search(r"\d", _YEAR.sub("", _PLACE_NUMBER.sub("", stem))))
