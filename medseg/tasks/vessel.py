"""Vessels: in retinal photographs (2D) and in CT or MR angiography (3D)."""

from __future__ import annotations

from medseg.labels import LabelScheme
from medseg.tasks.task import Task, TaskCase, TaskScores

__all__ = ["VESSEL"]


def _score(case: TaskCase) -> TaskScores:
    return TaskScores()


VESSEL = Task(
    name="vessel",
    labels=LabelScheme.from_mapping({"vessel": 1}),
    metrics=(
        "dice",
        "iou",
        "sensitivity",
        "specificity",
        "precision",
        "cldice",
        "skeleton_recall",
        "betti_error_0",
        "betti_error_1",
        "hd95",
        "assd",
        "nsd",
    ),
    leading=("dice", "cldice", "skeleton_recall"),
    tolerance_mm=1.0,
    score=_score,
    baseline=None,
    defaults={},
)
