"""Along which axes the images of a data set all point the same way, so that a mirrored one is like none of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.preparation.fingerprint import WORLD_AXIS, CaseFingerprint

__all__ = ["directed_axes"]

FEWEST_CASES = 8
# Share of the cases that are more like the others than their mirror images are.
ALIKE = 0.95
# Share of a picture's variance that mirroring turns round: less than this does not matter.
LEAST_CHANGE = 0.05


def directed_axes(cases: Sequence[CaseFingerprint], dims: int, orientation: str | None) -> dict[int, str]:
    """Axis of the network -> what shows that all images point the same way along it.

    Every case is compared, as coarse pictures of 8 blocks per axis, with the sum of the others, once as it is and once
    mirrored. The left-right axis is left out: a body's mirror image is one that may occur, as far as its labels
    have no sides.

    Args:
        cases: at least 8, otherwise nothing is said.
        dims, orientation: of the network.
    """
    if len(cases) < FEWEST_CASES:
        return {}
    spatial = len(cases[0].shape)
    names = ("x", "y") if spatial == 2 else ("left-right", "front-back", "head-foot")
    found = {}
    for axis in range(dims):
        along = axis if orientation is None else WORLD_AXIS[orientation[axis]]
        if along == 0:
            continue
        alike = max(
            _alike(np.array([case.features.pictures[channel] for case in cases]), spatial, along)
            for channel in range(len(cases[0].channels))
        )
        if alike >= ALIKE:
            found[axis] = (
                f"one direction: {round(alike * len(cases))} of {len(cases)} images are more like the others along the "
                f"{names[along]} axis than their mirror images are"
            )
    return found


def _alike(pictures: NDArray[np.float64], spatial: int, axis: int) -> float:
    """Share of the cases that are more like the sum of the others than mirrored; 0 where mirroring changes little."""
    blocks = round(pictures.shape[1] ** (1 / spatial))
    shaped = pictures.reshape(len(pictures), *(blocks,) * spatial)
    # The part that does not change under mirroring agrees with either.
    turned = ((shaped - np.flip(shaped, axis + 1)) / 2).reshape(pictures.shape)
    total = (pictures**2).sum(axis=1)
    changes = (turned**2).sum(axis=1) / np.where(total > 0, total, 1)
    if np.median(changes) < LEAST_CHANGE:
        return 0.0
    return float((((turned.sum(axis=0) - turned) * turned).sum(axis=1) > 0).mean())
