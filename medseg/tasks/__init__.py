"""Tasks: labels, windows, metrics, measurements and training defaults of vessels, lungs and tumours. Needs no torch."""

from __future__ import annotations

from medseg.errors import ConfigError
from medseg.lookup import nearest_hint
from medseg.tasks.lung import LUNG
from medseg.tasks.task import Row, Table, Task, TaskCase, TaskScores
from medseg.tasks.tumor import TUMOR
from medseg.tasks.vessel import VESSEL

__all__ = ["TASKS", "Row", "Table", "Task", "TaskCase", "TaskScores", "get_task"]

TASKS: dict[str, Task] = {task.name: task for task in (VESSEL, LUNG, TUMOR)}
"""Name -> task."""


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        ConfigError: naming the tasks there are.

    Example:
        >>> get_task("lung").tolerance_mm
        2.0
    """
    if name not in TASKS:
        raise ConfigError(f"no task {name!r}{nearest_hint(name, TASKS) or ';'} tasks are: {', '.join(TASKS)}")
    return TASKS[name]
