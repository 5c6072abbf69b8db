"""Two label maps side by side: one joint histogram gives every count for all labels and regions.

Only the box that holds anything is looked at, slice by slice, so a large CT needs no extra memory to speak of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.label_grouping import grouping
from medseg.metrics.overlap import Overlap

__all__ = ["LabelMaps", "joint_histogram"]

Array = NDArray[Any]
# A histogram of one slice stays in the processor's cache; much larger pieces do not.
_PIECE_VOXELS = 1 << 18


@dataclass(frozen=True, slots=True)
class LabelMaps:
    """Two label maps cut to the box that holds anything, axes in memory order, and their joint histogram.

    `histogram[s, p, r]` counts the voxels of slice `s` (first axis) where the prediction belongs to group `p` and the
    reference to group `r`. Groups are 0 (everything else), one per value in `values`, and last the ignored value.
    `axes` are the file's axes in memory order, `diagonal` the length of the whole image's.
    """

    pred: Array
    ref: Array
    spacing: tuple[float, ...]
    values: tuple[int, ...]
    ignore: int | None
    histogram: NDArray[np.int64]
    total: int
    axes: tuple[int, ...]
    diagonal: float

    @classmethod
    def of(
        cls, pred: Array, ref: Array, spacing: Sequence[float], values: Sequence[int], ignore: int | None = None
    ) -> LabelMaps:
        """Look once at both maps.

        Args:
            pred: `(I, J[, K])` non-negative integers or bool.
            ref: the same shape.
            spacing: distance of neighbouring voxels per axis.
            values: the positive integers that matter.
            ignore: value in the reference whose voxels take part in nothing.
        """
        # Walking along memory order is several times faster, whatever order the file had.
        axes = tuple(int(a) for a in np.argsort([-abs(s) for s in ref.strides], kind="stable"))
        pred, ref = _as_unsigned(pred).transpose(axes), _as_unsigned(ref).transpose(axes)
        total = ref.size
        ordered = tuple(float(spacing[a]) for a in axes)
        diagonal = float(np.linalg.norm(np.multiply(ref.shape, ordered)))
        box = _union(_box(pred), _box(ref))
        pred, ref = _narrow(pred[box]), _narrow(ref[box])
        known = tuple(sorted(set(values)))
        histogram = joint_histogram(pred, ref, known, ignore)
        outside = total - ref.size
        ignored = int(histogram[:, :, len(known) + 1].sum()) if ignore is not None else 0
        if ignore == 0:
            ignored += outside
        return cls(pred, ref, ordered, known, ignore, histogram, total - ignored, axes, diagonal)

    def overlap(self, values: Sequence[int]) -> Overlap:
        """Counts of the label or region made of `values`."""
        counts = self.histogram.sum(axis=0)[:, : len(self.values) + 1]
        member = np.zeros(counts.shape[0], dtype=bool)
        member[[self.values.index(v) + 1 for v in values]] = True
        in_ref = member[: counts.shape[1]]
        return Overlap(
            true_positive=int(counts[member][:, in_ref].sum()),
            false_positive=int(counts[member][:, ~in_ref].sum()),
            false_negative=int(counts[~member][:, in_ref].sum()),
            total=self.total,
        )

    def slices(self, values: Sequence[int]) -> tuple[int, int]:
        """First and one past the last slice (first axis) that holds any of `values`; (0, 0) for none."""
        groups = [self.values.index(v) + 1 for v in values]
        held = self.histogram[:, groups].any(axis=(1, 2)) | self.histogram[:, :, groups].any(axis=(1, 2))
        where = np.flatnonzero(held)
        return (int(where[0]), int(where[-1]) + 1) if where.size else (0, 0)

    def box(self, values: Sequence[int]) -> tuple[slice, ...]:
        """The smallest box that holds any of `values` in either map; without voxels if there is none."""
        first, last = self.slices(values)
        if first == last:
            return tuple(slice(0, 0) for _ in self.pred.shape)
        shadow = np.zeros(self.pred.shape[1:], dtype=bool)
        thickness = max(1, _PIECE_VOXELS // max(1, shadow.size))
        for start in range(first, last, thickness):
            for mask in self.masks(values, (slice(start, min(start + thickness, last)),)):
                shadow |= mask.any(axis=0)
        return (slice(first, last), *_held(shadow))

    def box_masks(self, values: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Both masks cut to `box(values)`, axes as in the files and C-ordered, so no result hangs on memory order."""
        back = np.argsort(self.axes)
        in_pred, in_ref = self.masks(values, self.box(values))
        return np.ascontiguousarray(in_pred.transpose(back)), np.ascontiguousarray(in_ref.transpose(back))

    @property
    def file_spacing(self) -> tuple[float, ...]:
        """Spacing along the axes of the files."""
        return tuple(self.spacing[a] for a in np.argsort(self.axes))

    def masks(self, values: Sequence[int], piece: tuple[slice, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where prediction and reference hold any of `values`, inside `piece`; ignored voxels belong to neither."""
        in_pred, in_ref = _is_any(self.pred[piece], values), _is_any(self.ref[piece], values)
        if self.ignore is not None:
            in_pred &= self.ref[piece] != self.ignore
        return in_pred, in_ref


def joint_histogram(pred: Array, ref: Array, values: Sequence[int], ignore: int | None = None) -> NDArray[np.int64]:
    """How often each value of the prediction meets each value of the reference, per slice of the first axis.

    Args:
        pred: `(I, J[, K])` non-negative integers.
        ref: the same shape.
        values: sorted positive integers that get a group of their own; all others share group 0.
        ignore: value that gets the last group.

    Returns:
        `(I, groups, groups)` with groups = len(values) + 1, and one more where `ignore` is given.

    Example:
        >>> joint_histogram(np.array([[0, 1, 1]]), np.array([[0, 1, 2]]), (1, 2)).tolist()
        [[[1, 0, 0], [0, 1, 1], [0, 0, 0]]]
    """
    groups = len(values) + 1 + (ignore is not None)
    kind: type[np.unsignedinteger[Any]] = (
        np.uint8 if groups**2 <= 256 else np.uint16 if groups**2 <= 65536 else np.uint64
    )
    grouped = (*values, *(() if ignore is None else (ignore,)))
    group_pred, group_ref = (grouping(grouped, int(a.max(initial=0)), kind) for a in (pred, ref))
    result = np.zeros((pred.shape[0], groups * groups), dtype=np.int64)
    rows = max(1, _PIECE_VOXELS // max(1, int(np.prod(pred.shape[2:]))))
    for s in range(pred.shape[0]):
        for start in range(0, pred.shape[1], rows):
            part = np.s_[s, start : start + rows]
            code = group_pred(pred[part]) * kind(groups)
            code += group_ref(ref[part])
            result[s] += np.bincount(code.ravel(), minlength=groups * groups)
    return result.reshape(-1, groups, groups)


def _is_any(array: Array, values: Sequence[int]) -> NDArray[np.bool_]:
    result = array == array.dtype.type(values[0]) if values[0] <= np.iinfo(array.dtype).max else _none(array)
    for value in values[1:]:
        if value <= np.iinfo(array.dtype).max:
            result |= array == array.dtype.type(value)
    return np.asarray(result)


def _none(array: Array) -> NDArray[np.bool_]:
    return np.zeros(array.shape, dtype=bool)


def _as_unsigned(array: Array) -> Array:
    return array.view(np.uint8) if array.dtype == bool else array


def _narrow(array: Array) -> Array:
    """A copy in a small type where the file's type is needlessly wide: every later pass reads less."""
    if array.dtype.itemsize <= 2 or array.size == 0:
        return array
    largest = int(array.max())
    small = np.uint8 if largest < 256 else np.uint16 if largest < 65536 else np.uint32
    return array.astype(small)


def _box(array: Array) -> tuple[slice, ...]:
    """The smallest box that holds every non-zero voxel; a box without voxels if there is none."""
    first = array.reshape(array.shape[0], -1).max(axis=1) if array.flags.c_contiguous else _rows(array)
    held = np.flatnonzero(first)
    if not held.size:
        return tuple(slice(0, 0) for _ in array.shape)
    slices = slice(int(held[0]), int(held[-1]) + 1)
    return (slices, *_held(array[slices].max(axis=0)))


def _held(shadow: Array) -> tuple[slice, ...]:
    """The smallest box around what is not zero."""
    box = []
    for axis in range(shadow.ndim):
        held = np.flatnonzero(shadow.any(axis=tuple(a for a in range(shadow.ndim) if a != axis)))
        box.append(slice(int(held[0]), int(held[-1]) + 1) if held.size else slice(0, 0))
    return tuple(box)


def _rows(array: Array) -> Array:
    return np.array([part.max() for part in array])


def _union(first: tuple[slice, ...], second: tuple[slice, ...]) -> tuple[slice, ...]:
    if first[0].start == first[0].stop:
        return second
    if second[0].start == second[0].stop:
        return first
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
