"""How often each probability occurs inside and outside the reference, and the scores that follow from it.

They are exact, ties included: nothing is sampled or binned but where a score is defined by bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "ProbabilityCounts"]

BINS = 15
"""Of the expected calibration error."""


@dataclass(frozen=True, slots=True)
class ProbabilityCounts:
    """How often each probability occurs.

    Args:
        values: `(n,)` rising, in [0, 1].
        positives: `(n,)` voxels of the reference with that value.
        negatives: `(n,)` voxels outside it.
    """

    values: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    @property
    def auc(self) -> float:
        """Area under the ROC curve: how often a voxel of the reference has more than one outside, ties half.

        In [0, 1], 0.5 by chance; NaN where the reference holds none or all of the voxels.
        Source: J. A. Hanley, B. J. McNeil, Radiology 143 (1982), 29-36.
        """
        pairs = float(self.positives.sum()) * float(self.negatives.sum())
        below = np.cumsum(self.negatives) - self.negatives / 2
        return float(self.positives @ below) / pairs if pairs else math.nan

    @property
    def average_precision(self) -> float:
        """Sum over the thresholds, highest first, of the precision times the gain in recall.

        In [0, 1]; by chance the share of the reference; NaN where the reference contains no voxel. Nothing is
        interpolated. Source: J. Davis, M. Goadrich, ICML 2006, 233-240; as in scikit-learn.
        """
        gained = self.positives[::-1]
        found, called = np.cumsum(gained), np.cumsum(gained + self.negatives[::-1])
        total = int(gained.sum())
        return float(gained @ (found / np.maximum(called, 1))) / total if total else math.nan

    @property
    def brier(self) -> float:
        """Mean squared difference of probability and reference (1 or 0), in [0, 1]; NaN without voxels.

        Source: G. W. Brier, Monthly Weather Review 78 (1950), 1-3, halved for two classes as is usual.
        """
        total = int(self.positives.sum() + self.negatives.sum())
        squares = self.positives @ (1.0 - self.values) ** 2 + self.negatives @ self.values**2
        return float(squares) / total if total else math.nan

    def calibration(self, bins: int = BINS) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Per bin of equal width: mean probability, share that belongs to the reference (NaN in empty bins), voxels.

        Bin `b` of `n` holds values above `b / n` up to `(b + 1) / n`, the first 0 too.
        """
        borders = np.arange(1, bins) / bins
        which = np.searchsorted(borders, self.values, side="left")
        both = self.positives + self.negatives
        counts = np.bincount(which, both, bins)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(which, both * self.values, bins) / counts
            share = np.bincount(which, self.positives, bins) / counts
        return mean, share, counts.astype(np.int64)

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over the voxels of |mean probability - share of the reference| of their bin.

        In [0, 1]; of the label's probability, in 15 bins as `calibration` parts them; NaN without voxels.
        Source: M. P. Naeini et al., AAAI 2015, 2901-2907; C. Guo et al., ICML 2017, equation 3, for the bins.
        """
        mean, share, counts = self.calibration()
        held = counts > 0
        total = int(counts.sum())
        return float(counts[held] @ np.abs(mean[held] - share[held])) / total if total else math.nan
