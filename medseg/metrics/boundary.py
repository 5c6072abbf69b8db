"""Boundary IoU: how well two masks agree along their boundaries, however large they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.empty import empty_score
from medseg.metrics.rounding import ROUNDING

__all__ = ["boundary_iou"]

Mask = NDArray[np.bool_]


def boundary_iou(pred: Mask, ref: Mask, spacing: Sequence[float], width: float) -> float:
    """IoU of the bands that lie inside each mask, within `width` of a voxel outside it, in [0, 1].

    Args:
        pred: `(I, J[, K])`; beyond the array lies nothing.
        ref: the same shape.
        spacing: distance of neighbouring voxels along each axis.
        width: in the unit of the spacing. A band holds at least the voxels with a face neighbour outside.

    Empty masks as `medseg.metrics.empty` says.
    Source: B. Cheng et al., CVPR 2021, equation 2. Their code measures the width in whole pixels by chessboard
    distance, this is the Euclidean distance between voxel centres, which anisotropic voxels need.

    Example:
        >>> ref = np.ones((5, 5), bool)
        >>> boundary_iou(np.pad(ref[1:4, 1:4], 1), ref, (1.0, 1.0), 1.0)
        0.0
    """
    empty = empty_score("share", not pred.any(), not ref.any())
    if empty is not None:
        return empty
    in_pred, in_ref = _band(pred, spacing, width), _band(ref, spacing, width)
    return float(np.count_nonzero(in_pred & in_ref) / np.count_nonzero(in_pred | in_ref))


def _band(mask: Mask, spacing: Sequence[float], width: float) -> Mask:
    padded = np.pad(mask, 1)
    near = ndimage.distance_transform_edt(padded, sampling=spacing) <= width * (1.0 + ROUNDING)
    inside = near | ~ndimage.binary_erosion(padded)
    return np.asarray((padded & inside)[(slice(1, -1),) * mask.ndim])
