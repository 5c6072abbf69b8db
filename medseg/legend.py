"""Which labels a picture names, and how their names are written; pictures of trainings and of reports share it."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["COLOURS", "MOST_NAMED", "OTHERS", "as_text", "named_labels"]

MOST_NAMED = 8
"""As many colours as can be distinguished."""
COLOURS = ("#0072b2", "#d55e00", "#00856a", "#b5307a", "#6a51a3", "#8a6a00", "#7fa000", "#4d2c19")
"""Of the labels that are named, on white: contrast of 3 or more (WCAG 2.2, 1.4.11), after Okabe and Ito, none grey."""
OTHERS = "#b8c2cc"
"""Colour of labels that a picture does not name."""


def named_labels(scores: Mapping[str, float]) -> tuple[str, ...]:
    """The labels that a picture names and colours: all, or of more than eight the lowest; the others are drawn in grey.

    Args:
        scores: label -> what is low where something is wrong; NaN ranks last.

    Example:
        >>> named_labels({f"organ {n}": n / 10 for n in range(10)})[-1]
        'organ 7'
    """
    if len(scores) <= MOST_NAMED:
        return tuple(scores)
    return tuple(sorted(scores, key=lambda label: (math.isnan(scores[label]), scores[label]))[:MOST_NAMED])


def as_text(label: str) -> str:
    r"""A label as matplotlib writes it: it would set $...$ as a formula and leave out what begins with _.

    Example:
        >>> as_text("_a$b")
        ' _a\\$b'
    """
    plain = label.replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain
