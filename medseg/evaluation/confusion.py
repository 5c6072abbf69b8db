"""Which label was taken for which: voxels of all cases by value of the reference and of the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medseg.evaluation.summary import Confusion
from medseg.labels import LabelScheme
from medseg.metrics.label_maps import LabelMaps

__all__ = ["case_confusion", "confusion_summary"]

CaseConfusion = Mapping[tuple[int, int], int]


def case_confusion(maps: LabelMaps) -> dict[tuple[int, int], int]:
    """(value in the reference, value in the prediction) -> voxels, where there are any; 0 is everything else."""
    values = (0, *maps.values)
    counts = maps.histogram.sum(axis=0)[:, : len(values)]
    # The ignored value means nothing in a prediction, which then counts as background.
    counts[0] += counts[len(values) :].sum(axis=0)
    counts = counts[: len(values)]
    found = {(values[r], values[p]): int(counts[p, r]) for p, r in np.argwhere(counts).tolist()}
    # Voxels outside the box that holds anything are background in both.
    found[0, 0] = found.get((0, 0), 0) + maps.total - int(counts.sum())
    return found


def confusion_summary(cases: Sequence[CaseConfusion], scheme: LabelScheme | None) -> Confusion:
    """How often each value of the reference was predicted as each value, over all cases.

    Values of regions are named by the regions they belong to.

    Example:
        >>> confusion_summary([{(0, 0): 5, (1, 2): 3}], None).voxels
        ((5, 0, 0), (0, 0, 3), (0, 0, 0))
    """
    values = sorted({0, *(v for case in cases for pair in case for v in pair)})
    index = {value: n for n, value in enumerate(values)}
    voxels = np.zeros((len(values), len(values)), dtype=np.int64)
    for case in cases:
        for (ref, pred), count in case.items():
            voxels[index[ref], index[pred]] += count
    names = tuple(_name(v, scheme) for v in values)
    return Confusion(tuple(values), names, tuple(tuple(row) for row in voxels.tolist()))


def _name(value: int, scheme: LabelScheme | None) -> str:
    if value == 0:
        return "background"
    if scheme is None:
        return str(value)
    holders = [name for name, values in zip(scheme.names, scheme.values, strict=True) if value in values]
    return f"{value} ({', '.join(holders)})" if scheme.is_regions else holders[0]
