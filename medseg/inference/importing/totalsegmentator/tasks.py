"""The tasks of TotalSegmentator, read from `tasks.yaml`."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from medseg.config import parse_yaml
from medseg.errors import ConfigError
from medseg.lookup import nearest_hint

__all__ = ["CropTask", "Task", "labels_of_dataset", "task_named", "tasks"]

PREFIX = "totalsegmentator:"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CropTask(_Part):
    """The task that finds the box of another one, the labels in it, and the margin on each side in millimetres."""

    task: str
    labels: tuple[str, ...]
    margin_mm: float = 3.0


class Task(_Part):
    """One task; the fields are explained in `tasks.yaml`.

    Args:
        datasets: numbers of the folders, in the order of merging.
        trainer, configuration: of the folders.
        spacing_mm: of the grid, along x, y and z; None: the image's own.
        step: of the windows, as a share of the patch.
        folds: of each folder.
        crop: where the task works; 'unknown': this medseg cannot run it.
        keep_largest: labels of which one component stays.
        smallest_ml: labels whose smaller components go.
        air: whether the air around the body may be left out.
        licence: of the weights.
    """

    datasets: tuple[int, ...]
    trainer: str
    configuration: str = "3d_fullres"
    spacing_mm: tuple[float, float, float] | None = None
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    folds: Literal["0", "all"] = "0"
    crop: CropTask | Literal["unknown"] | None = None
    keep_largest: tuple[str, ...] = ()
    smallest_ml: dict[str, float] = Field(default_factory=dict)
    air: Literal["seen", "left_out"] = "seen"
    licence: str = "apache-2.0"

    @property
    def is_free(self) -> bool:
        """Whether the weights may be used for any purpose."""
        return self.licence == "apache-2.0"


class _Table(_Part):
    format_version: Literal[1]
    labels: dict[int, tuple[str, ...]]
    tasks: dict[str, Task]


@functools.cache
def _table() -> _Table:
    text = files("medseg.inference.importing.totalsegmentator").joinpath("tasks.yaml").read_text(encoding="utf-8")
    return _Table.model_validate(parse_yaml(text))


def tasks() -> dict[str, Task]:
    """Every task by name.

    Example:
        >>> tasks()["total"].datasets
        (291, 292, 293, 294, 295)
    """
    return _table().tasks


def labels_of_dataset(number: int) -> tuple[str, ...]:
    """The labels of a folder in the order of their values, from 1; () where only its `dataset.json` says them.

    Example:
        >>> labels_of_dataset(293)[:2]
        ('heart', 'aorta')
    """
    parts = _table().labels
    if number in (297, 298):
        return tuple(name for each in sorted(parts) for name in parts[each])
    return parts.get(number, ())


def task_named(model: object) -> str | None:
    """The task that a model's name asks for; None for other names.

    Raises:
        ConfigError: a task that does not exist.

    Example:
        >>> task_named("totalsegmentator:total"), task_named("runs/lung/model")
        ('total', None)
    """
    text = str(model)
    if not text.startswith(PREFIX):
        return None
    name = text.removeprefix(PREFIX)
    if name not in tasks():
        raise ConfigError(
            f"TotalSegmentator has no task {name[:80]!r}; its tasks are {', '.join(tasks())}"
            f"{nearest_hint(name, tuple(tasks()))}"
        )
    return name
