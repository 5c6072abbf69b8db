"""Labels of training samples of cases in which not every label is annotated: each voxel says what is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medseg.labels import LabelScheme

__all__ = ["SampleLabels"]


@dataclass(frozen=True, slots=True)
class SampleLabels(LabelScheme):
    """A `LabelScheme` whose samples hold, beside the data set's values, codes that also say what is annotated.

    The voxels of a case without some labels get a code of their value and of the set of labels that are annotated in
    the case. So the annotation goes with each voxel through every change of a sample, also where samples of different
    cases are mixed. Ignored voxels keep their value.

    Args:
        sets: of each kind of partly annotated case the names of its annotated labels, in the scheme's order.

    Example:
        >>> scheme = LabelScheme.from_mapping({"liver": 1, "spleen": 2})
        >>> samples = SampleLabels.of(scheme, [("liver",), None])
        >>> samples.marking(("liver",)).tolist(), samples.annotated_table()[3].tolist()
        ([3, 4, 5], [True, True, False])
    """

    sets: tuple[tuple[str, ...], ...] = field(default=())

    @classmethod
    def of(cls, scheme: LabelScheme, annotated: Iterable[Sequence[str] | None]) -> LabelScheme:
        """The labels of samples of these cases; the scheme as it is where every case has all labels annotated.

        Args:
            scheme: of the data set.
            annotated: of each case the names of its annotated labels; None: all of them.
        """
        scheme = scheme.trained
        partial = {_ordered(scheme, names) for names in annotated if names is not None}
        sets = tuple(sorted(names for names in partial if len(names) < len(scheme.names)))
        if not sets:
            return scheme
        return cls(
            scheme.names, scheme.values, scheme.is_regions, scheme.ignore, later_wins=scheme.later_wins, sets=sets
        )

    def marking(self, annotated: Sequence[str]) -> NDArray[np.int64]:
        """Value -> code in samples of a case with these labels annotated. Shape `(largest value + 1,)`."""
        known = self._known
        table = np.arange(known[-1] + 1, dtype=np.int64)
        names = _ordered(self, annotated)
        if len(names) < len(self.names):
            first = len(table) + self.sets.index(names) * len(known)
            table[known] = first + np.arange(len(known))
            if self.ignore is not None:
                table[self.ignore] = self.ignore
        return table

    def channel_table(self) -> NDArray[np.int64]:
        """Value or code -> channel index; ignore -> -1. An unannotated label has the channel of the background."""
        plain = LabelScheme.channel_table(self)
        held = plain[self._known]
        return np.concatenate([plain, *(np.where(inside[held], held, 0) for inside in self._inside())])

    def region_table(self) -> NDArray[np.float32]:
        """Value or code -> membership of each region (0 or 1)."""
        plain = LabelScheme.region_table(self)
        return np.concatenate([plain, *[plain[self._known]] * len(self.sets)])

    def annotated_table(self) -> NDArray[np.bool_]:
        """Value or code -> of each channel, whether it is annotated; the background always is.

        Shape `(codes, out_channels)`.
        """
        known = self._known
        everything = np.ones(self.out_channels, dtype=bool)
        counts = [known[-1] + 1, *[len(known)] * len(self.sets)]
        return np.repeat([everything, *self._inside()], counts, axis=0)

    @property
    def _known(self) -> list[int]:
        return sorted(self.known_values)

    def _inside(self) -> list[NDArray[np.bool_]]:
        """Of each set, which channels are annotated."""
        background = () if self.is_regions else (True,)
        return [np.array([*background, *(name in names for name in self.names)]) for names in self.sets]


def _ordered(scheme: LabelScheme, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in scheme.names if name in names)
