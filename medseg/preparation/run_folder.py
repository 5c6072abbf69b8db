"""A run folder belongs to one data set and one split of it, which its `config.yaml` records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medseg.config import RunConfig
from medseg.disk.atomic import write_text_atomic
from medseg.errors import ConfigError
from medseg.io.formats import is_there

__all__ = ["record_config", "recorded_values", "refuse_other_data", "refuse_other_split"]

CONFIG = "config.yaml"
_SPLIT = (("training", "folds"), ("seed",), ("data", "split"))


def record_config(folder: Path, config: RunConfig) -> None:
    """Write `config.yaml`.

    Raises:
        WriteError: disk full or no permission.
    """
    write_text_atomic(folder / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def recorded_values(folder: Path) -> dict[str, Any]:
    """What `config.yaml` of a run folder says; {} where there is none, or none that can be read."""
    try:
        values = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def refuse_other_data(folder: Path, config: RunConfig) -> None:
    """Refuse a run folder that was made from another data set, which two folders of one name share by default.

    A data set that has been moved is accepted.

    Raises:
        ConfigError: naming both data sets.
    """
    data = recorded_values(folder).get("data")
    for key in ("root", "csv"):
        before, now = data.get(key) if isinstance(data, dict) else None, getattr(config.data, key)
        if not isinstance(before, str) or now is None or not is_there(Path(before)) or not is_there(Path(now)):
            continue
        if not Path(before).samefile(now):
            raise ConfigError(
                f"{folder} belongs to the data set {Path(before).resolve()}, not to {Path(now).resolve()}; give "
                f"another output=FOLDER, or if one is a copy of the other, write the new place into {folder / CONFIG}"
            )


def refuse_other_split(folder: Path, config: RunConfig, seed_matters: bool = True) -> None:
    """Refuse to add a fold to a run whose folds were drawn otherwise: the cases of one would train another.

    Args:
        folder: the run folder.
        config: of the training that is to begin or to go on.
        seed_matters: whether another seed is refused as well.

    Raises:
        ConfigError: naming the setting.
    """
    before, now = recorded_values(folder), config.model_dump(mode="json")
    for path in _SPLIT if seed_matters else [each for each in _SPLIT if each != ("seed",)]:
        old, new = _at(before, path), _at(now, path)
        if before and old != new:
            key = ".".join(path)
            raise ConfigError(
                f"{folder} holds folds that were drawn with {key}={old}, now {key} is {new}: cases that validated one "
                f"fold would train another; give {key}={old} again, or another output=FOLDER"
            )


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values
