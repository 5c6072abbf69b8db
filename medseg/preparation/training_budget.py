"""What a training has to do with its time: seconds of a core, and how far around it must look."""

from __future__ import annotations

import numpy as np

from medseg.config import DEFAULT_MINUTES, RunConfig, TrainingConfig
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.plan import Plan

__all__ = ["core_seconds", "plan_reasons", "reach_of"]

# Several cores do less than several times the work of one.
CORE_GAIN = 0.8
# How far a network looks around, in thicknesses and lengths of what it is to find.
AROUND_THICKNESS, AROUND_LENGTH = 6.0, 1.5
LONG_AND_THIN = 10.0


def core_seconds(training: TrainingConfig, cores: int) -> float | None:
    """What the minutes of a training are worth in seconds of one core; None where its steps are counted.

    Example:
        >>> core_seconds(TrainingConfig(max_minutes=10), cores=1), core_seconds(TrainingConfig(max_iterations=9), 1)
        (600.0, None)
    """
    if training.max_minutes is None and training.max_iterations is not None:
        return None
    return 60.0 * (training.max_minutes or DEFAULT_MINUTES) * float(cores**CORE_GAIN)


def reach_of(fingerprint: Fingerprint) -> float | None:
    """How long a patch need be, in mm, or in pixels where no spacing is known; None where nothing was measured.

    6 times the thickness of the thickest label, or half as long again as the longest one: where a label is 10 times
    longer than that thickness (vessels, airways), what it looks like nearby tells it. Medians over the cases.
    """
    thickness: dict[int, list[float]] = {}
    length: dict[tuple[int, int], list[float]] = {}
    for number, case in enumerate(fingerprint.cases):
        for value, each in case.thickness_mm.items():
            thickness.setdefault(value, []).append(each)
        for feature in case.features.features:
            if feature.kind == "length":
                length.setdefault((feature.label, number), []).append(feature.value)
    if not thickness:
        return None
    thickest = max(float(np.median(each)) for each in thickness.values())
    labels = {label for label, _ in length}
    longest = [float(np.median([max(v) for (of, _), v in length.items() if of == label])) for label in labels]
    compact = [each for each in longest if each <= LONG_AND_THIN * thickest]
    return max([AROUND_THICKNESS * thickest, *(AROUND_LENGTH * each for each in compact)])


def plan_reasons(plan: Plan, fingerprint: Fingerprint, config: RunConfig, on_gpu: bool, cores: int) -> tuple[str, ...]:
    """Sentences that say why grid, patch, batch, rotation and mirroring of a new plan are what they are."""
    unit = "mm" if fingerprint.spacing_known else "voxels"
    reach, seconds = reach_of(fingerprint), core_seconds(config.training, cores)
    reasons = []
    if config.plan.spacing_mm is None and config.plan.downsampling is None and _is_coarser(plan, fingerprint):
        reasons.append(
            f"The network's voxels measure {plan.voxels_in_words}: the structures are so thick that on the images' own "
            "grid a patch would show too little of them."
        )
    if config.plan.patch_size is not None:
        reasons.append("The patch is the one that the configuration gives.")
    elif reach is not None:
        reasons.append(
            f"By thickness and length of the labels a patch need not be longer than {reach:.3g} {unit}, nor than the "
            "image."
        )
    if config.training.batch_size is not None:
        reasons.append("The batch is the one that the configuration gives.")
    elif on_gpu or seconds is None:
        reasons.append("Patch and batch are as large as memory and the size of the data set allow.")
    else:
        minutes = config.training.max_minutes or DEFAULT_MINUTES
        reasons.append(
            f"Patch and batch are those for {minutes:g} minutes on {cores} {'core' if cores == 1 else 'cores'}: the "
            "shorter a training, the smaller its steps, so that there are many."
        )
    if plan.rotation_degrees is not None and config.augmentation.rotation_degrees is None:
        reasons.append(
            f"Samples are turned by up to {plan.rotation_degrees:g} degrees only, and little enlarged or reduced, as "
            "all images point the same way."
        )
    reasons += [f"Axis {each.axis} is not mirrored ({each.reason})." for each in plan.unmirrored or ()]
    return tuple(reasons)


def _is_coarser(plan: Plan, fingerprint: Fingerprint) -> bool:
    """Whether the plan's grid is coarser than that of most images, by more than other images of the set may be."""
    if plan.spacing_mm is None:
        return plan.downsampling is not None
    native = np.median([case.along(plan.orientation)[1] for case in fingerprint.cases], axis=0)
    return bool((np.divide(plan.spacing_mm, native) >= 1.25).any())
