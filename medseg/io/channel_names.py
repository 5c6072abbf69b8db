"""The kind of image ('flair', 't1c', 'ct', ...) from the name of a channel, a series description or a file name.

One table serves all three, so a model's channel "T1CE" matches the series "AX T1 POST GAD" and `p1_t1gd.nii.gz`.
"""

from __future__ import annotations

import re

__all__ = ["kind_of_name", "modality_of_kind", "split_name"]

# Compared in lower case; everything except letters, digits, + and * counts as a space.
_T1 = r"\b(t1(?!\d)|mp ?rage|spgr|bravo)"
# The first match counts. T1 after contrast: T1c, T1ce, T1Gd, T1wCE, T1 post, T1 +C, T1 KM.
_KINDS = (
    ("subtraction", r"\bsubtract\w*|\bt[12].* sub$"),
    ("perfusion", r"\b(perf\w*|dsc|dce|pwi|cbv|cbf|mtt|ttp)\b"),
    ("map", r"\bt[12] ?map"),
    ("adc", r"\badc\b"),
    ("dwi", r"\b(dwi|dti|diff\w*|trace|b ?(500|800|1000|1500))\b"),
    ("swi", r"\b(swi|swan|gre|t2 ?star)\b|\bt2w? ?\*"),
    ("t1", _T1),
    ("flair", r"flair|\bt2f\b|\btirm\b|dark ?fluid"),
    ("t2", r"\bt2(?!\d)"),
    ("pd", r"\b(pd|pdw|proton density)\b"),
    ("ct", r"\b(ct|ctac|cect|ncct)\b"),
    ("pet", r"\b(pet|pt|suv)\b"),
    ("mr", r"\bmri?\b"),
)
_ENHANCED = (
    r"\bt1w?( ?(ce|gd|km)\b|c\b| c$)|\bt1w? ?post|\b(post|postcontrast|contrast|gd|gad\w*|km|ce|enhanced)\b"
    r"|\+ ?(c|gd|km)\b|\bc ?\+"
)
_PLAIN = r"\b(pre|precontrast|without|w o|non|no|noncontrast|native?|unenhanced|plain)\b"
_MODALITIES = {"ct": "CT", "pet": "PT"}


def kind_of_name(text: str, has_contrast: bool = False) -> str:
    """The kind of image that a name or description implies; '' if it implies none.

    Args:
        text: in any case and with any separators.
        has_contrast: whether a contrast agent is known to have been given; 'pre' or 'without' in the text take
            precedence.

    Returns:
        't1', 't1c' (after contrast), 't2', 'flair', 'pd', 'dwi', 'adc', 'swi', 'perfusion', 'map', 'subtraction',
        'ct', 'pet', 'mr' or ''.

    Example:
        >>> [kind_of_name(t) for t in ("T1CE", "AX T1 POST GAD", "t1_mprage_sag", "T2-FLAIR", "T1 FLAIR", "kidney")]
        ['t1c', 't1c', 't1', 'flair', 't1', '']
    """
    words = " ".join(re.sub(r"[^a-z0-9+*]+", " ", text.lower()).split())
    kind = next((kind for kind, pattern in _KINDS if re.search(pattern, words)), "")
    if kind == "t1" and not re.search(_PLAIN, words) and (has_contrast or re.search(_ENHANCED, words)):
        return "t1c"
    return kind


def modality_of_kind(kind: str) -> str:
    """DICOM Modality of a kind of image, '' if there is none."""
    return _MODALITIES.get(kind, "MR") if kind else ""


def split_name(stem: str) -> tuple[str, str]:
    """The kind of image that a file name implies, and the name without it: 'p1_t1_ce' gives ('t1c', 'p1')."""
    kind = kind_of_name(stem)
    if not kind:
        return "", stem
    words = re.split(r"([_\-. ]+)", stem)
    kept = [i for i in range(0, len(words), 2) if words[i] and not _tells(words[i], kind)]
    rest = "".join(words[i] + (words[i + 1] if i + 1 < len(words) else "") for i in kept)
    return kind, rest.strip("_-. ")


def _tells(word: str, kind: str) -> bool:
    return kind_of_name(word) != "" or (kind == "t1c" and kind_of_name(f"t1 {word}") == "t1c")
