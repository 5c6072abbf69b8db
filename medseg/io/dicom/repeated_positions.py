"""Images of one stack at the same positions: copies, time points, echoes, magnitude and phase.

Exact copies are dropped. Images that differ in one of `MARKS` are split into volumes if that gives complete stacks.
Remaining repeated positions are kept together, for the grid to refuse: either choice could be wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from medseg.errors import ReadError
from medseg.io.dicom.pixels import stored_pixels
from medseg.io.dicom.slice import MARKS, SliceHeader, shown
from medseg.volume import Finding

__all__ = ["SMALLEST_STACK", "moments"]

# Fewer slices than this do not form a stack of their own.
SMALLEST_STACK = 3
_KINDS = {
    "image type": "image_types",
    "stack": "stacks",
    "echo": "echoes",
    "b-value": "b_values",
    "gradient direction": "gradient_directions",
    "kernel": "kernels",
    "tube voltage": "tube_voltages",
    "inversion time": "inversion_times",
    "flip angle": "flip_angles",
    "component": "components",
    "description": "descriptions",
    "dimension index": "dimension_indices",
}
# Somebody may have written the patient's name into it, and findings reach ledgers.
_FREE_TEXT = frozenset({"description"})
_TIMES = MARKS.index("acquisition time")

Slices = tuple[SliceHeader, ...]


def moments(slices: Slices) -> list[tuple[str, Slices, tuple[Finding, ...]]]:
    """The volumes among the slices of one stack: a description, the slices and the findings of each.

    A stack without repeated positions is returned unchanged, with '' and no findings.
    """
    slices, findings = _without_copies(slices, lambda s: (s.sop_instance_uid, s.frame) if s.sop_instance_uid else s)
    parts = _by_marks(slices, range(len(MARKS)))
    result = []
    for part, kinds, members in parts:
        kept, dropped = _without_copies(members, lambda s: "")
        ranked = _by_rank(kept, lambda s: s.instance_number, interleaved=True)
        if len(ranked) == 1:
            result.append((part, kept, kinds, (*findings, *dropped)))
            continue
        for n, group in enumerate(ranked, start=1):
            words = ", ".join(w for w in (part, f"{n} of {len(ranked)} by InstanceNumber") if w)
            result.append((words, group, (*kinds, "time_points"), (*findings, *dropped)))
    count = len(result)
    return [(words, group, (*noted, *_part_findings(kinds, count, words))) for words, group, kinds, noted in result]


def _part_findings(kinds: Sequence[str], count: int, words: str) -> list[Finding]:
    text = f"the series contains {count} volumes at the same positions; this one is {words}"
    return [Finding(kind, text) for kind in dict.fromkeys(kinds)]


def _places(slices: Slices) -> tuple[int, ...] | None:
    """The index of each slice's position in space; None if a position is missing."""
    if not slices or any(len(s.position) != 3 for s in slices):
        return None
    points = np.array([s.position for s in slices])
    first = slices[0].orientation
    normal = np.cross(first[:3], first[3:]) if len(first) == 6 else np.array([0.0, 0.0, 1.0])
    if np.linalg.norm(normal) < 0.5:
        return None  # no direction at all, which the grid refuses
    along = points @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order]) > slices[0].rounding_mm
    places = np.empty(len(slices), dtype=int)
    places[order] = np.concatenate([[0], np.cumsum(steps)])
    return tuple(int(p) for p in places)


def _most_at_a_place(slices: Slices) -> int:
    places = _places(slices)
    return max(Counter(places).values()) if places else 1


def _by_marks(slices: Slices, marks: Iterable[int]) -> list[tuple[str, tuple[str, ...], Slices]]:
    """Groups that differ in a mark, each with fewer images per position; recursive, as echoes may have time points."""
    most = _most_at_a_place(slices)
    if most == 1:
        return [("", (), slices)]
    remaining = list(marks)
    for n in remaining:
        groups = _by_value(slices, n, most)
        if len(groups) == 1 and n == _TIMES:
            groups = _by_rank(slices, _acquired, interleaved=False)
        if len(groups) == 1:
            continue
        result = []
        for number, group in enumerate(groups, start=1):
            is_told = MARKS[n] not in _FREE_TEXT and len({s.marks[n] for s in group}) == 1
            value = group[0].marks[n] if is_told else f"{number} of {len(groups)}"
            for part, kinds, members in _by_marks(group, [m for m in remaining if m > n]):
                words = ", ".join(w for w in (f"{MARKS[n]} {value or '(none)'}", part) if w)
                result.append((words, (_KINDS.get(MARKS[n], "time_points"), *kinds), members))
        return result
    return [("", (), slices)]


def _by_value(slices: Slices, mark: int, most: int) -> list[Slices]:
    """Groups of equal value, if each is a stack with fewer images per position; otherwise everything in one group."""
    groups: dict[str, list[SliceHeader]] = {}
    for s in slices:
        groups.setdefault(s.marks[mark], []).append(s)
    wanted = min(SMALLEST_STACK, len(set(_places(slices) or ())))
    ordered = [tuple(groups[value]) for value in sorted(groups, key=_natural)]
    for group in ordered:
        if len(set(_places(group) or ())) < wanted or _most_at_a_place(group) >= most:
            return [slices]
    return ordered


def _acquired(header: SliceHeader) -> float | None:
    kind, number, _ = _natural(header.marks[_TIMES])
    return number if kind == 0 else None


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)


def _by_rank(slices: Slices, value: Callable[[SliceHeader], float | None], interleaved: bool) -> list[Slices]:
    """The first images of all positions, the second ones, ...; one group if the order is not certain.

    It is certain if every position has the same number of images, and all images of one rank come before those of the
    next. With `interleaved`, numbers may also count up at each position (1, 2 at the first, 3, 4 at the second).
    """
    places = _places(slices)
    values = [v for s in slices if (v := value(s)) is not None]
    if places is None or len(set(values)) < len(slices):
        return [slices]
    at: dict[int, list[tuple[float, SliceHeader]]] = {}
    for place, number, s in zip(places, values, slices, strict=True):
        at.setdefault(place, []).append((number, s))
    count = len(at[places[0]])
    if count == 1 or any(len(members) != count for members in at.values()):
        return [slices]
    stacks = [sorted(members, key=lambda pair: pair[0]) for members in at.values()]
    numbers = np.array([[number for number, _ in stack] for stack in stacks])
    apart = bool((numbers[:, :-1].max(axis=0) < numbers[:, 1:].min(axis=0)).all())
    counted = interleaved and bool((np.diff(numbers, axis=1) == 1).all())
    if not (apart or counted):
        return [slices]
    return [tuple(stack[n][1] for stack in stacks) for n in range(count)]


def _without_copies(slices: Slices, same: Callable[[SliceHeader], Hashable]) -> tuple[Slices, tuple[Finding, ...]]:
    """Drop slices at the position of another slice that agree with it in `same` and have the same pixels."""
    places = _places(slices)
    if places is None or len(set(places)) == len(places):
        return slices, ()
    at: dict[Hashable, list[SliceHeader]] = {}
    for place, s in zip(places, slices, strict=True):
        at.setdefault((place, same(s)), []).append(s)
    dropped: list[SliceHeader] = []
    for members in at.values():
        first, *others = members
        dropped += [other for other in others if _same_image(first, other)]
    if not dropped:
        return slices, ()
    text = f"{len(dropped)} exact copies of slices were left out: {shown(dropped)}"
    gone = {id(s) for s in dropped}
    kept = tuple(s for s in slices if id(s) not in gone)
    return kept, (Finding("duplicate_slices", text, tuple(s.name for s in dropped)),)


def _same_image(a: SliceHeader, b: SliceHeader) -> bool:
    if (a.rows, a.columns, a.slope, a.intercept) != (b.rows, b.columns, b.slope, b.intercept):
        return False
    try:
        return np.array_equal(stored_pixels(a), stored_pixels(b))
    except ReadError:
        return False  # reading the volume reports the error
