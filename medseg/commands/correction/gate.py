"""The gate: no held-out case of before may get worse by more than a limit, or the new model does not ship."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.cases import Case
from medseg.inference.load import load_model
from medseg.metrics import score_case
from medseg.preparation.sources import Reading, read_case

__all__ = ["HeldOut", "held_out_scores", "worse_cases"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One label of one held-out case, by the model before and by the new one.

    Args:
        fold: whose weights were scored; the case validates in it.
        case, label: names.
        before, after: Dice; 1 where neither mask nor reference holds the label.
    """

    fold: int
    case: str
    label: str
    before: float
    after: float

    @property
    def loss(self) -> float:
        """What was lost."""
        return self.before - self.after


def held_out_scores(
    models: tuple[Path, Path],
    cases: Mapping[int, Sequence[Case]],
    reading: Reading,
    device: str,
    allow_code: Sequence[str],
    progress: Callable[[int, int, str], None],
) -> list[HeldOut]:
    """Dice of both models on the held-out cases of each fold, each on the image's own grid.

    Args:
        models: bundles of before and after.
        cases: fold -> its held-out cases, with the references of before.
        reading: as the run reads cases.
        device: where to predict.
        allow_code: see `load_model`.
        progress: called as `progress(done, total, case)`.

    Raises:
        CheckpointError: a bundle that cannot be used.
        ReadError, GeometryError, DatasetError: a case that cannot be read any more.
    """
    result = []
    total, done = sum(map(len, cases.values())), 0
    for fold, held_out in cases.items():
        before, after = (load_model(path, device, allow_code=allow_code, folds=[fold]) for path in models)
        for case in held_out:
            progress(done, total, case.name)
            done += 1
            image, reference = read_case(case, reading)
            scheme = before.scheme
            spacing = reference.spacing_mm if reference.spacing_known else None
            scores = [
                score_case(model.predict(image).array, reference.array, spacing, scheme, ("dice",))
                for model in (before, after)
            ]
            names = [name for name in scheme.names if case.annotated is None or name in case.annotated]
            result += [
                HeldOut(fold, case.name, name, *(_dice(each[name]["dice"]) for each in scores)) for name in names
            ]
    progress(total, total, "")
    return result


def _dice(score: float) -> float:
    # Finding nothing where nothing is, is right; a label that is found there scores 0.
    return 1.0 if math.isnan(score) else score


def worse_cases(scores: Sequence[HeldOut], limit: float) -> list[HeldOut]:
    """Of each case that got worse by more than the limit, the label that lost most; the worst case first."""
    worst: dict[tuple[int, str], HeldOut] = {}
    for each in scores:
        key = (each.fold, each.case)
        if each.loss > limit and (key not in worst or each.loss > worst[key].loss):
            worst[key] = each
    return sorted(worst.values(), key=lambda each: -each.loss)
