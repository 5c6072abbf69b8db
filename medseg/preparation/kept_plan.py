"""The plan of a run: the one that its folder keeps, or a new one, which is written there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.config import RunConfig
from medseg.labels import LabelScheme
from medseg.machine import available_cpus
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.plan import Plan, load_plan, save_plan
from medseg.preparation.planning import check_plan_fits, make_plan
from medseg.preparation.teacher_plan import check_teacher_fits, planned_for_teacher, with_teacher_input
from medseg.preparation.training_budget import plan_reasons

__all__ = ["PlannedFor", "kept_or_new_plan"]


@dataclass(frozen=True, slots=True)
class PlannedFor:
    """What a plan depends on beside data and configuration.

    Args:
        memory_gb: of the device that trains.
        on_gpu: whether that device is a GPU.
        teacher: plan of the network that `distill.teacher` names; None without one.
    """

    memory_gb: float = 8.0
    on_gpu: bool = False
    teacher: Plan | None = None


def kept_or_new_plan(
    path: Path, fingerprint: Fingerprint, config: RunConfig, scheme: LabelScheme, planned_for: PlannedFor
) -> Plan:
    """The plan in a file where there is one, else a new one, written there with its reasons.

    Args:
        path: of the run's `plan.yaml`.
        fingerprint: of the data set.
        config: of the run.
        scheme: the labels.
        planned_for: device and teacher.

    Raises:
        ConfigError: a plan that does not fit data, configuration or teacher.
        DatasetError: as `make_plan`.
        WriteError: disk full or no permission.
    """
    teacher = planned_for.teacher
    if path.exists():
        plan = load_plan(path)
        check_plan_fits(plan, fingerprint, config, path)
        if teacher is not None:
            check_teacher_fits(plan, teacher, config)
        return plan
    device, cores = (planned_for.memory_gb, planned_for.on_gpu), available_cpus()
    if teacher is None:
        plan = make_plan(fingerprint, config, scheme, *device, cores)
        save_plan(plan, path, plan_reasons(plan, fingerprint, config, planned_for.on_gpu, cores))
        return plan
    asked = planned_for_teacher(config, teacher, fingerprint)
    plan = with_teacher_input(make_plan(fingerprint, asked, scheme, *device, cores), teacher, config)
    check_teacher_fits(plan, teacher, config)
    reasons = list(plan_reasons(plan, fingerprint, asked, planned_for.on_gpu, cores))
    if config.plan.patch_size is None:
        reasons[0] = "The patch is the teacher's."
    save_plan(plan, path, ["Grid and normalisation are the teacher's.", *reasons])
    return plan
