"""What a network loses in Dice by 8-bit integers, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.network import Network
from medseg.inference.quantisation.windows import CalibrationCase

__all__ = ["Judge"]

Decided = NDArray[Any]


class Judge:
    """Holds what the network in float finds in some cases, and compares others with it.

    Args:
        network: in float.
        cases: to judge by.
        regions: whether the channels are overlapping regions; else the largest logit is the label.

    Attributes:
        by_labels: whether the cases have labels; else what the network in float finds is taken for them.

    Example:
        >>> case = CalibrationCase(np.ones((1, 2, 4, 4), np.float32), np.ones((1, 4, 4), int))
        >>> finds, misses = (lambda batch: batch * [[[[0]], [[1]]]]), (lambda batch: batch * [[[[1]], [[0]]]])
        >>> Judge(finds, [case]).losses(misses).tolist()
        [1.0]
    """

    def __init__(self, network: Network, cases: Sequence[CalibrationCase], regions: bool = False) -> None:
        self.cases = cases
        self.regions = regions
        self.by_labels = all(case.reference is not None for case in cases)
        found = [self._decided(network, case) for case in cases]
        self._references = [
            case.reference if self.by_labels and case.reference is not None else own
            for case, own in zip(cases, found, strict=True)
        ]
        self._own = [self._dice(own, n) for n, own in enumerate(found)]

    def losses(self, network: Network) -> NDArray[np.float64]:
        """(cases,) Dice of the network in float less that of this one, mean over the labels that the reference holds.

        Cases without any label are left out.
        """
        losses = [
            own - self._dice(self._decided(network, case), n)
            for n, (case, own) in enumerate(zip(self.cases, self._own, strict=True))
        ]
        return np.array([loss for loss in losses if not np.isnan(loss)])

    def loss(self, network: Network) -> float:
        """Mean of `losses`; 0 where no case holds a label."""
        losses = self.losses(network)
        return float(losses.mean()) if len(losses) else 0.0

    def _decided(self, network: Network, case: CalibrationCase) -> Decided:
        """Window by window: what a batch needs in memory grows with it."""
        logits = np.concatenate([network(window[None]) for window in case.windows])
        return logits > 0 if self.regions else logits.argmax(1)

    def _dice(self, decided: Decided, number: int) -> float:
        """Mean over the labels that the reference holds; NaN where it holds none."""
        reference, counted = self._references[number], self.cases[number].counted
        if self.regions:
            pairs = [(decided[:, n], reference[:, n]) for n in range(reference.shape[1])]
        else:
            values = np.unique(reference)
            pairs = [(decided == value, reference == value) for value in values[values > 0]]
        scores = []
        for one, other in pairs:
            if counted is not None:
                one, other = one & counted, other & counted
            if other.any():
                scores.append(2 * float((one & other).sum()) / float(one.sum() + other.sum()))
        return float(np.mean(scores)) if scores else float("nan")
