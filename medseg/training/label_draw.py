"""Which label a foreground sample is centred on, where cases lack labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.labels import LabelScheme
from medseg.preparation.store import PreparedCase

__all__ = ["LabelDraw"]


class LabelDraw:
    """Draws a label, then a case that holds it, so that a label is seen as often as if every case had it annotated.

    A case drawn first, and then one of its labels, would show a label the less the fewer cases have it annotated. The
    share of a label is the fraction of the cases with its annotation that hold it: a rare finding stays rare.

    Args:
        cases: the training cases.
        scheme: of the labels.

    Example:
        >>> draw = LabelDraw.where_needed([], LabelScheme.from_mapping({"lung": 1}))
        >>> draw is None
        True
    """

    def __init__(self, cases: Sequence[PreparedCase], scheme: LabelScheme) -> None:
        self.values = sorted({value for case in cases for value in case.foreground})
        self.holders = {value: [case for case in cases if value in case.foreground] for value in self.values}
        names = {
            value: {name for name, each in zip(scheme.names, scheme.values, strict=True) if value in each}
            for value in self.values
        }
        held = [
            len(self.holders[value])
            / sum(case.annotated is None or not names[value].isdisjoint(case.annotated) for case in cases)
            for value in self.values
        ]
        self.shares = np.array(held) / sum(held)

    @classmethod
    def where_needed(cls, cases: Sequence[PreparedCase], scheme: LabelScheme) -> LabelDraw | None:
        """None where all cases have all labels annotated, or hold none."""
        if all(case.annotated is None for case in cases) or not any(case.foreground for case in cases):
            return None
        return cls(cases, scheme)

    def draw(self, rng: np.random.Generator) -> tuple[PreparedCase, int]:
        """A case, and the value of the label in it."""
        value = self.values[int(rng.choice(len(self.values), p=self.shares))]
        holders = self.holders[value]
        return holders[int(rng.integers(len(holders)))], value
