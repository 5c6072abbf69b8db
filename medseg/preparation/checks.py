"""Checks before the training: errors that stop it, and findings that do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.datasets.cases import Case
from medseg.errors import DatasetError, MedsegError
from medseg.io.plausible import likely_unit
from medseg.labels import LabelScheme
from medseg.preparation.fingerprint import CaseFingerprint
from medseg.volume import Finding

__all__ = [
    "check_consistent",
    "check_labels_given",
    "check_left_right",
    "check_units",
    "findings_of",
    "raise_gathered",
]

NAMED = 5
# Metres or micrometres taken for millimetres are a factor of 1000.
MOST_APART = 100.0


def raise_gathered(errors: Mapping[str, MedsegError], total: int) -> None:
    """One error for all cases that cannot be used: the first of each kind in full, up to 5 more names, and the count.

    Args:
        errors: case name -> what is wrong with it.
        total: cases looked at.

    Raises:
        MedsegError: of the class of the first error; nothing is raised for no errors.
    """
    if not errors:
        return
    names = sorted(errors)
    first = errors[names[0]]
    if len(names) == 1:
        raise type(first)(f"case {names[0]}: {first}")
    kinds: dict[type[MedsegError], list[str]] = defaultdict(list)
    for name in names:
        kinds[type(errors[name])].append(name)
    parts = [f"case {each[0]}: {errors[each[0]]}" + _and_more(each[1:], "; likewise ") for each in kinds.values()]
    raise type(first)(f"{len(names)} of {total} cases cannot be used: " + " | ".join(parts))


def check_labels_given(cases: Sequence[Case]) -> None:
    """Refuse cases without a label file.

    Raises:
        DatasetError: naming up to 5 cases.
    """
    for problem, without in (
        ("have no label", [c.name for c in cases if not c.labels]),
        (
            "have a label file that does not exist",
            [c.name for c in cases if any(not s.path.exists() for s in c.labels)],
        ),
        ("have an image file that does not exist", [c.name for c in cases if any(not p.exists() for p in c.images)]),
    ):
        if without:
            raise DatasetError(
                f"{len(without)} of {len(cases)} cases {problem}: {_and_more(without, '')}; add the files, or take the "
                "cases out of the data set (in a CSV: split test)"
            )


def check_consistent(cases: Sequence[CaseFingerprint]) -> None:
    """Refuse data sets that mix 2D and 3D images or numbers of channels.

    Raises:
        DatasetError: naming up to 5 of the cases that differ from the majority.
    """
    for what, each in (
        ("spatial axes", {c.name: len(c.shape) for c in cases}),
        ("channel(s)", {c.name: len(c.channels) for c in cases}),
    ):
        values, counts = np.unique(list(each.values()), return_counts=True)
        if len(values) > 1:
            usual = int(values[np.argmax(counts)])
            others = [name for name, n in each.items() if n != usual]
            raise DatasetError(
                f"images differ in {what}: most have {usual}, {others[0]} has {each[others[0]]}"
                f"{_and_more(others[1:], ', likewise ')}; all cases of a data set need the same"
            )


def check_units(cases: Sequence[CaseFingerprint]) -> None:
    """Refuse cases whose voxels or extents are 100 times larger or smaller than those of most cases.

    A file in metres among files in millimetres would become one voxel. Sizes are geometric means over the axes.

    Raises:
        DatasetError: naming up to 5 cases, the sizes and the likely unit.
    """
    known = [case for case in cases if case.spacing_known]
    if len(known) < 2:
        return
    spacings = np.array([np.exp(np.log(case.spacing_mm).mean()) for case in known])
    extents = spacings * [np.exp(np.log(case.shape).mean()) for case in known]
    for what, sizes in (("voxels", spacings), ("an extent", extents)):
        # One of the sizes, as the mean of two would be of neither.
        usual = float(np.sort(sizes)[len(sizes) // 2])
        factors = sizes / usual
        strange = [n for n, factor in enumerate(factors) if not 1 / MOST_APART < factor < MOST_APART]
        if strange:
            first = strange[0]
            names = [known[n].name for n in strange]
            raise DatasetError(
                f"case {names[0]} has {what} of {sizes[first]:.4g} mm on average over its axes, most cases of "
                f"{usual:.4g} mm{_and_more(names[1:], '; likewise ')}: is its spacing in "
                f"{likely_unit(float(factors[first]))} instead of mm? Correct the header (medseg inspect shows it), or "
                "take the case out of the data set"
            )


def check_left_right(cases: Sequence[CaseFingerprint], scheme: LabelScheme) -> None:
    """Refuse cases whose label called left lies on the patient's right of its partner.

    The centres of mass are compared along RAS x, which grows to the patient's right.

    Raises:
        DatasetError: naming the pair, the cases and what to do.
    """
    for left, right in scheme.left_right_pairs:
        wrong: dict[str, tuple[float, float]] = {}
        judged = 0
        for case in cases:
            x_left, x_right = _centre_x(case, scheme.values[left]), _centre_x(case, scheme.values[right])
            if x_left is None or x_right is None:
                continue
            judged += 1
            if x_left > x_right:
                wrong[case.name] = (x_left, x_right)
        if wrong:
            names = sorted(wrong)
            x_left, x_right = wrong[names[0]]
            advice = (
                "swap the two names in data.labels (or the orientation in the files is wrong)"
                if len(wrong) == judged
                else "the orientation (affine) of these files, or their labels, are swapped: correct the files"
            )
            raise DatasetError(
                f"left and right are swapped in {len(wrong)} of {judged} cases ({_and_more(names, '')}): in {names[0]} "
                f"{scheme.names[left]!r} lies {x_left - x_right:.1f} mm to the patient's right of "
                f"{scheme.names[right]!r}; {advice}; if these names mean no sides, give the labels other names"
            )


def findings_of(cases: Sequence[CaseFingerprint], scheme: LabelScheme) -> list[Finding]:
    """Findings for the user that stop nothing: empty label maps, labels that never occur, readers' findings."""
    findings = []
    wanted = {v for each in scheme.values for v in each}
    empty = tuple(c.name for c in cases if not any(c.label_voxels.get(v) for v in wanted))
    if empty:
        message = f"{len(empty)} of {len(cases)} cases hold no labelled voxel: {_and_more(empty, '')}"
        findings.append(Finding("empty_labels", message, empty))
    found = {v for c in cases for v in c.label_voxels}
    unused = [n for n, values in zip(scheme.names, scheme.values, strict=True) if not found.intersection(values)]
    if unused:
        message = f"{len(unused)} of {len(scheme.names)} labels occur in no case: {_and_more(unused, '')}"
        findings.append(Finding("unused_labels", message))
    known = {c.spacing_known for c in cases}
    if len(known) > 1:
        unknown = tuple(c.name for c in cases if not c.spacing_known)
        message = f"spacing is not known in {_and_more(unknown, '')}: all cases are used pixel by pixel"
        findings.append(Finding("mixed_spacing", message, unknown))
    by_kind: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for case in cases:
        for kind in {f.kind: f for f in case.findings}.values():
            by_kind[kind.kind].append((case.name, kind))
    for kind_name, each in by_kind.items():
        names = [name for name, _ in each]
        first = each[0][1]
        message = f"{names[0]}: {first.message}" + _and_more(names[1:], "; likewise ")
        findings.append(Finding(kind_name, message, tuple(names) if len(names) > 1 else first.files))
    return findings


def _centre_x(case: CaseFingerprint, values: Sequence[int]) -> float | None:
    present = [v for v in values if v in case.centroids_mm]
    if not present:
        return None
    weights = [case.label_voxels[v] for v in present]
    return float(np.average([case.centroids_mm[v][0] for v in present], weights=weights))


def _and_more(names: Sequence[str], lead: str) -> str:
    if not names:
        return ""
    rest = len(names) - NAMED
    return lead + ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
