"""The plan of a network that learns from a teacher: cases come to both as the teacher was trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg.config import RunConfig, validate_model
from medseg.errors import ConfigError
from medseg.preparation.channel_plans import asked_kinds
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.plan import Plan

__all__ = ["check_teacher_fits", "planned_for_teacher", "with_teacher_input"]

# What decides the network's input beside the patch, which may be another one.
INPUT = (
    *("dims", "orientation", "axes", "transpose", "spacing_mm", "normalization"),
    *("crop", "normalize_on", "image", "shape_rounding", "padding"),
)
# Spacings that differ by less are the same to a network.
SAME_SPACING = 0.01


def planned_for_teacher(config: RunConfig, teacher: Plan, fingerprint: Fingerprint) -> RunConfig:
    """The configuration with the teacher's spacing, patch and number of axes where it gives none.

    Args:
        config: of the run.
        teacher: the teacher's plan.
        fingerprint: of the data set, whose spacing may be unknown, or whose images may be 2D.
    """
    if fingerprint.dims < teacher.spatial_dims:
        return config
    given = config.plan
    update: dict[str, Any] = {}
    if given.patch_size is None and config.net.dims in (None, teacher.dims):
        update["patch_size"] = teacher.patch_size
    if given.spacing_mm is None and fingerprint.spacing_known and teacher.spacing_mm is not None:
        update["spacing_mm"] = teacher.spacing_mm
    net = config.net if config.net.dims is not None else config.net.model_copy(update={"dims": teacher.dims})
    return config.model_copy(update={"plan": given.model_copy(update=update), "net": net})


def with_teacher_input(plan: Plan, teacher: Plan, config: RunConfig) -> Plan:
    """A new plan with the teacher's way from a case to the network's input, but for what the configuration fixes.

    Axes that the teacher was not mirrored along are not mirrored either.

    Raises:
        ConfigError: where the two do not fit together.
    """
    if (plan.dims, plan.in_channels, plan.spatial_dims) != (teacher.dims, teacher.in_channels, teacher.spatial_dims):
        return plan
    kept = {"spacing_mm"} if config.plan.spacing_mm is not None or plan.spacing_mm is None else set()
    if config.data.window is not None or any(kind != "auto" for kind in asked_kinds(config, plan.in_channels)):
        kept.add("normalization")
    theirs = teacher.model_dump(include={part for part in INPUT if part not in kept})
    mine = {each.axis: each for each in (*(teacher.unmirrored or ()), *(plan.unmirrored or ()))}
    unmirrored = None if plan.unmirrored is None else [mine[axis].model_dump() for axis in sorted(mine)]
    return validate_model(Plan, {**plan.model_dump(), **theirs, "unmirrored": unmirrored}, "planning")


def check_teacher_fits(plan: Plan, teacher: Plan, config: RunConfig) -> None:
    """Refuse a plan by which the teacher would see other input than it was trained on.

    Raises:
        ConfigError: naming the part, both values and what to do.
    """
    kept = config.training.keep_classes
    where = f"training.init {config.training.init}" if kept else f"distill.teacher {config.distill.teacher}"
    if plan.in_channels != teacher.in_channels:
        raise ConfigError(
            f"{where} takes images of {teacher.in_channels} channels, but those of the data set have "
            f"{plan.in_channels}; give a teacher that was trained on images of this kind"
        )
    mine, theirs = (
        tuple((rule.name or "").casefold() for rule in each.select) or ("",) * plan.in_channels
        for each in (plan, teacher)
    )
    if mine != theirs and sorted(mine) == sorted(theirs):
        raise ConfigError(
            f"{where} takes the channels in the order {', '.join(theirs)}, but the data set has {', '.join(mine)}; "
            "bring the channels of the data set into the teacher's order"
        )
    for part in INPUT:
        has, needs = getattr(plan, part), getattr(teacher, part)
        if has == needs or (part == "spacing_mm" and _same_spacing(has, needs)):
            continue
        advice = {
            "dims": "leave net.dims out, or give a teacher of the same number of axes",
            "spacing_mm": "leave plan.spacing_mm out to take the teacher's",
            "normalization": "leave data.normalization and data.window out to take the teacher's",
        }.get(part, "the teacher has to see images as it was trained on")
        raise ConfigError(
            f"{where} was trained with {part} {_shown(needs)}, but the plan of this run has {_shown(has)}; {advice} (a "
            "plan.yaml from before in the run folder keeps its own: delete it to plan anew)"
        )


def _same_spacing(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    if one is None or other is None or len(one) != len(other):
        return False
    return bool(np.allclose(one, other, rtol=SAME_SPACING, atol=0))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    if hasattr(value, "model_dump"):
        return str({key: each for key, each in value.model_dump().items() if each is not None})
    return str(value)
