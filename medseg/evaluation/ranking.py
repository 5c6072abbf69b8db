"""Ranking of models, and how far it would survive other patients: bootstrap ranks, as challenges give them.

Source: M. Wiesenfarth, A. Reinke, B. A. Landman et al., Scientific Reports 11 (2021), 2369 (challengeR).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.evaluation.statistics import MIN_PATIENTS

__all__ = ["Ranking", "rank_models"]

RESAMPLES = 1000
_PIECE = 100


@dataclass(frozen=True, slots=True)
class Ranking:
    """Places of models, in the order they were given.

    Args:
        mean_rank: mean over cases and scores of the rank among the models, 1 is best, ties share.
        rank: place by `mean_rank`, 1 is best, ties share the lower number.
        rank_low, rank_high: 95% interval of the place over resampled patients; () below `MIN_PATIENTS` patients.
        first_share: share of resamples in which the model is first, ties included; () likewise.
        kendall_tau: mean of Kendall's tau-b between the ranking and those of the resamples, 1 is stable; None likewise.
        n_patients: how many there are.
    """

    mean_rank: tuple[float, ...]
    rank: tuple[int, ...]
    rank_low: tuple[float, ...]
    rank_high: tuple[float, ...]
    first_share: tuple[float, ...]
    kendall_tau: float | None
    n_patients: int


def rank_models(badness: ArrayLike, groups: Sequence[Hashable], rng: np.random.Generator) -> Ranking:
    """Rank per case and score, average, then place: rank-then-aggregate.

    Args:
        badness: `(models, cases, scores)`, growing as a score gets worse; NaN where a case has no such score.
        groups: the patient of each case.
        rng: draws patients.

    Example:
        >>> rank_models([[[0.1], [0.2]], [[0.3], [0.1]], [[0.4], [0.4]]], ["a", "b"], np.random.default_rng(0)).rank
        (1, 1, 3)
    """
    ranks = _ranks(np.asarray(badness, dtype=np.float64))
    _, patient = np.unique([str(g) for g in groups], return_inverse=True)
    n = int(patient.max()) + 1
    known = np.isfinite(ranks[0])
    # Sums over each patient's cases and scores, so that a resample is a sum over patients.
    sums = np.stack([np.bincount(patient, np.where(known, r, 0.0).sum(axis=1), n) for r in ranks])
    counts = np.bincount(patient, known.sum(axis=1), n)
    mean = sums.sum(axis=1) / counts.sum()
    place = _places(mean[None])[0]
    means, ranking = tuple(float(m) for m in mean), tuple(int(p) for p in place)
    if n < MIN_PATIENTS:
        return Ranking(means, ranking, (), (), (), None, n)
    places = []
    for _ in range(0, RESAMPLES, _PIECE):
        drawn = rng.integers(0, n, (_PIECE, n))
        places.append(_places((sums[:, drawn].sum(axis=2) / counts[drawn].sum(axis=1)).T))
    every = np.concatenate(places)
    low, high = np.quantile(every, (0.025, 0.975), axis=0, method="closest_observation")
    return Ranking(
        means,
        ranking,
        tuple(float(v) for v in low),
        tuple(float(v) for v in high),
        tuple(float(v) for v in (every == 1).mean(axis=0)),
        _mean_tau(place, every),
        n,
    )


def _ranks(badness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank among the models in every case and score, ties averaged; NaN where any model has no score."""
    better = (badness[None] < badness[:, None]).sum(axis=1)
    equal = (badness[None] == badness[:, None]).sum(axis=1)
    ranks = better + (equal + 1) / 2.0
    ranks[:, ~np.isfinite(badness).all(axis=0)] = np.nan
    return np.asarray(ranks)


def _places(means: NDArray[np.float64]) -> NDArray[np.int64]:
    """`(resamples, models)` means -> places, ties share the lower number."""
    return np.asarray(1 + (means[:, None, :] < means[:, :, None] - 1e-12).sum(axis=2))


def _mean_tau(place: NDArray[np.int64], every: NDArray[np.int64]) -> float | None:
    """Kendall's tau-b, averaged over the resamples; where a ranking is all ties it is 0."""
    first, second = np.triu_indices(len(place), 1)
    if not len(first):
        return None
    own = np.sign(place[first] - place[second])
    others = np.sign(every[:, first] - every[:, second])
    norm = np.sqrt((own != 0).sum() * (others != 0).sum(axis=1))
    taus = np.divide((own * others).sum(axis=1), norm, out=np.zeros(len(every)), where=norm > 0)
    return float(taus.mean())
