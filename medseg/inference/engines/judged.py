"""A network by graphs that are made for one size of batch, each judged before it answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, int16

from medseg.inference.same_labels import CHANGED, holds_labels, same_labels

__all__ = ["JudgedByShape", "decided"]

log = logging.getLogger(__name__)
TensorNetwork = Callable[[Tensor], Tensor]


class JudgedByShape:
    """A graph for each shape of batch: to make one turns what Python computes from a shape into constants.

    The last batch is often smaller; a graph that went wrong there would give a wrong mask. So each is judged on the
    first batch of its shape that holds labels, and until then the network itself answers.

    Args:
        net: the network as it is.
        make: the graph for batches of the shape of this one.
        regions: whether the channels are overlapping regions; else the largest logit is the label.
        share: of the labelled voxels that may get another label.

    Example:
        >>> negated = JudgedByShape(lambda x: x, lambda batch: lambda x: -x, regions=False)
        >>> windows = torch.randn(1, 2, 4, 4)
        >>> bool((negated(windows) == windows).all())
        True
    """

    def __init__(
        self, net: TensorNetwork, make: Callable[[Tensor], TensorNetwork], regions: bool, share: float = CHANGED
    ) -> None:
        self.net = net
        self.regions = regions
        self._make, self._share = make, share
        self._graphs: dict[tuple[int, ...], TensorNetwork] = {}
        self._judged: dict[tuple[int, ...], TensorNetwork] = {}

    def __call__(self, batch: Tensor) -> Tensor:
        """Logits (B, K, *patch) of windows (B, C, *patch)."""
        shape = tuple(batch.shape)
        if shape in self._judged:
            return self._judged[shape](batch)
        if shape not in self._graphs:
            self._graphs[shape] = self._make(batch)
        graph = self._graphs[shape]
        logits = self.net(batch)
        other = graph(batch)
        expected = decided(logits, self.regions)
        if not same_labels(expected, decided(other, self.regions), regions=self.regions, share=self._share):
            log.info("batches of shape %s are left to the network as it is: the labels of its graph differ", shape)
            self._judged[shape] = self.net
            del self._graphs[shape]
        elif holds_labels(expected, self.regions).any():
            self._judged[shape] = graph
            return other
        return logits


def decided(logits: Tensor, regions: bool) -> NDArray[Any]:
    """Labels (B, *patch), or for regions what they hold (B, regions, *patch)."""
    return (logits > 0 if regions else logits.argmax(1).to(int16)).cpu().numpy()
