"""Twins among labels, measured: two that lie on the left and on the right and look alike, whatever they are called.

A network can tell twins by their place alone, so an image that is mirrored across the patient's middle teaches it the
wrong one. What differs in size, height, shape or grey level, such as liver and spleen, is distinguished without its
place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.labels import LabelScheme
from medseg.preparation.fingerprint import CaseFingerprint
from medseg.preparation.label_places import LabelPlace, joined_place

__all__ = ["Twins", "find_twins"]

FEWEST_CASES = 8
# One case in so many may lie the other way round: it is then reported, and the rest still counts.
SWAPPED_ONE_IN = 8
LARGEST_RATIO = 2.0
# Bhattacharyya coefficient of a label's ellipsoid and the mirrored one of its partner: 1 is the same, kidneys of
# patients have about 0.9, and 0.6 is a partner two standard deviations beside the mirrored place.
LIKE_PLACES = 0.6
# Share of the grey levels of one that lie within the middle 90 % of the other's, both ways.
LIKE_LEVELS = 0.5
# Grey levels that differ by this share of the image's standard deviation are the same.
SAME_LEVEL = 0.05
# Cases in which size, place and grey levels are compared; the sides are looked at in all.
COMPARED = 64


@dataclass(frozen=True, slots=True)
class Twins:
    """Two labels that only their side tells apart.

    Args:
        first, second: indices into the names of the scheme; the first lies left of the second.
        cases: that hold both.
        swapped: names of cases in which they lie the other way round.
    """

    first: int
    second: int
    cases: int
    swapped: tuple[str, ...] = ()


def find_twins(cases: Sequence[CaseFingerprint], scheme: LabelScheme) -> tuple[Twins, ...]:
    """The twins of a data set.

    Two labels are twins if at least 8 cases hold both and in these they lie on opposite sides of the body's middle,
    always the same one on the same side (but for one case in eight), and in the median case their volumes are within a
    factor of 2, they do not overlap from left to right, the mirror image of one lies where the other does, and their
    grey levels overlap in every channel.

    Args:
        cases: of the data set.
        scheme: its labels; a region of several values is one label.

    Source:
        Bhattacharyya, On a measure of divergence between two multinomial populations, Sankhya 7 (1946).
    """
    places = [_by_label(case, scheme) for case in cases]
    sides = np.array([_sides(case, held, len(scheme.names)) for case, held in zip(cases, places, strict=True)])
    if not len(sides):
        return ()
    left, right = (sides < 0).astype(np.int64), (sides > 0).astype(np.int64)
    known = left + right
    both, apart = known.T @ known, left.T @ right
    candidates = np.argwhere((both >= FEWEST_CASES) & (both - apart <= both // SWAPPED_ONE_IN))
    found = []
    for first, second in candidates.tolist():
        held = [n for n, each in enumerate(places) if first in each and second in each]
        some = held[:: -(-len(held) // COMPARED)]
        pairs = [(places[n][first], places[n][second]) for n in some]
        if _alike(pairs, [_spread(cases[n]) for n in some]):
            swapped = tuple(cases[n].name for n in held if sides[n][first] > 0 > sides[n][second])
            found.append(Twins(first, second, len(held), swapped))
    return tuple(found)


def _by_label(case: CaseFingerprint, scheme: LabelScheme) -> Mapping[int, LabelPlace]:
    held = {n: [case.places[v] for v in values if v in case.places] for n, values in enumerate(scheme.values)}
    return {n: joined_place(each) for n, each in held.items() if each}


def _sides(case: CaseFingerprint, held: Mapping[int, LabelPlace], count: int) -> NDArray[np.float64]:
    """Per label how far to the right of the body's middle it lies, in mm; 0 where it is absent."""
    offsets = np.zeros(count)
    for n, place in held.items():
        offsets[n] = place.centre[0] - case.middle_mm
    return offsets


def _spread(case: CaseFingerprint) -> tuple[float, ...]:
    return tuple(channel.std for channel in case.features.levels)


def _alike(pairs: Sequence[tuple[LabelPlace, LabelPlace]], spreads: Sequence[Sequence[float]]) -> bool:
    ratios = [max(a.volume, b.volume) / min(a.volume, b.volume) for a, b in pairs]
    if np.median(ratios) > LARGEST_RATIO:
        return False
    if np.median([_gap(a, b) for a, b in pairs]) < 0 or np.median([_mirrored_overlap(a, b) for a, b in pairs]) < (
        LIKE_PLACES
    ):
        return False
    channels = range(len(pairs[0][0].levels))
    return all(_levels_overlap(pairs, [spread[c] for spread in spreads], c) for c in channels)


def _gap(first: LabelPlace, second: LabelPlace) -> float:
    """Distance of the centres from left to right, less both standard deviations; the halves of a ball have a gap."""
    wide = sum(float(np.sqrt(place.covariance[0])) for place in (first, second))
    return abs(first.centre[0] - second.centre[0]) - wide


def _mirrored_overlap(first: LabelPlace, second: LabelPlace) -> float:
    """Bhattacharyya coefficient of the second label and of the first one, mirrored at the plane half-way between."""
    dims = len(first.centre)
    flip = np.diag([-1.0, *[1.0] * (dims - 1)])
    one = flip @ np.reshape(first.covariance, (dims, dims)) @ flip
    other = np.reshape(second.covariance, (dims, dims))
    offset = np.subtract(first.centre, second.centre)
    offset[0] = 0.0
    mean = (one + other) / 2
    distance = float(offset @ np.linalg.solve(mean, offset)) / 8
    logs = [float(np.linalg.slogdet(each)[1]) for each in (mean, one, other)]
    return float(np.exp(-distance - (logs[0] - (logs[1] + logs[2]) / 2) / 2))


def _levels_overlap(pairs: Sequence[tuple[LabelPlace, LabelPlace]], spreads: Sequence[float], channel: int) -> bool:
    levels = [(np.array(a.levels[channel]), np.array(b.levels[channel])) for a, b in pairs]
    slack = [SAME_LEVEL * spread for spread in spreads]
    shared = [(_within(a, b, s) + _within(b, a, s)) / 2 for (a, b), s in zip(levels, slack, strict=True)]
    if np.median(shared) >= LIKE_LEVELS:
        return True
    # Now one is brighter, now the other: no grey level tells them either.
    differences = [(np.median(a) - np.median(b)) / (s or 1.0) for (a, b), s in zip(levels, slack, strict=True)]
    return bool(abs(np.mean(differences)) <= np.std(differences))


def _within(levels: NDArray[np.float64], other: NDArray[np.float64], slack: float) -> float:
    return float(np.mean((levels >= other[0] - slack) & (levels <= other[-1] + slack)))
