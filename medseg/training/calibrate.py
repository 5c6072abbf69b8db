"""Fits the calibration for `predict --estimate-quality` on the validation cases and on perturbed copies of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from medseg.config import RunConfig
from medseg.datasets.cases import Case
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.calibration import fit_calibration
from medseg.inference.engine import NetworkEngine
from medseg.inference.predictor import Model
from medseg.inference.quality.disagreement import disagreement
from medseg.inference.quality.estimate import calibration_inputs_of_case
from medseg.inference.quality.perturbations import DAMAGES
from medseg.preparation.sources import read_case, reading_of
from medseg.volume import Volume

__all__ = ["calibrated", "inputs_and_dice"]

_log = logging.getLogger("medseg")

MOST_CASES = 12
# For all cases together; each costs a prediction and one pass per mirror axis.
MOST_COPIES = 72


def calibrated(
    info: BundleInfo, net: nn.Module, device: torch.device, cases: Sequence[Case], config: RunConfig
) -> BundleInfo:
    """The description of a model with its calibration, or without one where the validation cases are too few.

    At most twelve cases, evenly picked; each unchanged and perturbed, at most 72 copies in all.

    Args:
        info: of the trained model, with its reference ranges.
        net: trained, on `device`.
        device: where to predict.
        cases: validation cases, never training or test ones.
        config: of the run; its seed decides how strong each perturbation is.

    Raises:
        ReadError: a file that is gone since the data set was prepared.
    """
    picked = cases[:: math.ceil(len(cases) / MOST_CASES)] if cases else []
    model = Model(info, (net.eval(),), device, "", NetworkEngine(device))
    inputs: list[tuple[float, ...]] = []
    dice: list[float] = []
    groups: list[int] = []
    reading = reading_of(config.data, model.scheme)
    damages = min(len(DAMAGES), MOST_COPIES // max(1, len(picked)) - 1)
    for number, case in enumerate(picked):
        _log.info("calibrating the estimate of quality: case %d of %d", number + 1, len(picked))
        for image, labels in _copies(*read_case(case, reading), number, damages, config.seed):
            for each in inputs_and_dice(model, image, labels, case.annotated):
                if each is not None:
                    inputs.append(each[0])
                    dice.append(each[1])
                    groups.append(number)
    calibration = fit_calibration(np.array(inputs), np.array(dice), groups)
    if calibration is None:
        _log.warning("%d validation cases are too few to calibrate the estimate of quality", len(picked))
    else:
        _log.info(
            "quality: error of the predicted Dice %.3f (root mean square, on cases left out of the fit)",
            calibration.error,
        )
    return info.model_copy(update={"calibration": calibration})


def inputs_and_dice(
    model: Model, image: Volume, labels: Volume, annotated: Sequence[str] | None = None
) -> list[tuple[tuple[float, ...], float] | None]:
    """Predict a case; per label the calibration inputs and the true Dice, None where one of the masks is empty.

    None also for labels that are not among the annotated ones; where `annotated` is None, all are.
    """
    mask = model.predict(image)
    known = np.True_ if model.scheme.ignore is None else labels.array != model.scheme.ignore
    found: list[tuple[tuple[float, ...], float] | None] = []
    inputs = calibration_inputs_of_case(model.info, image, mask, disagreement(model, image))
    for name, each in zip(model.scheme.names, inputs, strict=True):
        pred, ref = model.scheme.mask(mask.array, name) & known, model.scheme.mask(labels.array, name)
        both = int(pred.sum()) + int(ref.sum())
        scored = ref.any() and (annotated is None or name in annotated)
        found.append(None if each is None or not scored else (each, 2.0 * int((pred & ref).sum()) / both))
    return found


def _copies(image: Volume, labels: Volume, number: int, damages: int, seed: int) -> Iterator[tuple[Volume, Volume]]:
    """The case and its perturbed copies; each case continues in the list where the last one stopped."""
    yield image, labels
    names = list(DAMAGES)
    for n in range(number * damages, (number + 1) * damages):
        name = names[n % len(names)]
        yield DAMAGES[name](image, labels, np.random.default_rng([seed, number, n % len(names)]))
