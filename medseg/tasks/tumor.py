"""Tumours: lesions, or nested regions of one (BraTS: whole tumour, tumour core, enhancing tumour)."""

from __future__ import annotations

from medseg.tasks.task import Task, TaskCase, TaskScores

__all__ = ["TUMOR"]


def _score(case: TaskCase) -> TaskScores:
    return TaskScores()


TUMOR = Task(
    name="tumor",
    # 3 is non-enhancing tumour in BraTS 2013, and not used, or enhancing tumour, in later years: the data set says.
    labels=None,
    metrics=(
        "dice",
        "iou",
        "sensitivity",
        "precision",
        "hd95",
        "assd",
        "nsd",
        "volume_difference_ml",
        "lesion_dice",
        "lesion_f1",
    ),
    leading=("dice", "lesion_f1", "hd95"),
    tolerance_mm=2.0,
    score=_score,
    baseline=None,
    defaults={"training.foreground_fraction": 0.5},
)
