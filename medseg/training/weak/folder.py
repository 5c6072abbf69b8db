"""A configuration for pseudo-labels, also from a folder of data alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.config import RunConfig, config_from_values, packaged_configs
from medseg.disk.directory_walk import is_hidden
from medseg.preparation.folder import config_of
from medseg.training.weak.image_labels import NEGATIVE, kind_of_source

__all__ = ["weak_config_of"]


def weak_config_of(source: str | Path, overrides: Mapping[str, Any]) -> RunConfig:
    """The configuration in a YAML file or preset, or for a folder of data, with dotted overrides on top.

    A folder with a sub-folder for images without any label names its labels by its other sub-folders. A folder of
    label maps is read as `medseg train` reads it; of others, `data.labels` among the overrides names the labels.

    Args:
        source: a YAML file, the name of a preset, or a folder of data.
        overrides: dotted key -> value.

    Raises:
        ConfigError: an unknown key or an impossible value.
        DatasetError, ReadError: a folder that contains no data set.
    """
    root = Path(source)
    if not root.is_dir() or str(source) in packaged_configs() or "data.root" in overrides:
        return config_of(source, overrides)
    found = dict(overrides)
    if "data.labels" not in overrides:
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path))
        if any(name.casefold() in NEGATIVE for name in names):
            labels = [name for name in names if name.casefold() not in NEGATIVE]
            found["data.labels"] = {name: value for value, name in enumerate(labels, start=1)}
    values = {"data": {"root": str(root)}}
    config = config_from_values(values, found, str(root), root.resolve().name or "run")
    return config_of(source, overrides) if kind_of_source(config) == "masks" else config
