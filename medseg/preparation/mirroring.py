"""Which axes may be mirrored, and why one may not: it would exchange left and right, or make images like no others.

A new plan lists the axes that are not mirrored (`Plan.unmirrored`), after the names of the labels and after what was
measured. Plans that list nothing (`null`: those of format_version 1) go by the names that version 1 understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medseg.labels import LabelScheme
from medseg.preparation.plan import Plan
from medseg.preparation.plan_fields import UnmirroredAxis
from medseg.preparation.twins import Twins
from medseg.side_names import pairs_of_version_1
from medseg.volume import Finding

__all__ = ["axes_without_sides", "findings_on_sides", "plan_axes", "sideways_axis", "unmirrored_axes"]

NAMED = 5


def sideways_axis(dims: int, orientation: str | None) -> int | None:
    """The axis of the network along the patient's left-right direction; None where a 2D network does not see it.

    Of images whose orientation is not known it is axis 0 (x), on which a photograph or a radiograph shows both sides.

    Example:
        >>> sideways_axis(3, "SAR"), sideways_axis(2, "SAR"), sideways_axis(2, None)
        (2, None, 0)
    """
    axis = 0 if orientation is None else next(n for n, letter in enumerate(orientation) if letter in "LR")
    return axis if axis < dims else None


def axes_without_sides(dims: int, orientation: str | None, labels: LabelScheme) -> tuple[int, ...]:
    """The spatial axes along which mirroring keeps labels right that say left or right in their names.

    Example:
        >>> axes_without_sides(3, "RAS", LabelScheme.from_mapping({"LeftAtrium": 1}))
        (1, 2)
    """
    return _without(dims, [sideways_axis(dims, orientation)] if labels.sides else [])


def plan_axes(plan: Plan, labels: LabelScheme) -> tuple[int, ...]:
    """The spatial axes that a plan permits to mirror."""
    if plan.unmirrored is not None:
        return _without(plan.dims, [each.axis for each in plan.unmirrored])
    paired = pairs_of_version_1(labels.names)
    return _without(plan.dims, [sideways_axis(plan.dims, plan.orientation)] if paired else [])


def unmirrored_axes(
    dims: int,
    orientation: str | None,
    labels: LabelScheme,
    twins: Sequence[Twins],
    directed: Mapping[int, str] | None = None,
) -> tuple[UnmirroredAxis, ...]:
    """What a new plan says: the axes that are not mirrored and why; () where every axis may be.

    Args:
        dims, orientation: of the plan.
        labels: whose names may tell sides.
        twins: measured, see `find_twins`.
        directed: axes along which all images point the same way, see `directed_axes`.
    """
    axis = sideways_axis(dims, orientation)
    reasons = {} if directed is None else dict(directed)
    sides = _reasons(labels, twins)
    if axis is not None and sides:
        reasons[axis] = "; ".join(sides)
    return tuple(UnmirroredAxis(axis=axis, reason=reason) for axis, reason in sorted(reasons.items()))


def findings_on_sides(plan: Plan, labels: LabelScheme, twins: Sequence[Twins]) -> list[Finding]:
    """Cases in which twins lie the other way round, and a plan, kept from before, that mirrors across sides."""
    findings = []
    for each in twins:
        if each.swapped:
            message = (
                f"{labels.names[each.first]!r} lies to the patient's left of {labels.names[each.second]!r} in "
                f"{each.cases - len(each.swapped)} of {each.cases} cases, but to the right in "
                f"{_listed(each.swapped)}: check the orientation (affine) of these images and their labels"
            )
            findings.append(Finding("swapped_sides", message, each.swapped))
    wanted = unmirrored_axes(plan.dims, plan.orientation, labels, twins)
    allowed = plan_axes(plan, labels)
    findings += [
        Finding(
            "sides_mirrored",
            f"the plan mirrors axis {each.axis}, which exchanges left and right ({each.reason}); to train without, "
            "delete plan.yaml or list the axis there under unmirrored",
        )
        for each in wanted
        if each.axis in allowed
    ]
    return findings


def _reasons(labels: LabelScheme, twins: Sequence[Twins]) -> list[str]:
    reasons = []
    if labels.sides:
        reasons.append(f"sides by name: {_listed(list(labels.sides))}")
    pairs = {frozenset(pair) for pair in labels.left_right_pairs}
    measured = [each for each in twins if frozenset((each.first, each.second)) not in pairs]
    if measured:
        named = [f"{labels.names[each.first]} and {labels.names[each.second]}" for each in measured]
        reasons.append(
            f"sides as measured: {_listed(named)} lie on opposite sides of the body and are alike in volume, place "
            "and grey levels"
        )
    return reasons


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _without(dims: int, left_out: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(axis for axis in range(dims) if axis not in left_out)
