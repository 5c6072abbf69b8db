"""FROC: sensitivity for lesions against false positives per case, from probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from medseg.tasks.lesions import label_lesions

__all__ = ["CANDIDATES_TABLE", "FROC_RATES", "Candidate", "find_candidates", "froc", "froc_score"]

CANDIDATES_TABLE = "froc_candidates"
"""A task's table of candidates: label, confidence, number of the lesion hit (or ""), lesions of the reference."""

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per case at which LUNA16 reads the curve (Setio et al., Medical Image Analysis 2017)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a model suspects a lesion.

    Args:
        confidence: its highest probability.
        lesion: number of the reference lesion it hits, the one it shares most voxels with; 0 for a false positive.
    """

    confidence: float
    lesion: int


def find_candidates(
    probability: NDArray[np.floating], ref: NDArray[np.bool_], affine: NDArray[np.float64], threshold: float = 0.1
) -> tuple[Candidate, ...]:
    """Connected components above a low threshold, most confident first.

    Args:
        probability: `(I, J)` or `(I, J, K)`, in [0, 1].
        ref: the reference, same shape.
        affine: `(4, 4)`; numbers of lesions are those of `label_lesions`.
        threshold: what is less probable is not a candidate.
    """
    parts, count = ndimage.label(probability > threshold, structure=np.ones((3,) * ref.ndim))
    if not count:
        return ()
    numbers = label_lesions(ref, affine)
    highest = ndimage.maximum(probability, parts, np.arange(1, count + 1))
    shared = np.zeros((count + 1, int(numbers.max()) + 1), dtype=np.int64)
    both = (parts > 0) & (numbers > 0)
    np.add.at(shared, (parts[both], numbers[both]), 1)
    hit = np.where(shared[1:].any(axis=1), shared[1:].argmax(axis=1), 0)
    found = [Candidate(float(c), int(n)) for c, n in zip(highest, hit, strict=True)]
    return tuple(sorted(found, key=lambda c: (-c.confidence, c.lesion)))


def froc(
    cases: Sequence[Sequence[Candidate]], lesions: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve of a data set.

    A lesion is found at a threshold where any candidate above it hits it; further hits of it are ignored.

    Args:
        cases: candidates of each case.
        lesions: how many lesions the reference of each case holds.

    Returns:
        False positives per case, and sensitivity, one per distinct confidence, from the highest; both begin with 0.

    Example:
        >>> rates, sensitivity = froc([[Candidate(0.9, 1), Candidate(0.8, 0), Candidate(0.4, 2)], []], [2, 0])
        >>> rates.tolist(), sensitivity.tolist()
        ([0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0])
    """
    rows = sorted((-c.confidence, n, c.lesion) for n, case in enumerate(cases) for c in case)
    total = sum(lesions)
    rates, sensitivity = [0.0], [0.0]
    found: set[tuple[int, int]] = set()
    wrong = 0
    for position, (confidence, case, lesion) in enumerate(rows):
        if lesion:
            found.add((case, lesion))
        else:
            wrong += 1
        if position + 1 == len(rows) or rows[position + 1][0] != confidence:
            rates.append(wrong / max(1, len(cases)))
            sensitivity.append(len(found) / total if total else np.nan)
    return np.array(rates), np.array(sensitivity)


def froc_score(rates: ArrayLike, sensitivity: ArrayLike) -> float:
    """Mean sensitivity at the seven rates of `FROC_RATES`: the highest one reached without more false positives.

    Example:
        >>> round(froc_score([0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0]), 3)
        0.857
    """
    x, y = np.asarray(rates), np.asarray(sensitivity)
    return float(np.mean([y[x <= rate].max() for rate in FROC_RATES]))
