"""Loaded values as a model, or one readable line about the first that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medseg.config.keys import keys_meant
from medseg.config.run import RunConfig
from medseg.errors import ConfigError
from medseg.lookup import nearest_hint

__all__ = ["either", "validate_model"]

Model = TypeVar("Model", bound=BaseModel)


def validate_model(model: type[Model], values: Any, source: str, overrides: Iterable[str] = ()) -> Model:
    """A pydantic model from loaded values.

    Args:
        model: the class.
        values: nested mappings, as a file holds them.
        source: where they come from, for messages.
        overrides: dotted keys whose values do not come from there but were given beside it.

    Raises:
        ConfigError: naming the first wrong key, the file or override, and the nearest valid name or what was expected.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected keys and values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        path, complaint = _first_complaint(model, values, error.errors())
        given = next((key for key in overrides if path[: key.count(".") + 1] == key.split(".")), None)
        raise ConfigError(f"{source if given is None else f'override {given!r}'}: {complaint}") from None


def _first_complaint(model: type[BaseModel], values: Any, errors: Sequence[ErrorDetails]) -> tuple[list[str], str]:
    """Where the first error lies, and a message about it."""
    paths = [_path_in(values, each) for each in errors]
    # Each branch of a union reports errors; the branch that reached furthest into the values is the one meant.
    same = [n for n, path in enumerate(paths) if path[: len(paths[0])] == paths[0]]
    deepest = max(same, key=lambda n: (len(paths[n]), errors[n]["type"] == "extra_forbidden"))
    path, first = paths[deepest], errors[deepest]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        in_list = any(part.isdigit() for part in path)
        meant = keys_meant(key) if model is RunConfig and not in_list else []
        if meant:
            return path, f"unknown key {key!r}; did you mean {either(meant)}?"
        names = _names_beside(model, values, path[:-1])
        hint = nearest_hint(path[-1], names) or f"; valid here: {', '.join(names)}"
        return path, f"unknown key {key!r}{hint}"
    if first["type"] == "missing":
        return path, f"{key} is missing; give it in the file{f' or as {key}=VALUE' if model is RunConfig else ''}"
    here = [e for n, e in enumerate(errors) if paths[n] == path]
    # Our own checks run only on values whose type was right.
    own = [e for e in here if e["type"] == "value_error"]
    messages = dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in own or here)
    found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
    return path, f"{key}: {', or '.join(messages)}{found}"


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


def _names_beside(model: type[BaseModel], values: Any, path: Sequence[str]) -> list[str]:
    """The keys that are valid where a path through the values ends."""
    current, annotation = model, None
    for part in path:
        values = values[int(part)] if isinstance(values, list | tuple) else values[part]
        field = current.model_fields.get(part)
        # Within a list, the annotation of its field holds for its entries.
        annotation = annotation if field is None else field.annotation
        name = values.get("name") if isinstance(values, Mapping) else None
        inner = sorted(_models_in(annotation), key=lambda each: _distance(each, name))
        if not inner:
            break
        current = inner[0]
    return sorted(current.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _distance(model: type[BaseModel], name: object) -> int:
    """How badly a model fits an entry of this name: 0 the model of that name, 1 one for any name, 2 of another name."""
    field = model.model_fields.get("name")
    default = None if field is None else field.default
    return 0 if default == name else 2 if isinstance(default, str) else 1


def either(keys: Sequence[str]) -> str:
    """The keys in quotes, joined by 'or'."""
    return " or ".join(repr(key) for key in keys)
