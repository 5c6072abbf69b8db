"""The configuration of a run: frozen pydantic models, one per part, composed in `RunConfig` (`models.py`).

A YAML file holds only what differs from the defaults; dotted overrides (`training.max_minutes=10`) come on top.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medseg.config.keys import is_known, keys_meant, nearest_keys
from medseg.config.run import RunConfig
from medseg.errors import ConfigError
from medseg.lookup import nearest_hint

__all__ = [
    "MOST_LIST_BYTES",
    "config_from_values",
    "load_config",
    "packaged",
    "packaged_configs",
    "packaged_presets",
    "parse_overrides",
    "parse_yaml",
    "read_text",
    "validate_model",
]

Model = TypeVar("Model", bound=BaseModel)
# What a person writes is kilobytes long, and YAML is parsed at a megabyte in ten seconds; lists of cases are longer.
_MOST_BYTES, MOST_LIST_BYTES = 1 << 20, 1 << 28
MOST_VALUES = 200_000


def read_text(path: Path, most_bytes: int = _MOST_BYTES) -> str:
    """The UTF-8 text of a regular file, with or without a byte order mark.

    Raises:
        OSError: cannot be opened, longer than `most_bytes`, or no file: a pipe would be waited for without end.
        UnicodeDecodeError: other bytes.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a folder, pipe or device; expected a text file")
    if status.st_size > most_bytes:
        raise OSError(
            f"it has {status.st_size / 1e6:.0f} MB; expected a text file of at most {most_bytes / 1e6:.0f} MB"
        )
    return path.read_text(encoding="utf-8-sig")


class _Loader(yaml.SafeLoader):
    """Plain values only, and no more of them than a file can hold: aliases of aliases would fill the memory."""

    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _values_of(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"aliases make more than {MOST_VALUES} values of it")
        return node


def _values_of(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for where each alias is written out; infinite for one that holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        inner = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_values_of(each, known) for each in inner)
    return known[id(node)]


def parse_yaml(text: str) -> Any:
    """The values in a YAML text: plain ones, without running anything.

    Raises:
        yaml.YAMLError: for what is not YAML, more than 1 MB, nested without end, or made of too many aliases.

    Example:
        >>> parse_yaml("{lung: 1, tumour: [2, 3]}")
        {'lung': 1, 'tumour': [2, 3]}
    """
    if len(text) > _MOST_BYTES:
        raise yaml.YAMLError(f"{len(text) / 1e6:.0f} MB are more than such a file has")
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError, OverflowError) as error:
        # Of numbers and dates that there are not, and keys that cannot be any.
        raise yaml.YAMLError(str(error)) from None


def validate_model(model: type[Model], values: Any, source: str) -> Model:
    """A pydantic model from loaded values.

    Raises:
        ConfigError: naming the first wrong key, the file, and the nearest valid name or what was expected.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_complaint(model, values, error.errors())}") from None


def _first_complaint(model: type[BaseModel], values: Any, errors: Sequence[ErrorDetails]) -> str:
    paths = [_path_in(values, each) for each in errors]
    # Each branch of a union complains; the one that got furthest into the values is the one that was meant.
    same = [n for n, path in enumerate(paths) if path[: len(paths[0])] == paths[0]]
    deepest = max(same, key=lambda n: (len(paths[n]), errors[n]["type"] == "extra_forbidden"))
    path, first = paths[deepest], errors[deepest]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        meant = keys_meant(key) if model is RunConfig else []
        if meant:
            return f"unknown key {key!r}; did you mean {_either(meant)}?"
        names = _names_beside(model, path[:-1])
        hint = nearest_hint(path[-1], names) or f"; valid here: {', '.join(names)}"
        return f"unknown key {key!r}{hint}"
    if first["type"] == "missing":
        return f"{key} is missing; give it in the file or as {key}=VALUE"
    here = [e for n, e in enumerate(errors) if paths[n] == path]
    # Our own checks run only on values whose kind was right.
    own = [e for e in here if e["type"] == "value_error"]
    told = dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in own or here)
    found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
    return f"{key}: {', or '.join(told)}{found}"


def _path_in(values: Any, error: ErrorDetails) -> list[str]:
    """Where in the values an error lies, without the names pydantic gives to the branches of a union."""
    path, current = [], values
    for part in error["loc"]:
        is_list = isinstance(current, list | tuple)
        if part in (range(len(current)) if is_list else current if isinstance(current, Mapping) else ()):
            current = current[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    return path


def _names_beside(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            break
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            break
        current = inner[0]
    return sorted(current.model_fields)


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
            result[key.strip()] = parse_yaml(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {each!r}: value is not valid YAML ({error.__class__.__name__})") from None
    return result


def packaged(name: str) -> Path | None:
    """A folder that comes with medseg: inside the installed package, or in the source tree; None if it did not come."""
    here = Path(__file__).parents[1]
    inside = here / "_packaged" / name
    if inside.is_dir():
        return inside
    beside = here.parent / name
    # Next to an installed package lie other people's folders, so only a source tree is looked into.
    return beside if beside.is_dir() and (here.parent / "pyproject.toml").is_file() else None


def packaged_configs() -> dict[str, Path]:
    """Name -> file of the presets that come with medseg, e.g. 'lung'."""
    folder = packaged("configs")
    return {} if folder is None else {f.stem: f for f in sorted(folder.glob("*.yaml"))}


def packaged_presets() -> dict[str, str]:
    """Name -> what it is for, in one line, of the presets that come with medseg: the first comment of each file."""
    lines = {name: read_text(path).splitlines() for name, path in packaged_configs().items()}
    return {name: next((line for line in each if line.startswith("#")), "").strip("# ") for name, each in lines.items()}


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
            hint = f"did you mean {_either(meant)}?" if meant else "medseg config --explain lists all keys"
            raise ConfigError(f"{source}: unknown key {key!r}; {hint}")
        _set_dotted(values, key, value)
    config = validate_model(RunConfig, values, source)
    if config.output is None:
        config = config.model_copy(update={"output": Path("runs") / name})
    return config


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        # A name that no disk can hold is no file.
        return False


def _either(keys: Sequence[str]) -> str:
    return " or ".join(repr(key) for key in keys)


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
