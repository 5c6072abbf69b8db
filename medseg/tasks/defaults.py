"""A configuration with what its task says about the keys that it leaves out."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from medseg.config import RunConfig
from medseg.tasks import get_task

__all__ = ["with_task_defaults"]

Part = TypeVar("Part", bound=BaseModel)


def with_task_defaults(config: RunConfig) -> RunConfig:
    """The configuration, its task's defaults in place of what neither file nor overrides say.

    A window in Hounsfield units is taken only where `data.modality` is CT: 8-bit pictures hold other numbers.

    Raises:
        ConfigError: for an unknown task, naming the tasks there are.

    Example:
        >>> config = RunConfig.model_validate({"task": "lung", "data": {"root": "x", "modality": "CT"}})
        >>> with_task_defaults(config).data.window
        'lung'
    """
    if config.task is None:
        return config
    for key, value in get_task(config.task).defaults.items():
        if key != "data.window" or config.data.modality == "CT":
            config = _filled(config, key.split("."), value)
    return config


def _filled(part: Part, path: list[str], value: Any) -> Part:
    name, *rest = path
    if rest:
        return part.model_copy(update={name: _filled(getattr(part, name), rest, value)})
    return part if name in part.model_fields_set else part.model_copy(update={name: value})
