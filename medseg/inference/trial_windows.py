"""Windows of an image on which engines are measured and judged: the first in the middle, the others spread evenly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

from medseg.inference.array_ops import Values
from medseg.inference.chosen_ops import ops_of
from medseg.inference.same_labels import MOST_WINDOWS

__all__ = ["trial_batches", "trial_shape"]

# Voxels of a window that a network need not be measured on as a whole.
LARGE_WINDOW = 2**18


def trial_shape(patch: Sequence[int]) -> tuple[int, ...]:
    """The size to measure with: of a large window half of each axis, as the ratios are near enough for an eighth of
    the cost (2D: a quarter).
    """
    return tuple(n // 2 for n in patch) if math.prod(patch) > LARGE_WINDOW else tuple(patch)


def trial_batches(image: Values, shape: Sequence[int], size: int) -> Iterator[Values]:
    """Batches (size, C, *shape) of windows, cut when they are asked for.

    Args:
        image: (C, *spatial), an array or a tensor; at least as many axes as `shape`; further axes are slices.
        shape: of the windows; where the image is smaller, they are padded with the minimum.
        size: windows in each batch; the last window is repeated where the image has no other place.
    """
    places = list(_places(image.shape[1:], (*shape, *[1] * (image.ndim - 1 - len(shape)))))
    for first in range(0, len(places), size):
        some = places[first : first + size]
        yield ops_of(image).stacked([_window(image, place, shape) for place in some + some[-1:] * (size - len(some))])


def _places(spatial: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Different places by an additive recurrence, which leaves no large gap however many are taken.

    Source:
        M. Roberts, The unreasonable effectiveness of quasirandom sequences, 2018: powers of the root of
        x^(d+1) = x + 1.
    """
    root = 1.0
    for _ in range(40):
        root = (1 + root) ** (1 / (len(spatial) + 1))

    def starts() -> Iterator[tuple[int, ...]]:
        for n in range(4 * MOST_WINDOWS):
            shares = ((0.5 + n / root ** (axis + 1)) % 1 for axis in range(len(spatial)))
            yield tuple(
                int(share * (max(0, length - size) + 1)) if n else max(0, length - size) // 2
                for share, length, size in zip(shares, spatial, sizes, strict=True)
            )

    for start in islice(dict.fromkeys(starts()), MOST_WINDOWS):
        yield tuple(slice(at, at + size) for at, size in zip(start, sizes, strict=True))


def _window(image: Values, place: tuple[slice, ...], shape: Sequence[int]) -> Values:
    spatial = image.shape[1:]
    window = image[(slice(None), *place)].reshape(len(image), *map(min, spatial[: len(shape)], shape))
    padded = ops_of(image).empty((len(image), *shape), image)
    padded[...] = float(window.min())
    padded[(slice(None), *(slice(0, n) for n in window.shape[1:]))] = window
    return padded
