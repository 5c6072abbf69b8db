"""Rough places of labels in an image, moved to its edges step by step, and made a label map with an ignored band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medseg.config import WeakConfig
from medseg.nets.crf import dense_crf
from medseg.nets.random_walk import random_walk
from medseg.resampling import resample_array

__all__ = ["Steps", "from_boxes", "from_maps", "label_map_of", "labels_of", "scaled_together"]

Maps = NDArray[np.float32]
# Log-odds of a label against background, of a map at its maximum above the threshold.
SHARPNESS = 8.0
# Log-odds of what is ruled out.
NEVER = -20.0
BINS = 32
# Grey levels alone do not decide: bounds of their log-odds.
MOST_ODDS = 4.0
# Voxels around a label whose grey levels are compared with its own.
AROUND = 8
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Steps:
    """What each step made of an image.

    Args:
        log_odds: name of the step -> `(labels, I, J[, K])` log-odds of each label against background; the last counts.
    """

    log_odds: dict[str, Maps]

    @property
    def last(self) -> Maps:
        """Of the last step."""
        return list(self.log_odds.values())[-1]


def from_maps(
    maps: Sequence[Maps], images: Sequence[Maps], allowed: Sequence[NDArray[np.bool_]], weak: WeakConfig
) -> list[Steps]:
    """Log-odds from activation maps: the maps, after the random walk, and after the CRF.

    Maps are divided by the maximum of each label over all slices of a case, so that a faint place in one slice does not
    count like the lesion in the next.

    Args:
        maps: of each slice, `(labels, I, J[, K])`, 0 or more.
        images: of each slice, `(C, I, J[, K])`, as the classifier sees it.
        allowed: of each slice, `(labels, I, J[, K])` where each label may be.
        weak: which steps, and the threshold.
    """
    current = scaled_together(maps, allowed)
    steps = [{"maps": _odds(each, may, weak.map_threshold)} for each, may in zip(current, allowed, strict=True)]
    if weak.walk_steps:
        walked = [
            random_walk(torch.from_numpy(each), torch.from_numpy(image), steps=weak.walk_steps).numpy()
            for each, image in zip(current, images, strict=True)
        ]
        for found, each, may in zip(steps, scaled_together(walked, allowed), allowed, strict=True):
            found["walk"] = _odds(each, may, weak.map_threshold)
    return [_with_crf(*each, weak) for each in zip(steps, images, allowed, strict=True)]


def scaled_together(maps: Sequence[Maps], allowed: Sequence[NDArray[np.bool_]]) -> list[Maps]:
    """Maps of slices, 0 where a label may not be, divided by the maximum of each label over all of them."""
    kept = [np.where(may, each, 0).astype(np.float32) for each, may in zip(maps, allowed, strict=True)]
    highest = np.max([each.reshape(len(each), -1).max(axis=1) for each in kept], axis=0)
    return [each / np.maximum(highest, 1e-8).reshape(-1, *[1] * (each.ndim - 1)) for each in kept]


def from_boxes(log_odds: Maps, image: Maps, allowed: NDArray[np.bool_], weak: WeakConfig) -> Steps:
    """Log-odds from those of boxes, by grey levels, and after the CRF.

    Args:
        log_odds: `(labels, I, J[, K])`, see `medseg.training.weak.boxes.box_odds`.
        image, allowed, weak: as for `from_maps`, of one slice.
    """
    steps = {"boxes": np.where(allowed, log_odds, NEVER).astype(np.float32)}
    if weak.grey_levels:
        steps["grey_levels"] = _by_grey_levels(steps["boxes"], image, allowed)
    return _with_crf(steps, image, allowed, weak)


def label_map_of(
    log_odds: Maps, allowed: NDArray[np.bool_], values: tuple[int, ...], ignore: int, certainty: float
) -> NDArray[np.integer]:
    """The label map: the most likely label of each voxel, or `ignore` where it is less certain.

    Args:
        log_odds: `(labels, I, J[, K])`, on a grid that may be coarser.
        allowed: `(labels, I, J[, K])` on the grid of the label map; background is certain where no label may be.
        values: of the labels.
        ignore: value of voxels in doubt.
        certainty: least probability of the most likely label, background included.
    """
    probabilities = _with_background(_native(log_odds, allowed))
    dtype = np.min_scalar_type(max(*values, ignore))
    found = np.array([0, *values], dtype)[probabilities.argmax(axis=0)]
    return np.asarray(np.where(probabilities.max(axis=0) < certainty, dtype.type(ignore), found))


def labels_of(log_odds: Maps, allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """`(I, J[, K])` the number of the most likely label, from 1, or 0; arguments as for `label_map_of`."""
    odds = _native(log_odds, allowed)
    return np.asarray(np.where(odds.max(axis=0) > 0, odds.argmax(axis=0) + 1, 0))


def _native(log_odds: Maps, allowed: NDArray[np.bool_]) -> Maps:
    return np.where(allowed, resample_array(log_odds, allowed.shape[1:], 1), NEVER).astype(np.float32)


def _odds(maps: Maps, allowed: NDArray[np.bool_], threshold: float) -> Maps:
    return np.where(allowed, SHARPNESS * (maps - threshold), NEVER).astype(np.float32)


def _with_crf(steps: dict[str, Maps], image: Maps, allowed: NDArray[np.bool_], weak: WeakConfig) -> Steps:
    if weak.crf:
        odds = torch.from_numpy(list(steps.values())[-1])
        moved = dense_crf(
            torch.cat([torch.zeros_like(odds[:1]), odds]), torch.from_numpy(image), (1.0,) * (odds.dim() - 1)
        )
        steps["crf"] = np.where(allowed, (moved[1:] - moved[:1]).numpy(), NEVER).astype(np.float32)
    return Steps(steps)


def _by_grey_levels(log_odds: Maps, image: Maps, allowed: NDArray[np.bool_]) -> Maps:
    """Log-odds with those of grey levels: what is frequent in a label and rare around it, as in GrabCut.

    Source:
        Rother, Kolmogorov, Blake, GrabCut, SIGGRAPH 2004, with histograms of each channel for mixtures of Gaussians.
    """
    bins = [_binned(channel) for channel in image]
    current = log_odds
    for _ in range(ROUNDS):
        share = _with_background(current)[1:]
        found = []
        for own, prior, may in zip(share, log_odds, allowed, strict=True):
            near = ndimage.binary_dilation(own > 0.5, iterations=AROUND)
            rest = np.where(near | may, 1 - share.sum(axis=0), 0)
            odds = sum(np.log(_frequencies(b, own) / _frequencies(b, rest))[b] for b in bins)
            found.append(np.where(may, prior / 2 + np.clip(odds, -MOST_ODDS, MOST_ODDS), NEVER))
        current = np.stack(found).astype(np.float32)
    return current


def _binned(channel: Maps) -> NDArray[np.intp]:
    low, high = np.percentile(channel, [0.5, 99.5])
    return np.asarray(np.clip((channel - low) / max(high - low, 1e-6) * BINS, 0, BINS - 1).astype(np.intp))


def _frequencies(bins: NDArray[np.intp], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    counts = ndimage.gaussian_filter1d(np.bincount(bins.ravel(), weights.ravel(), minlength=BINS), 1.5)
    counts = counts + 1e-3 * counts.sum() + 1e-9
    return np.asarray(counts / counts.sum())


def _with_background(log_odds: Maps) -> Maps:
    """Probabilities of background and labels."""
    both = np.concatenate([np.zeros_like(log_odds[:1]), log_odds])
    powers = np.exp(both - both.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))
