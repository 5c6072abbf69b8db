"""Averages of logits inside the pass over one batch of windows: of the folds, of mirrored windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from medseg.inference.array_ops import Values
from medseg.inference.chosen_ops import ops_of
from medseg.labels import LabelScheme
from medseg.preparation.mirroring import axes_without_sides

__all__ = ["allowed_mirror_axes", "mean_of", "mirrored_logits"]


def mean_of(networks: Sequence[Callable[[Values], Values]]) -> Callable[[Values], Values]:
    """One network whose logits are the mean of several ones', float32; all take arrays, or all take tensors.

    Example:
        >>> mean_of([lambda x: x, lambda x: 3 * x])(np.ones((1, 1, 2, 2))).flatten().tolist()
        [2.0, 2.0, 2.0, 2.0]
    """

    def mean(batch: Values) -> Values:
        ops = ops_of(batch)
        total = ops.single(networks[0](batch))
        for n, network in enumerate(networks[1:]):
            # A net may hand back its own input or a buffer, so the first sum goes into new memory.
            total = _plus(total, ops.single(network(batch)), n == 0)
        if len(networks) > 1:
            total /= len(networks)
        return total

    return mean


def mirrored_logits(net: Callable[[Values], Values], batch: Values, mirror_axes: Sequence[int] = ()) -> Values:
    """Mean of the logits over all flips along subsets of `mirror_axes`, each flipped back.

    Args:
        net: (B, C, *spatial) -> logits (B, K, *spatial).
        batch: (B, C, *spatial), an array or a tensor.
        mirror_axes: spatial axes, 0 is the first after the channels; n axes cost 2**n forward passes.

    Returns:
        float32 logits (B, K, *spatial).

    Example:
        >>> mirrored_logits(lambda x: x, np.arange(4.0).reshape(1, 1, 2, 2), (0,)).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    ops = ops_of(batch)
    total = ops.single(net(batch))
    axes = [axis + 2 for axis in mirror_axes]
    subsets = [subset for size in range(1, len(axes) + 1) for subset in combinations(axes, size)]
    for n, subset in enumerate(subsets):
        flipped = ops.flipped_back(ops.single(net(ops.flipped(batch, subset))), subset)
        # A net may hand back its own input or a buffer, so the first sum goes into new memory.
        total = _plus(total, flipped, n == 0)
    if subsets:
        total /= len(subsets) + 1
    return total


def _plus(total: Values, logits: Values, in_new_memory: bool) -> Values:
    if in_new_memory:
        return total + logits
    total += logits
    return total


def allowed_mirror_axes(dims: int, orientation: str | None, labels: LabelScheme) -> tuple[int, ...]:
    """The spatial axes along which mirroring keeps the labels right, as far as their names tell.

    With a label that says left or right in its name, alone or in a pair, the axis that runs along the patient's
    left-right direction is left out; for images without a known orientation that is axis 0 (x).

    Example:
        >>> allowed_mirror_axes(3, "RAS", LabelScheme.from_mapping({"left_lung": 1, "right_lung": 2}))
        (1, 2)
    """
    return axes_without_sides(dims, orientation, labels)
