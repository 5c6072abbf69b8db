"""Chooses post-processing per label: tried on the validation cases, kept only where it helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.config import PostprocessConfig
from medseg.inference.postprocess import fill_holes, keep_central, keep_components
from medseg.labels import LabelScheme
from medseg.metrics import score_case
from medseg.tasks import get_task

__all__ = ["PostprocessChoice", "dice_of_masks", "score_of_task"]

Mask = NDArray[np.bool_]
MaskScore = Callable[[Mask, Mask, tuple[float, ...]], float]

COMPONENTS = (1, 2)
VOLUMES_ML = (0.03, 0.1, 0.3, 1.0, 3.0)
# A smaller mean gain is within the noise of so few cases.
LEAST_GAIN = 0.001
# What holds only for images cut like those of the training must be worth more than what holds for any.
LEAST_LEAD = 0.02
_HOLES = "fill_holes"


def dice_of_masks(pred: Mask, ref: Mask, spacing_mm: tuple[float, ...]) -> float:
    """Dice of two masks of which the reference is not empty; the spacing does not matter."""
    return 2.0 * int((pred & ref).sum()) / (int(pred.sum()) + int(ref.sum()))


def lesion_f1_of_masks(pred: Mask, ref: Mask, spacing_mm: tuple[float, ...]) -> float:
    """F1 of the lesions of two masks, see `medseg.metrics.lesionwise`."""
    return score_case(pred, ref, spacing_mm, labels=(1,), metrics=("lesion_f1",))[1]["lesion_f1"]


def score_of_task(task: str | None) -> MaskScore:
    """What post-processing is chosen by: lesion F1 for a task that counts lesions, else Dice."""
    return lesion_f1_of_masks if task and "lesion_f1" in get_task(task).metrics else dice_of_masks


class PostprocessChoice:
    """Collects what each candidate gains, case by case, and then chooses.

    A candidate is kept for a label when the mean score over the cases whose reference holds the label gains at least
    `LEAST_GAIN`, and more of them gain than lose. Of the candidates that remove components the best one is taken.

    Args:
        scheme: the labels.
        score: `score(pred, ref, spacing_mm)`, higher is better: Dice, or for lesions lesion-wise F1, so that small
            metastases are not deleted for the sake of Dice.
    """

    def __init__(self, scheme: LabelScheme, score: MaskScore = dice_of_masks) -> None:
        self.scheme = scheme
        self.score = score
        self.gains: dict[str, dict[str, list[float]]] = {name: {} for name in scheme.names}

    def add(
        self,
        predicted: NDArray[Any],
        reference: NDArray[Any],
        spacing_mm: Sequence[float] | None,
        annotated: Sequence[str] | None = None,
    ) -> None:
        """Try every candidate on a case.

        Args:
            predicted: `(I, J[, K])` label map without post-processing.
            reference: the same shape.
            spacing_mm: per axis; None where it is not known; limits by volume are then not tried.
            annotated: names of the labels that the reference has annotated; None: all.
        """
        spacing = tuple(spacing_mm or (1.0,) * predicted.ndim)
        known = None if self.scheme.ignore is None else reference != self.scheme.ignore
        for name in self.scheme.names if annotated is None else annotated:
            pred, ref = self.scheme.mask(predicted, name), self.scheme.mask(reference, name)
            if not ref.any():
                continue
            box = _box(pred | ref)
            pred, ref = pred[box], ref[box]
            counted = pred if known is None else pred & known[box]
            before = self.score(counted, ref, spacing)
            for candidate, after in self._tried(pred, spacing_mm, box, predicted.shape):
                changed = after if known is None else after & known[box]
                gain = 0.0 if np.array_equal(changed, counted) else self.score(changed, ref, spacing) - before
                self.gains[name].setdefault(candidate, []).append(gain)

    def _tried(
        self, pred: Mask, spacing_mm: Sequence[float] | None, box: Sequence[slice], shape: Sequence[int]
    ) -> list[tuple[str, Mask]]:
        tried = [(f"keep_components {n}", keep_components(pred, 1, n)) for n in COMPONENTS]
        tried.append(("keep_central 1", keep_central(pred, 1, box, shape)))
        if spacing_mm is not None and pred.ndim == 3:
            voxel_ml = float(np.prod(spacing_mm)) / 1000.0
            tried += [
                (f"minimum_volume_ml {v}", keep_components(pred, int(np.ceil(v / voxel_ml * (1 - 1e-9)))))
                for v in VOLUMES_ML
            ]
        return [*tried, (_HOLES, fill_holes(pred))]

    def chosen(self) -> tuple[PostprocessConfig, dict[str, float]]:
        """The rules that help, and "label: rule" -> gain in the mean score of each."""
        components: dict[str, int] = {}
        central: dict[str, int] = {}
        volumes: dict[str, float] = {}
        holes: list[str] = []
        gained: dict[str, float] = {}
        for name, tried in self.gains.items():
            helpful = {candidate: float(np.mean(gains)) for candidate, gains in tried.items() if _helps(gains)}
            if _HOLES in helpful:
                holes.append(name)
                gained[f"{name}: {_HOLES}"] = helpful.pop(_HOLES)
            if helpful:
                best = max(helpful, key=lambda each: helpful[each] - (LEAST_LEAD if "central" in each else 0))
                gained[f"{name}: {best}"] = helpful[best]
                rule, _, value = best.partition(" ")
                if rule == "keep_components":
                    components[name] = int(value)
                elif rule == "keep_central":
                    central[name] = int(value)
                else:
                    volumes[name] = float(value)
        rules = PostprocessConfig(
            minimum_volume_ml=volumes, keep_components=components, keep_central=central, fill_holes=tuple(holes)
        )
        return rules, {rule: round(gain, 4) for rule, gain in gained.items()}


def _helps(gains: Sequence[float]) -> bool:
    better, worse = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    return float(np.mean(gains)) >= LEAST_GAIN and better > worse


def _box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(box)
