"""The mean of the probabilities of several models on the image's grid, which the disk holds, not the memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.probabilities import disk_array
from medseg.inference.restore import Restorer
from medseg.labels import LabelScheme

__all__ = ["mean_labels"]

Predict = Callable[[Callable[[tuple[int, ...]], NDArray[Any]]], Any]
# Rows of the image that are averaged at a time.
ROWS = 16


def mean_labels(
    predictions: Sequence[Predict],
    shape: Sequence[int],
    scheme: LabelScheme,
    out: NDArray[np.float16] | None = None,
    precision: type[np.floating[Any]] = np.float16,
) -> NDArray[Any]:
    """The label map of the mean probabilities of models with the same labels.

    Args:
        predictions: each is called with what makes an array, and writes its probabilities there, as `Model.predict`.
        shape: `(I, J, K)` or `(I, J)` of the image.
        scheme: the labels of all.
        out: float16 `(labels, I, J[, K])`, gets the mean; None: it is not wanted.
        precision: to which each model's probabilities are rounded before.

    Returns:
        Integers of `shape`: the label of the largest mean, of equal ones the first; regions where the mean is above
        one half.

    Raises:
        WriteError: if the folder for temporary files has no room for the arrays: a number per voxel, label and model.
    """
    folder = Path(tempfile.gettempdir())
    found: list[NDArray[Any]] = []

    def array(wanted: tuple[int, ...]) -> NDArray[Any]:
        found.append(disk_array(folder, wanted, precision))
        return found[-1]

    for predict in predictions:
        predict(array)
    restorer = Restorer(shape, shape, scheme.out_channels, scheme)
    for first, last, mean in _means(found, shape[0]):
        if out is not None:
            out[:, first:last] = mean
        rest = mean - 0.5 if scheme.is_regions else np.concatenate([1 - mean.sum(axis=0, keepdims=True), mean])
        restorer.add(rest, first, last)
    return restorer.label_map


def _means(found: Sequence[NDArray[Any]], rows: int) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    for first in range(0, rows, ROWS):
        last = min(first + ROWS, rows)
        mean = np.zeros(found[0][:, first:last].shape, dtype=np.float32)
        for each in found:
            mean += each[:, first:last]
        mean /= len(found)
        yield first, last, mean
