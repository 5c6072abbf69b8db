"""What a training has to do with its time: seconds of a core, and how far around it must look."""

from __future__ import annotations

import numpy as np

from medseg.config import DEFAULT_MINUTES, RunConfig, TrainingConfig
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.patch import CONTEXT
from medseg.preparation.plan import Plan

__all__ = ["core_seconds", "plan_reasons", "typical_thickness"]

# Several cores do less than several times the work of one.
CORE_GAIN = 0.8


def core_seconds(training: TrainingConfig, cores: int) -> float | None:
    """What the minutes of a training are worth in seconds of one core; None where its steps are counted.

    Example:
        >>> core_seconds(TrainingConfig(max_minutes=10), cores=1), core_seconds(TrainingConfig(max_iterations=9), 1)
        (600.0, None)
    """
    if training.max_minutes is None and training.max_iterations is not None:
        return None
    return 60.0 * (training.max_minutes or DEFAULT_MINUTES) * float(cores**CORE_GAIN)


def typical_thickness(fingerprint: Fingerprint) -> float | None:
    """Of the thickest label, in mm, or in pixels where no spacing is known: the median over the cases that hold it."""
    measured: dict[int, list[float]] = {}
    for case in fingerprint.cases:
        for value, thickness in case.thickness_mm.items():
            measured.setdefault(value, []).append(thickness)
    return max((float(np.median(each)) for each in measured.values()), default=None)


def plan_reasons(plan: Plan, fingerprint: Fingerprint, config: RunConfig, on_gpu: bool, cores: int) -> tuple[str, ...]:
    """Sentences that say why patch, batch, rotation and mirroring of a new plan are what they are."""
    unit = "mm" if fingerprint.spacing_known else "voxels"
    thickness, seconds = typical_thickness(fingerprint), core_seconds(config.training, cores)
    reasons = []
    if config.plan.patch_size is not None:
        reasons.append("The patch is the one that the configuration gives.")
    elif thickness is not None:
        reasons.append(
            f"The thickest structures measure {thickness:.3g} {unit}; a patch need not be longer than {CONTEXT:g} "
            "times that, nor than the image."
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
