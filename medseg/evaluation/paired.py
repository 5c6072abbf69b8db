"""Whether two sets of scores of the same cases differ: paired tests by patient, corrected for how many are made."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.evaluation.seeds import seeds_interval
from medseg.evaluation.statistics import MIN_PATIENTS, bootstrap_interval

__all__ = ["Comparison", "compare_paired", "holm", "permutation_test", "wilcoxon_test"]

PERMUTATIONS = 10000
_EXACT_UP_TO = 13
_PIECE = 1000


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second, over patients.

    Args:
        difference: mean of the patients' mean differences; NaN for no patients.
        ci_low, ci_high: 95% interval of it; None below `MIN_PATIENTS` patients.
        p_permutation, p_wilcoxon: two-sided, not corrected; None below `MIN_PATIENTS` patients.
        n_patients: how many there are.
    """

    difference: float
    ci_low: float | None
    ci_high: float | None
    p_permutation: float | None
    p_wilcoxon: float | None
    n_patients: int


def compare_paired(
    first: ArrayLike, second: ArrayLike, groups: Sequence[Hashable], rng: np.random.Generator
) -> Comparison:
    """Compare two sets of finite scores of the same cases.

    Args:
        first, second: `(n,)` scores, case by case; or `(seeds, n)` of a model that was trained several times, whose
            seeds are then drawn for the interval, too. The tests are of the means over the seeds.
        groups: the patient of each case; cases of a patient count as their mean.
        rng: draws permutations and bootstrap.

    Example:
        >>> compare_paired([0.9, 0.8], [0.8, 0.7], ["a", "b"], np.random.default_rng(0)).p_permutation is None
        True
    """
    scores = [np.atleast_2d(np.asarray(each, np.float64)) for each in (first, second)]
    per_patient = _patient_means(scores[0].mean(axis=0) - scores[1].mean(axis=0), groups)
    n = len(per_patient)
    mean = float(per_patient.mean()) if n else float("nan")
    if n < MIN_PATIENTS:
        return Comparison(mean, None, None, None, None, n)
    if max(map(len, scores)) > 1:
        by_seed = [np.stack([_patient_means(seed, groups) for seed in each]) for each in scores]
        interval: tuple[float, float] | None = seeds_interval(by_seed[0], by_seed[1], rng)
    else:
        interval = bootstrap_interval(per_patient, range(n), rng)
    low, high = interval or (None, None)
    return Comparison(mean, low, high, permutation_test(per_patient, rng), wilcoxon_test(per_patient), n)


def permutation_test(differences: ArrayLike, rng: np.random.Generator, permutations: int = PERMUTATIONS) -> float:
    """Two-sided p value of a mean difference, each difference's sign being as likely as its opposite.

    All sign patterns for up to 13 differences, else `permutations` random ones, the observed one counted among them
    (B. Phipson, G. Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39).

    Args:
        differences: `(n,)` paired differences, one per patient.
        rng: draws the signs.
        permutations: how many random patterns.

    Example:
        >>> permutation_test([1.0, 2.0, 3.0], np.random.default_rng(0))  # 2 of 8 patterns are as extreme
        0.25
    """
    found = np.asarray(differences, dtype=np.float64)
    n = len(found)
    # Sums that are equal but for rounding count as equally extreme.
    limit = abs(float(found.sum())) - 1e-12 * max(float(np.abs(found).sum()), 1e-300)
    if n <= _EXACT_UP_TO:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ found) >= limit))
    extreme = 0
    for start in range(0, permutations, _PIECE):
        signs = rng.choice((-1.0, 1.0), (min(_PIECE, permutations - start), n))
        extreme += int((np.abs(signs @ found) >= limit).sum())
    return (extreme + 1) / (permutations + 1)


def wilcoxon_test(differences: ArrayLike) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test; differences of zero are ranked but take no side (Pratt 1959).

    Example:
        >>> wilcoxon_test([0.0, 0.0, 0.0])
        1.0
    """
    from scipy.stats import wilcoxon

    found = np.asarray(differences, dtype=np.float64)
    if not found.any():
        return 1.0
    exact = len(found) <= 50 and len(np.unique(np.abs(found))) == len(found) and bool(found.all())
    return float(wilcoxon(found, zero_method="pratt", method="exact" if exact else "approx").pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family of tests; None stays None and does not count.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    result: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        result[i] = largest
    return result


def _patient_means(values: NDArray[np.float64], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    if not len(values):
        return values
    _, patient = np.unique([str(g) for g in groups], return_inverse=True)
    return np.asarray(np.bincount(patient, values) / np.bincount(patient))
