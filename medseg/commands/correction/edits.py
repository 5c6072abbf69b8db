"""What was edited in a corrected mask: volume, surface and names of each label; and labels that look swapped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medseg.labels import LabelScheme
from medseg.metrics import score_case
from medseg.volume import Volume

__all__ = ["LabelEdit", "Swap", "edits_of", "swaps_of"]

# A label looks like another one where it overlaps the other's mask so much, and so much more than its own.
_OVERLAP, _MARGIN = 0.5, 0.3


@dataclass(frozen=True, slots=True)
class LabelEdit:
    """The edits of one label in one case, from the mask before to the corrected one.

    Args:
        case, label: names.
        before, after: size of the mask, in ml, or in voxels where the image has no volume.
        added, removed: what was drawn, and what was erased, in the same unit.
        renamed: part of `removed` that became another label, in the same unit.
        renamed_to: the label that got most of it; '' where nothing was renamed.
        dice: of the two masks; NaN where both are empty.
        assd, hd95: distance of the two surfaces, in mm, or in voxels; NaN where both masks are empty, infinite where
            one is.
    """

    case: str
    label: str
    before: float
    after: float
    added: float
    removed: float
    renamed: float
    renamed_to: str
    dice: float
    assd: float
    hd95: float


@dataclass(frozen=True, slots=True)
class Swap:
    """A label of a corrected mask that lies where another one is expected.

    Args:
        case, label: names.
        looks_like: the other label.
        dice: of the corrected label with the expected mask of its own name, and of that other name.
    """

    case: str
    label: str
    looks_like: str
    dice: tuple[float, float]

    def text(self) -> str:
        """A sentence."""
        own, other = self.dice
        return (
            f"{self.case}: what is called {self.label} lies where {self.looks_like} is expected (Dice {other:.2f}, "
            f"against {own:.2f} with {self.label})"
        )


def edits_of(case: str, before: Volume, after: Volume, scheme: LabelScheme) -> list[LabelEdit]:
    """The edits of each label.

    Args:
        case: its name.
        before, after: label maps on one grid. Voxels that either ignores count nowhere.
        scheme: their labels.
    """
    counted = ~(np.isin(before.array, scheme.ignored) | np.isin(after.array, scheme.ignored))
    old, new = (np.where(counted, each.array, 0) for each in (before, after))
    spacing = before.spacing_mm if before.spacing_known else None
    scores = score_case(old, new, spacing, scheme, ("dice", "assd", "hd95"))
    unit = math.prod(before.spacing_mm) / 1000 if before.dims == 3 and before.spacing_known else 1.0
    masks = [(scheme.mask(old, name), scheme.mask(new, name)) for name in scheme.names]
    result = []
    for index, name in enumerate(scheme.names):
        was, is_now = masks[index]
        gone = was & ~is_now
        # With regions, voxels of an inner region belong to the outer one before and after.
        others = {
            other: int(np.count_nonzero(gone & masks[n][1] & ~masks[n][0]))
            for n, other in enumerate(scheme.names)
            if n != index
        }
        most = max(others, key=lambda other: others[other], default="")
        renamed = others.get(most, 0)
        size_before, size_after, added, removed = (
            int(np.count_nonzero(each)) * unit for each in (was, is_now, is_now & ~was, gone)
        )
        result.append(
            LabelEdit(
                case=case,
                label=name,
                before=size_before,
                after=size_after,
                added=added,
                removed=removed,
                renamed=renamed * unit,
                renamed_to=most if renamed else "",
                dice=scores[name]["dice"],
                assd=scores[name]["assd"],
                hd95=scores[name]["hd95"],
            )
        )
    return result


def swaps_of(case: str, corrected: Volume, expected: Volume, scheme: LabelScheme) -> list[Swap]:
    """The labels whose names look exchanged.

    Names are assigned to masks so that the Dice with the expected masks is largest in all; a label that is better off
    under another name, by far, is reported. A model that finds next to nothing itself can accuse nobody.

    Args:
        case: its name.
        corrected: the label map that came back.
        expected: of the model, or of the data set before, on the same grid.
        scheme: their labels.

    Example:
        >>> scheme = LabelScheme.from_mapping({"a": 1, "b": 2})
        >>> expected = Volume(np.array([[1, 1, 0, 2, 2]]), np.eye(4))
        >>> [each.looks_like for each in swaps_of("c", expected.with_array([[2, 2, 0, 1, 1]]), expected, scheme)]
        ['b', 'a']
    """
    found, wanted = ([scheme.mask(each.array, name) for name in scheme.names] for each in (corrected, expected))
    dice = np.array([[_dice(one, other) for other in wanted] for one in found])
    rows, columns = linear_sum_assignment(dice, maximize=True)
    return [
        Swap(case, scheme.names[row], scheme.names[column], (float(dice[row, row]), float(dice[row, column])))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if row != column and dice[row, column] >= max(_OVERLAP, dice[row, row] + _MARGIN)
    ]


def _dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    both = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / both if both else 0.0


def largest(edits: Sequence[LabelEdit], most: int) -> list[LabelEdit]:
    """The edits that leave least of the mask before."""
    return sorted((each for each in edits if not math.isnan(each.dice)), key=lambda each: each.dice)[:most]
