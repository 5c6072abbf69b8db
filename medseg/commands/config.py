"""`medseg config --explain`: the keys of a configuration, their defaults, what they take and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from medseg.config import Key, all_keys, entry_keys, is_known, keys_meant, nearest_keys
from medseg.errors import ConfigError

__all__ = ["default_of", "explain_all", "explain_key", "introduction_of", "meaning_of", "taken_by"]

_KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
# Part of a configuration, or key outside the parts -> what reads it.
_USED_BY = {
    "format_version": "every command that reads the file",
    **dict.fromkeys(("output", "device", "data", "plan", "net", "distill", "semi"), "prepare and train"),
    **dict.fromkeys(("loss", "augmentation", "training"), "train"),
    "seed": "prepare (the split) and train",
    "task": "prepare, train and evaluate",
    "weak": "pseudo-label",
    "prediction": "train, which stores it in the model for predict",
}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def explain_all() -> str:
    """Every key with its default, a line each."""
    keys = all_keys()
    width = max(map(len, keys))
    return "\n".join(f"{name.ljust(width)}  {default_of(key)}" for name, key in keys.items())


def explain_key(name: str) -> str:
    """A key with its default, what it takes, what uses it and its meaning.

    For a part such as 'training', every key in it is explained; for a list, also the keys of its entries.

    The meaning is what the docstring of the part says about the key, else what it says about the part as a whole.

    Raises:
        ConfigError: for an unknown key, naming the nearest.

    Example:
        >>> print(explain_key("training.momentum"))
        training.momentum
          default: 0.99
          takes:   number >= 0 and < 1
          used by: train
          meaning: `momentum`: of SGD.
    """
    keys = {**all_keys(), **entry_keys()}
    found = [key for key in keys.values() if key.name == name or key.name.startswith(f"{name}.")]
    if found:
        return "\n".join(_explained(key) for key in found)
    if is_known(name):
        owner = next(key for key in keys.values() if name.startswith(f"{key.name}."))
        return _explained(owner)
    meant = keys_meant(name) or nearest_keys(name)
    hint = f"did you mean {' or '.join(map(repr, meant))}?" if meant else "medseg config --explain lists all keys"
    raise ConfigError(f"unknown key {name!r}; {hint}")


def _explained(key: Key) -> str:
    meaning = meaning_of(key)
    about = f"meaning: {meaning}" if meaning else f"part:    {_sentences(key)[0]}"
    used = _USED_BY[key.name.partition(".")[0]]
    return f"{key.name}\n  default: {default_of(key)}\n  takes:   {taken_by(key)}\n  used by: {used}\n  {about}"


def meaning_of(key: Key) -> str:
    """The sentences of the part's docstring that name the key; '' where none does."""
    name = f"`{key.name.rpartition('.')[2]}`"
    return " ".join(sentence for sentence in _sentences(key) if name in sentence)


def introduction_of(key: Key) -> str:
    """What the docstring of the key's part says about the part as a whole."""
    return " ".join(sentence for sentence in _sentences(key) if not sentence.startswith("`"))


def _sentences(key: Key) -> list[str]:
    # A sentence ends at a full stop before a capital letter or before the next name in quotes.
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", " ".join(key.part.split()))


def default_of(key: Key) -> str:
    """The default, as YAML on one line, or in words where there is none."""
    if key.is_required:
        return "none: it must be given"
    # A default that a factory makes is an empty mapping; the schema does not show it.
    value = key.schema.get("default", {})
    if value is None:
        return "not set"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def taken_by(key: Key) -> str:
    """The values that a key takes, in words."""
    return _taken(key.schema)


def _taken(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(_taken(branch) for branch in schema["anyOf"] if branch.get("type") != "null")
    if "oneOf" in schema:
        return "{name: one of those below, ...}"
    if "$ref" in schema:
        return "{key: value}, whose keys medseg config lists"
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices:
        return " or ".join(str(choice) for choice in choices)
    kind = schema.get("type")
    if kind == "array":
        return _listed(schema)
    if kind == "object":
        inner = schema.get("additionalProperties")
        return "{name: value}" if inner in (True, None) else f"{{name: {_taken(inner)}}}"
    words = "file or folder" if schema.get("format") == "path" else _KINDS[str(kind)]
    bounds = [f"{sign} {schema[bound]:.12g}" for bound, sign in _BOUNDS.items() if bound in schema]
    return f"{words} {' and '.join(bounds)}" if bounds else words


def _listed(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(_taken(item) for item in schema['prefixItems'])}]"
    return f"[{_taken(schema['items'])}, ...]"
