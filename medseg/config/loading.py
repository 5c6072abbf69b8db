"""A run's configuration from a YAML file or preset, with dotted overrides (`training.max_minutes=10`) on top.

The file holds only what differs from the defaults of the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg.config.keys import is_known, keys_meant, nearest_keys
from medseg.config.presets import packaged_configs
from medseg.config.run import RunConfig
from medseg.config.validation import either, validate_model
from medseg.config.yaml_text import parse_yaml, read_text
from medseg.errors import ConfigError
from medseg.lookup import nearest_hint

__all__ = ["config_from_values", "load_config", "parse_overrides"]


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["training.max_minutes=10"]` as `{"training.max_minutes": 10}`, values read as YAML.

    Raises:
        ConfigError: for an entry without `=` or a value that is not YAML.
    """
    result: dict[str, Any] = {}
    for each in overrides:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise ConfigError(f"{each!r} is not an override; write key=value, e.g. training.max_minutes=10")
        try:
            result[key.strip()] = parse_yaml(value, options="options" in key.split("."))
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or error
            raise ConfigError(f"override {each!r}: value is not valid YAML ({problem})") from None
    return result


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration in a YAML file or preset, with dotted overrides on top.

    Relative paths in the file are relative to the current folder, as on the command line.

    Args:
        source: a file, or the name of a preset in `configs/`.
        overrides: dotted key -> value.

    Raises:
        ConfigError: for a missing or unreadable file, an unknown key, a wrong type or an impossible value.

    Example:
        >>> load_config("hippocampus", {"data.root": "cases", "training.max_minutes": 10}).training.max_minutes
        10.0
    """
    path = Path(source)
    if not _is_file(path):
        presets = packaged_configs()
        if str(source) not in presets:
            hint = nearest_hint(str(source), presets) or ";"
            raise ConfigError(f"no config file {path}{hint} presets are: {', '.join(presets) or 'none'}")
        path = presets[str(source)]
    try:
        values = parse_yaml(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    values.setdefault("data", {})  # so that the message for an empty file names data.root
    return config_from_values(values, overrides or {}, str(path), path.stem)


def config_from_values(values: dict[str, Any], overrides: Mapping[str, Any], source: str, name: str) -> RunConfig:
    """The configuration in loaded values, with dotted overrides on top.

    Args:
        values: nested, as a YAML file holds them; the overrides are written into them.
        overrides: dotted key -> value.
        source: what the values came from, for messages.
        name: of the run: `output` is `runs/<name>` where nothing else is given.

    Raises:
        ConfigError: for an unknown key, a wrong type or an impossible value.
    """
    for key, value in overrides.items():
        if not is_known(key):
            meant = keys_meant(key) or nearest_keys(key)
            hint = f"did you mean {either(meant)}?" if meant else "medseg config --explain lists all keys"
            raise ConfigError(f"override {key!r}: unknown key {key!r}; {hint}")
        _set_dotted(values, key, value)
    config = validate_model(RunConfig, values, source, overrides)
    if config.output is None:
        config = config.model_copy(update={"output": Path("runs") / name})
    return config


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        # A name that no file system accepts.
        return False


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    current = values
    for part in parts[:-1]:
        inner = current.get(part)
        if not isinstance(inner, dict):
            inner = {}
            current[part] = inner
        current = inner
    current[parts[-1]] = value
