"""Chooses the options of a dense CRF, or none, by trying them on a few validation cases."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from medseg.inference.sliding_window import Passes, image_logits
from medseg.inference.window_grid import Windows
from medseg.labels import LabelScheme
from medseg.nets.crf import CrfOptions
from medseg.nets.crf_fit import CrfCase, fit_crf
from medseg.preparation.normalize import normalize
from medseg.preparation.plan import Plan
from medseg.preparation.store import PreparedCase
from medseg.training.validation import dice_of_held, on_native_grid

__all__ = ["CrfChoice", "choose_crf", "crf_candidates"]

_log = logging.getLogger("medseg")

MOST_CASES = 6
# A smaller mean gain is within the noise of so few cases.
LEAST_GAIN = 0.001
# Weights of the smoothness and of the appearance kernel, from none of the latter to the defaults.
STRENGTHS = ((1.0, 0.0), (1.0, 0.5), (3.0, 2.0))
APPEARANCE_VOXELS = (3.0, 10.0)
APPEARANCE_INTENSITIES = (0.1, 0.3)


@dataclass(frozen=True, slots=True)
class CrfChoice:
    """The options chosen and their gain.

    Args:
        options: for the bundle; None where no candidate gains enough.
        gain: of the mean Dice over `cases` validation cases, on the images' own grids; 0 where nothing is kept. The
            same cases chose the options, so the gain on new cases is likely smaller.
        cases: those whose reference holds a label, at most `MOST_CASES`.
    """

    options: CrfOptions | None
    gain: float
    cases: int


def choose_crf(
    net: nn.Module, cases: Sequence[PreparedCase], plan: Plan, scheme: LabelScheme, device: torch.device
) -> CrfChoice:
    """Try `crf_candidates` on the predictions of `net` for at most six of the validation cases, evenly picked.

    Args:
        net: trained; logits `(B, C, I, J[, K])`.
        cases: validation cases, never training or test ones. Those without some labels are left out: a CRF changes
            which label wins, which can only be judged where all are annotated.
        plan: the network's grid and patch.
        scheme: the labels.
        device: where `net` is; the CRF runs there too.

    Example:
        >>> model = medseg.load_model("runs/lung/model")
        >>> choose_crf(model.nets[0], [], model.info.plan, model.info.scheme, model.device)  # no validation cases
        CrfChoice(options=None, gain=0.0, cases=0)
    """
    held = [case for case in cases if case.annotated is None and _holds_label(case, scheme)]
    if not held:
        return CrfChoice(None, 0.0, 0)
    picked = held[:: math.ceil(len(held) / MOST_CASES)]
    _log.info("fitting the CRF on %d validation cases", len(picked))
    net.eval()
    options, gain = fit_crf([_predicted(net, case, plan, scheme, device) for case in picked], crf_candidates(plan))
    if gain < LEAST_GAIN:
        return CrfChoice(None, 0.0, len(picked))
    return CrfChoice(options, gain, len(picked))


def crf_candidates(plan: Plan) -> list[CrfOptions]:
    """The options to try: from a mild smoothing to the defaults, lengths as multiples of the finest spacing."""
    finest = (plan.downsampling or 1.0) if plan.spacing_mm is None else min(plan.spacing_mm)
    found: list[CrfOptions] = []
    for (smooth, appearance), voxels, intensity in product(STRENGTHS, APPEARANCE_VOXELS, APPEARANCE_INTENSITIES):
        options = CrfOptions(
            smooth_weight=smooth,
            smooth_mm=finest,
            appearance_weight=appearance,
            appearance_mm=voxels * finest,
            appearance_intensity=intensity,
        )
        # Where the weight is 0, the other numbers of the appearance kernel have no effect.
        if appearance or not found:
            found.append(options)
    return found


def _holds_label(case: PreparedCase, scheme: LabelScheme) -> bool:
    return any(case.label_voxels.get(value, 0) for values in scheme.values for value in values)


def _predicted(net: nn.Module, case: PreparedCase, plan: Plan, scheme: LabelScheme, device: torch.device) -> CrfCase:
    image = torch.from_numpy(normalize(case.image, case.scales)).to(device)
    logits = image_logits(net, image, Windows.of(plan), scheme.out_channels, Passes(batch_size=max(2, plan.batch_size)))

    def native_dice(refined: Tensor) -> float:
        predicted, reference, _ = on_native_grid(refined, case, plan, scheme)
        dice = dice_of_held(predicted, reference, scheme, scheme.names).values()
        return sum(dice) / len(dice) if dice else math.nan

    return CrfCase(
        logits,
        image.to(logits.device),
        _targets(case, scheme).to(logits.device),
        case.spacing_mm,
        # Where the image was only turned, the labels of the network's grid are its own.
        None if case.native is None else native_dice,
    )


def _targets(case: PreparedCase, scheme: LabelScheme) -> Tensor:
    """(I, J[, K]) channel indices, or (C, I, J[, K]) of regions: 1 inside; -1 where ignored."""
    labels = np.asarray(case.labels)
    if not scheme.is_regions:
        return torch.from_numpy(scheme.channel_table()[labels])
    inside = np.stack([scheme.mask(labels, name) for name in scheme.names]).astype(np.int8)
    if scheme.ignore is not None:
        inside[:, labels == scheme.ignore] = -1
    return torch.from_numpy(inside)
