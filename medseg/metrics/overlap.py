"""Overlap of two masks: every score that needs no more than counts of voxels.

With one mask empty, shares are 0; with both, NaN; all as `medseg.metrics.empty` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from medseg.metrics.empty import empty_score

__all__ = ["Overlap"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Voxel counts of one label in one case. `total` counts the voxels that take part (all but ignored ones)."""

    true_positive: int
    false_positive: int
    false_negative: int
    total: int

    @property
    def in_pred(self) -> int:
        """Voxels of the prediction."""
        return self.true_positive + self.false_positive

    @property
    def in_ref(self) -> int:
        """Voxels of the reference."""
        return self.true_positive + self.false_negative

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), in [0, 1]; empty masks as `medseg.metrics.empty` says.

        Source: L. R. Dice, Ecology 26 (1945), 297-302.
        """
        empty = empty_score("share", self.in_pred == 0, self.in_ref == 0)
        return 2.0 * self.true_positive / (self.in_pred + self.in_ref) if empty is None else empty

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), in [0, 1]; empty masks as `medseg.metrics.empty` says.

        Source: P. Jaccard, New Phytologist 11 (1912), 37-50.
        """
        empty = empty_score("share", self.in_pred == 0, self.in_ref == 0)
        union = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / union if empty is None else empty

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN), recall, in [0, 1]; empty masks as `medseg.metrics.empty` says.

        Source: A. A. Taha, A. Hanbury, BMC Medical Imaging 15:29 (2015), also for the scores below.
        """
        empty = empty_score("share", self.in_pred == 0, self.in_ref == 0)
        return self.true_positive / self.in_ref if empty is None else empty

    @property
    def precision(self) -> float:
        """TP / (TP + FP), in [0, 1]; empty masks as `medseg.metrics.empty` says."""
        empty = empty_score("share", self.in_pred == 0, self.in_ref == 0)
        return self.true_positive / self.in_pred if empty is None else empty

    @property
    def volumetric_similarity(self) -> float:
        """1 - |FN - FP| / (2 TP + FP + FN), in [0, 1]; empty masks as `medseg.metrics.empty` says."""
        empty = empty_score("share", self.in_pred == 0, self.in_ref == 0)
        return 1.0 - abs(self.in_pred - self.in_ref) / (self.in_pred + self.in_ref) if empty is None else empty

    def volume_difference_ml(self, voxel_mm3: float) -> float:
        """Volume of the prediction less that of the reference, in ml; 2D images count as 1 mm thick."""
        return (self.in_pred - self.in_ref) * voxel_mm3 / 1000.0

    @property
    def specificity(self) -> float:
        """TN / (TN + FP), in [0, 1]; NaN where every voxel belongs to the reference."""
        negatives = self.total - self.in_ref
        return (negatives - self.false_positive) / negatives if negatives else float("nan")
