"""Scores of a network on prepared validation cases: real sliding windows, compared on the image's own grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.inference.restore import to_label_map
from medseg.inference.sliding_window import Passes, image_logits
from medseg.inference.window_grid import Windows
from medseg.labels import LabelScheme
from medseg.metrics import score_case
from medseg.preparation.grid import map_to_network_grid
from medseg.preparation.normalize import normalize
from medseg.preparation.plan import Plan
from medseg.preparation.store import PreparedCase

__all__ = ["Scores", "annotated_of", "dice_of_held", "on_native_grid", "validate"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Dice on the image's own grid: the mean over labels, and per label the mean over cases that contain it.

    A label that no case contains has no Dice (None) and does not enter the mean.
    """

    mean_dice: float
    dice: dict[str, float | None]
    cases: int


def validate(
    net: nn.Module,
    cases: Sequence[PreparedCase],
    plan: Plan,
    scheme: LabelScheme,
    device: torch.device,
    seen: Callable[[NDArray[Any], NDArray[Any], tuple[float, ...] | None, Sequence[str]], None] | None = None,
) -> Scores:
    """Dice of `net` on prepared cases, without test-time augmentation, on the grid that masks are delivered on.

    Cases whose reference lacks a label, or that have it not annotated, do not enter that label's mean. `seen` is called
    with each case's predicted label map, its reference, the spacing where it is known, and the annotated labels.
    """
    net.eval()
    per_label: dict[str, list[float]] = {name: [] for name in scheme.names}
    for case in cases:
        image = torch.from_numpy(normalize(case.image, case.scales)).to(device)
        logits = image_logits(
            net, image, Windows.of(plan), scheme.out_channels, Passes(batch_size=max(2, plan.batch_size))
        )
        predicted, reference, spacing = on_native_grid(logits, case, plan, scheme)
        if seen is not None:
            seen(predicted, reference, None if plan.spacing_mm is None else spacing, annotated_of(case, scheme))
        for name, dice in dice_of_held(predicted, reference, scheme, annotated_of(case, scheme)).items():
            per_label[name].append(dice)
    means = {name: float(np.mean(values)) if values else None for name, values in per_label.items()}
    known = [value for value in means.values() if value is not None]
    return Scores(float(np.mean(known)) if known else 0.0, means, len(cases))


def annotated_of(case: PreparedCase, scheme: LabelScheme) -> tuple[str, ...]:
    """Names of the labels that are annotated in a case."""
    return scheme.names if case.annotated is None else case.annotated


def dice_of_held(
    predicted: NDArray[Any], reference: NDArray[Any], scheme: LabelScheme, annotated: Sequence[str]
) -> dict[str, float]:
    """Dice of each annotated label that the reference holds; both are label maps on one grid."""
    scores = score_case(predicted, reference, (1.0,) * reference.ndim, labels=scheme, metrics=("dice",))
    return {name: scores[name]["dice"] for name in annotated if scheme.mask(reference, name).any()}


def on_native_grid(
    logits: Tensor, case: PreparedCase, plan: Plan, scheme: LabelScheme
) -> tuple[NDArray[Any], NDArray[Any], tuple[float, ...]]:
    """Predicted and reference label map of a case where its image lies, and the spacing there.

    Where the image was only turned, not resampled, its axes stay turned, which changes no score.

    Args:
        logits: `(K, I, J[, K])` on the network's grid.
        case: that they were predicted for.
        plan: says how the case was prepared.
        scheme: the labels.
    """
    order = plan.logits.order
    if case.native is None:
        return to_label_map(logits, case.labels.shape, scheme, order), np.asarray(case.labels), case.spacing_mm
    grid = map_to_network_grid(case.native.grid, plan)
    predicted = grid.to_native(to_label_map(logits, grid.oriented_shape, scheme, order, grid.thick[1]))
    return predicted, case.native.read(), case.native.grid.spacing_mm
