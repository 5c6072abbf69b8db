"""Which layers have to stay in float: those without which 8-bit integers lose little Dice, found by measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from medseg.errors import CheckpointError

__all__ = ["MOST_FLOATING", "with_little_loss"]

T = TypeVar("T")

# Share of the weights that may stay float: of more, the file would not be small.
MOST_FLOATING = 0.25
# Parts into which the layers are divided to find where the loss comes from.
PARTS = 4


def with_little_loss(
    make: Callable[[Sequence[str]], T], loss: Callable[[T], float], layers: Mapping[str, int], most: float
) -> tuple[T, tuple[str, ...], float]:
    """A network in INT8 that loses little, the layers that stay float in it, and its loss.

    While the loss is too large, the layers are divided into four parts, the part is taken without which the least is
    lost, and so on down to single layers; the layer that is found stays float.

    Args:
        make: the network with these layers in float.
        loss: of such a network.
        layers: names in the order of the network, with their numbers of weights.
        most: the loss that is accepted.

    Raises:
        CheckpointError: the loss stays larger, with a quarter of the weights in float.

    Example:
        >>> with_little_loss(lambda floating: floating, lambda f: 0.1 * ("b" not in f), {"a": 9, "b": 1, "c": 9}, 0.005)
        (('b',), ('b',), 0.0)
    """
    floating: tuple[str, ...] = ()
    made = make(floating)
    lost = first = loss(made)
    allowed = MOST_FLOATING * sum(layers.values())
    while lost > most:
        left = [name for name in layers if name not in floating]
        while len(left) > 1:
            parts = _parts(left)
            tried = [loss(make((*floating, *part))) for part in parts]
            left = parts[tried.index(min(tried))]
        floating = (*floating, *left)
        if not left or sum(layers[name] for name in floating) > allowed:
            raise CheckpointError(
                f"INT8 loses {first:.4f} of Dice, and with a quarter of the weights in float still more than {most:g}; "
                "export without --int8, allow more with --max-loss, or give more cases to calibrate with"
            )
        made = make(floating)
        lost = loss(made)
    return made, floating, lost


def _parts(names: Sequence[str]) -> list[list[str]]:
    size = -(-len(names) // PARTS)
    return [list(names[n : n + size]) for n in range(0, len(names), size)]
