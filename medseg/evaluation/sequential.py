"""Sequential ranks and CUSUM: has a figure changed, with a known chance of a false alarm whatever its distribution?

Each new value is ranked among the reference and all earlier new values, ties in random order. As long as nothing
changes, ranks are independent and uniform for any distribution and any number of reference values; as normal scores
they enter a two-sided CUSUM, whose chance of an alarm within N values follows from the normal distribution alone. The
values seen so far count as reference, so that a small reference costs power, never false alarms; a change that is not
found soon becomes the new normal, which is why a test says how large a change it can find.

Source: E. Page, Biometrika 41 (1954), 100-115 (CUSUM); D. McDonald, Naval Research Logistics 37 (1990), 627-646
(sequential ranks); D. Brook and D. Evans, Biometrika 59 (1972), 539-549 (Markov chain); V. Vovk et al., Algorithmic
Learning in a Random World (2005), section 7.1 (independence of ranks with random ties).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

__all__ = ["Cusum", "alarm_threshold", "chance_of_alarm", "delays_of_shift", "rate_scores", "sequential_scores"]

_STATES = 120
_SEQUENCES = 400
# More reference values hardly change how soon a shift is found.
_MOST_REFERENCE = 1000


def sequential_scores(
    values: Sequence[float], reference: Sequence[float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """`(n,)` normal scores of the sequential ranks of `values`: independent N(0, 1) while nothing changes.

    Args:
        values: finite, in the order of time.
        reference: finite values from before, in any order.
        rng: orders ties.

    Example:
        >>> scores = sequential_scores([9.0, 9.0], np.arange(8.0), np.random.default_rng(0))
        >>> bool((scores > 0.7).all())
        True
    """
    known = sorted(float(value) for value in reference)
    ranks = np.empty(len(values))
    for n, value in enumerate(values):
        low, high = bisect_left(known, value), bisect_right(known, value)
        ranks[n] = (low + rng.uniform() * (high - low + 1)) / (len(known) + 1)
        insort(known, float(value))
    return _scores(ranks)


def rate_scores(hits: Sequence[bool], rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """`(n,)` normal scores of events: N(0, 1) where they happen at `rate`, smaller where more rarely.

    Args:
        hits: whether the event happened.
        rate: accepted rate of events, in (0, 1).
        rng: spreads equal outcomes.
    """
    drawn = rng.uniform(size=len(hits))
    return _scores(np.where(np.asarray(hits, bool), 1 - rate * drawn, (1 - rate) * drawn))


def _scores(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ndtri(np.clip(ranks, 1e-12, 1 - 1e-12)), np.float64)


@dataclass(frozen=True, slots=True)
class Cusum:
    """A two-sided or upper CUSUM over scores.

    Args:
        drift: subtracted from each score, half of the shift that is found soonest, in SD.
        threshold: alarm above it.
        both: also look for lower values.
    """

    drift: float
    threshold: float
    both: bool = True

    def alarm(self, scores: Sequence[float] | NDArray[np.float64]) -> tuple[int, int, int] | None:
        """(number of values until the first alarm, values before the change began, 1 for higher or -1 for lower).

        None where there is no alarm.
        """
        signs = (1, -1) if self.both else (1,)
        sums, began = dict.fromkeys(signs, 0.0), dict.fromkeys(signs, 0)
        for n, score in enumerate(scores):
            for sign in signs:
                sums[sign] += sign * float(score) - self.drift
                if sums[sign] <= 0:
                    sums[sign], began[sign] = 0.0, n + 1
                if sums[sign] > self.threshold:
                    return n + 1, began[sign], sign
        return None


def chance_of_alarm(drift: float, threshold: float, values: int) -> float:
    """Chance that a one-sided CUSUM of independent N(0, 1) scores exceeds its threshold within `values` values.

    Args:
        drift: see `Cusum`.
        threshold: above 0.
        values: how many.

    Example:
        >>> round(chance_of_alarm(0.5, 4.0, 1000), 2)  # an alarm in 336 on average
        0.95
    """
    # Brook and Evans: the sum lies at 0 or in one of equal cells up to the threshold.
    width = 2 * threshold / (2 * _STATES - 1)
    step = (np.arange(_STATES)[None, :] - np.arange(_STATES)[:, None]) * width + drift
    upper, lower = ndtr(step + width / 2), ndtr(step - width / 2)
    moves = upper - lower
    moves[:, 0] = upper[:, 0]
    return float(1 - np.linalg.matrix_power(moves, values)[0].sum())


@lru_cache(maxsize=64)
def alarm_threshold(drift: float, chance: float, values: int) -> float:
    """The threshold of a one-sided CUSUM for a chance of a false alarm within a number of values.

    Args:
        drift: see `Cusum`.
        chance: in (0, 1).
        values: within how many values, at least 1.
    """
    low, high = 1e-3, 4.0
    while chance_of_alarm(drift, high, values) > chance and high < 1e3:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if chance_of_alarm(drift, middle, values) > chance else (low, middle)
    return high


def delays_of_shift(
    cusum: Cusum, shift: float, reference: int, longest: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """After how many values a shift is found, in each of 400 simulated sequences; infinity where never.

    Args:
        cusum: the test.
        shift: of all values from the first on, in SD of a normal distribution.
        reference: number of values from before.
        longest: how many values are simulated.
        rng: draws the values.

    Returns:
        `(400,)`, sorted.
    """
    start = min(reference, _MOST_REFERENCE)
    known = np.empty((_SEQUENCES, start + longest))
    known[:, :start] = rng.standard_normal((_SEQUENCES, start))
    sums = np.zeros(_SEQUENCES)
    found = np.full(_SEQUENCES, math.inf)
    for n in range(longest):
        value = rng.standard_normal(_SEQUENCES) + shift
        below = (known[:, : start + n] < value[:, None]).sum(axis=1)
        score = _scores((below + rng.uniform(size=_SEQUENCES)) / (start + n + 1))
        known[:, start + n] = value
        sums = np.maximum(sums + np.sign(shift) * score - cusum.drift, 0)
        found = np.where(np.isinf(found) & (sums > cusum.threshold), n + 1, found)
    return np.sort(found)
