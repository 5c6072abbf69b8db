"""`LabelScheme`: the meaning of the integers in a label map.

Plain labels (`{liver: 1, tumour: 2}`): channel n is the n-th label, channel 0 is background, softmax.
Regions (`{WT: [1, 2, 3, 4], TC: [1, 3, 4], ET: [4]}`): one sigmoid channel each. A written mask can hold
combinations of regions that no training case holds: `LabelScheme.written` has a value for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError, DatasetError
from medseg.region_values import Regions, regions_of
from medseg.side_names import pairs_of, sides_of

__all__ = ["LARGEST_VALUE", "LabelScheme", "check_label_bounds", "label_table"]

MOST_LABELS = 1024
LARGEST_VALUE = 65535
LONGEST_NAME = 200
_SMALLER = (
    f"expected values from 0 to {LARGEST_VALUE}, the largest that a model's masks can have; give the label maps "
    "smaller numbers (own_data.md in the documentation shows how), or leave these out with data.others: background"
)


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """Names and values of the labels, in order.

    Args:
        names: one name per label or region.
        values: the integers that belong to each; plain labels have exactly one.
        is_regions: True if any label is given as a list.
        ignore: value of voxels that are excluded from loss and scores.
        also_ignored: further values of such voxels; `with_one_ignored` puts `ignore` in their place.
        spare: of `values`, those that only written masks have: of combinations of regions without a value of their own.
        later_wins: of overlapping regions a written mask keeps the later one, as masks of models did that were trained
            before spare values existed.

    Example:
        >>> scheme = LabelScheme.from_mapping({"liver": 1, "tumour": 2})
        >>> scheme.out_channels, scheme.painted
        (3, (1, 2))
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    is_regions: bool = False
    ignore: int | None = None
    # Not shown, because checkpoints are identified by what older releases showed.
    also_ignored: tuple[int, ...] = field(default=(), repr=False)
    spare: tuple[int, ...] = field(default=(), repr=False)
    later_wins: bool = field(default=False, repr=False)

    @classmethod
    def from_mapping(
        cls, labels: Mapping[str, int | Sequence[int]], ignore: int | Sequence[int] | None = None
    ) -> LabelScheme:
        """A scheme from `data.labels` and `data.ignore`. An entry with value 0 names the background and is dropped.

        Raises:
            ConfigError: if there are no labels, a value is negative or used by two plain labels, or a value to ignore
                is negative or a label.
        """
        names, values = [], []
        is_regions = False
        for name, value in labels.items():
            each = (int(value),) if isinstance(value, int) else tuple(int(v) for v in value)
            if each == (0,):
                continue
            if not each or min(each) <= 0:
                raise ConfigError(f"label {name!r} has value {value}; labels are positive integers, 0 is background")
            names.append(str(name))
            values.append(each)
            is_regions = is_regions or not isinstance(value, int)
        flat = [v for each in values for v in each]
        if not names:
            raise ConfigError("data.labels names no label besides background; give e.g. labels: {lung: 1}")
        if not is_regions and len(set(flat)) != len(flat):
            raise ConfigError(f"two labels share a value: {dict(zip(names, values, strict=True))}")
        ignored = () if ignore is None else (ignore,) if isinstance(ignore, int) else tuple(dict.fromkeys(ignore))
        for value in ignored:
            if value in flat or value < 0:
                raise ConfigError(f"data.ignore is {value}, which is negative or already a label")
        first = ignored[0] if ignored else None
        return cls(tuple(names), tuple(values), is_regions, first, also_ignored=ignored[1:])

    @property
    def mapping(self) -> dict[str, int | tuple[int, ...]]:
        """Name -> value, or values of a region: the argument of `from_mapping`."""
        pairs = zip(self.names, self.values, strict=True)
        return {name: values if self.is_regions else values[0] for name, values in pairs}

    @property
    def ignored(self) -> tuple[int, ...]:
        """Every value to ignore."""
        return () if self.ignore is None else (self.ignore, *self.also_ignored)

    @property
    def ignore_entry(self) -> int | tuple[int, ...] | None:
        """The value to ignore, or all where there are several: an argument of `from_mapping`, as in `data.ignore`."""
        return self.ignored if self.also_ignored else self.ignore

    def with_one_ignored(self, label_map: NDArray[Any]) -> NDArray[Any]:
        """The label map with `ignore` in place of the other values to ignore; itself where there are none."""
        if not self.also_ignored:
            return label_map
        first, *others = self.ignored
        found = np.isin(label_map, others)
        return np.where(found, np.min_scalar_type(first).type(first), label_map) if found.any() else label_map

    @property
    def out_channels(self) -> int:
        """Channels of a network for this scheme: labels + background, or one per region."""
        return len(self.names) + (not self.is_regions)

    @property
    def known_values(self) -> frozenset[int]:
        """Every integer that may occur in a label map: background, labels and ignore."""
        return frozenset([0, *self.ignored, *(v for each in self.values for v in each)])

    @property
    def regions(self) -> Regions:
        """How the regions lie in each other."""
        return regions_of(self.values)

    @property
    def written(self) -> LabelScheme:
        """The scheme of the masks that are written: each combination of regions that can be predicted has a value.

        Raises:
            ConfigError: for more combinations of regions than a label map can represent.

        Example:
            >>> LabelScheme.from_mapping({"whole": [1, 2], "pen": [1], "core": [2]}).written.values
            ((1, 2, 3), (1,), (2,))
        """
        if not self.is_regions or self.later_wins:
            return self
        values, spare = self.regions.with_spare(self.ignored)
        return replace(self, values=values, spare=self.spare + spare) if spare else self

    @property
    def trained(self) -> LabelScheme:
        """The scheme of the training cases, which no spare value belongs to: `written` undone."""
        return replace(
            self, values=tuple(tuple(v for v in each if v not in self.spare) for each in self.values), spare=()
        )

    @property
    def painted(self) -> tuple[int, ...]:
        """The value of a voxel of each label; of a region, that of a voxel in it and in the regions around it alone.

        BraTS WT, TC, ET become 2, 1, 4.

        Raises:
            ConfigError: for more combinations of regions than a label map can represent; with `later_wins`, if a region
                has no value of its own.
        """
        if self.later_wins:
            return _painted_in_order(self.names, self.values)
        regions = self.written.regions
        return tuple(regions.representing[held] for held in regions.around)

    @property
    def codes(self) -> tuple[tuple[int, ...], NDArray[np.int64], bool]:
        """How predicted regions become values: a code of each region, code -> value, and whether codes are united.

        Codes that are united are bits: the value is that of all regions of the voxel. Otherwise it is that of the
        region with the largest code, since regions that do not cross follow from the innermost one.
        """
        scheme = self.written
        count, regions = len(scheme.names), scheme.regions
        if scheme.later_wins or not regions.cross:
            order = tuple(range(count)) if scheme.later_wins else regions.order
            painted = scheme.painted
            ranks = sorted(range(count), key=lambda n: order[n])
            return tuple(rank + 1 for rank in ranks), np.array([0, *(painted[n] for n in order)]), False
        sets = regions.resolved(np.arange(1 << count, dtype=np.int64))
        values = np.array([regions.representing.get(int(held), 0) for held in sets])
        return tuple(1 << n for n in range(count)), values, True

    def value_of(self, regions: Sequence[int]) -> int:
        """The value of a voxel of these labels, given by their indices in ascending order; 0 for none."""
        if not regions:
            return 0
        exact = None if self.later_wins else self.written.regions.representing.get(sum(1 << n for n in regions))
        return self.painted[regions[-1]] if exact is None else exact

    def painting(self, index: int) -> NDArray[np.int64]:
        """Value -> value after a label was painted over the voxel, in whatever order the labels are painted.

        Args:
            index: of the label that is painted.

        Returns:
            Shape `(largest value + 1,)`. Regions that share a value with the painted one stay.
        """
        scheme = self.written
        table = np.full(max(scheme.known_values) + 1, scheme.painted[index], dtype=np.int64)
        if self.is_regions and not self.later_wins:
            regions = scheme.regions
            for value, held in regions.holders.items():
                joined = regions.with_region(held, index)
                table[value] = value if joined == held else regions.representing.get(joined, table[value])
        return table

    @property
    def left_right_pairs(self) -> tuple[tuple[int, int], ...]:
        """Indices into `names` of labels that differ only in left/right, `(left, right)`: see `medseg.side_names`."""
        return pairs_of(self.names)

    @property
    def left_right(self) -> dict[str, str]:
        """Name of each label of a left/right pair -> 'left' or 'right'."""
        result = {}
        for left, right in self.left_right_pairs:
            result[self.names[left]] = "left"
            result[self.names[right]] = "right"
        return result

    @property
    def sides(self) -> dict[str, str]:
        """Name of each label that tells a side, with or without a partner -> 'left' or 'right'."""
        return {name: side for name, side in zip(self.names, sides_of(self.names), strict=True) if side is not None}

    def mask(self, label_map: NDArray[Any], name: str) -> NDArray[np.bool_]:
        """Mask of the named label or region: bool, same shape."""
        return np.isin(label_map, self.values[self.names.index(name)])

    def check_values(self, found: Sequence[int], source: str) -> None:
        """Refuse integers that the scheme does not contain.

        Raises:
            DatasetError: naming the file, the values and the remedy.
        """
        unknown = sorted(int(v) for v in set(found) - self.known_values)
        if unknown:
            shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
            known = ", ".join(
                f"{n}={list(v) if self.is_regions else v[0]}" for n, v in zip(self.names, self.values, strict=True)
            )
            hint = (
                f"values above {LARGEST_VALUE} cannot be trained: give the label maps smaller numbers, or set "
                "data.others: background"
                if max(unknown) > LARGEST_VALUE
                else "this looks like a 0/255 mask: set data.label_threshold: 127"
                if max(unknown) == 255
                else "add them to data.labels or dataset.json, name them in data.ignore, or set data.others: background"
            )
            raise DatasetError(
                f"{source} contains label value(s) {shown} that data.labels does not name ({known}); {hint}"
            )

    def channel_table(self) -> NDArray[np.int64]:
        """For plain labels: value -> channel index; ignore -> -1. Shape `(largest value + 1,)`."""
        table = np.zeros(max(self.known_values) + 1, dtype=np.int64)
        for channel, (value,) in enumerate(self.values, start=1):
            table[value] = channel
        table[list(self.ignored)] = -1
        return table

    def region_table(self) -> NDArray[np.float32]:
        """For regions: value -> membership of each region (0 or 1). Shape `(largest value + 1, regions)`."""
        table = np.zeros((max(self.known_values) + 1, len(self.names)), dtype=np.float32)
        for region, each in enumerate(self.values):
            table[list(each), region] = 1.0
        return table

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smallest of uint8 and uint16 that can store every value; uint32 beyond."""
        largest = max(self.known_values)
        return np.uint8 if largest < 256 else np.uint16 if largest < 65536 else np.uint32


def label_table(entries: Mapping[Any, Any], ignore: Any = None) -> tuple[dict[str, Any], Any]:
    """A table of labels as data sets and people write it: name -> value, and the value to ignore.

    `{1: liver, 2: tumour}`, as in the Medical Segmentation Decathlon, is turned round; a label called `ignore`, as in
    nnU-Net, names the value to ignore, not a label. Everything else stays as it is, for whoever checks it.

    Args:
        entries: name -> value or values, or value -> name.
        ignore: what is to be ignored anyway.

    Raises:
        ConfigError: if two values have one name, or `ignore` and the label of that name do not agree.

    Example:
        >>> label_table({0: "background", 1: "liver"}), label_table({"a": 1, "ignore": 3})
        (({'background': 0, 'liver': 1}, None), ({'a': 1}, 3))
    """
    table: dict[Any, Any] = dict(entries)
    if table and all(str(k).isdecimal() and isinstance(v, str) and not v.isdecimal() for k, v in table.items()):
        names = list(table.values())
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two values are called {twice!r} in {str(entries)[:300]}; give each label its own name")
        table = {name: int(value) for value, name in table.items()}
    named = [name for name in table if isinstance(name, str) and name.casefold() == "ignore"]
    for name in named:
        value = table.pop(name)
        if ignore is not None and _values(ignore) != _values(value):
            raise ConfigError(
                f"the value to ignore is {ignore} by the key ignore, and {value} by a label called {name!r}"
            )
        ignore = value
    return table, ignore


def _values(entry: Any) -> set[Any]:
    return set(entry) if isinstance(entry, list | tuple) else {entry}


def _painted_in_order(names: Sequence[str], values: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Of each region the first of its values that no later region contains."""
    result = []
    for n, each in enumerate(values):
        later = {v for other in values[n + 1 :] for v in other}
        own = [v for v in each if v not in later]
        if not own:
            raise ConfigError(f"region {names[n]!r} has no value of its own: list the larger regions first")
        # A value shared with an earlier region that does not contain all of this one would paint that one as well.
        crossing = [other for other in values[:n] if not set(each) <= set(other)]
        result.append(min(own, key=lambda v: sum(v in other for other in crossing)))
    return tuple(result)


def check_label_bounds(labels: Mapping[str, int | Sequence[int]], ignored: Sequence[int] = ()) -> None:
    """Check the limits of a model's labels: at most 1024 of them, values up to 65535, names of up to 200 characters.

    A name must be text on one line and not a path, because it is written into reports and DICOM objects.

    Raises:
        ConfigError: naming the label, or the value to ignore.

    Example:
        >>> check_label_bounds({"prostate/uterus": 15, "whole tumour": [1, 2, 3]})
    """
    if len(labels) > MOST_LABELS:
        raise ConfigError(f"{len(labels)} labels are given; a model has {MOST_LABELS} at most")
    for name, value in labels.items():
        shown = repr(name[:LONGEST_NAME])
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise ConfigError(
                f"label {shown}: expected a name of 1 to {LONGEST_NAME} characters without line breaks and other "
                "control characters"
            )
        if name[0] in "/~" or "\\" in name or ".." in name.split("/"):
            raise ConfigError(
                f"label {shown}: a name must not be a path; leave out '..', a leading '/' or '~', and '\\'"
            )
        values = [value] if isinstance(value, int) else value
        if len(values) > MOST_LABELS:
            raise ConfigError(f"label {shown} has {len(values)} values; expected {MOST_LABELS} at most")
        outside = next((v for v in values if not 0 <= v <= LARGEST_VALUE), None)
        if outside is not None:
            raise ConfigError(f"label {shown} has the value {outside}; {_SMALLER}")
    outside = next((v for v in ignored if not 0 <= v <= LARGEST_VALUE), None)
    if outside is not None:
        raise ConfigError(f"data.ignore has the value {outside}; {_SMALLER}")
