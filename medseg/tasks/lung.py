"""Lungs in chest CT."""

from __future__ import annotations

from medseg.labels import LabelScheme
from medseg.tasks.task import Task, TaskCase, TaskScores

__all__ = ["LUNG"]


def _score(case: TaskCase) -> TaskScores:
    return TaskScores()


LUNG = Task(
    name="lung",
    labels=LabelScheme.from_mapping({"lung": 1}),
    metrics=("dice", "iou", "nsd", "hd95", "assd", "volume_difference_ml", "volumetric_similarity"),
    # A threshold reaches Dice 0.98: what tells models apart are the surfaces.
    leading=("nsd", "hd95", "dice"),
    tolerance_mm=2.0,
    score=_score,
    baseline=None,
    defaults={"data.modality": "CT", "data.window": "lung"},
)
