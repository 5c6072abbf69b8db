"""`medseg config --explain`: the keys of a configuration, their defaults, what they take and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from medseg.config import Key, all_keys, entry_keys, is_known, keys_meant, nearest_keys
from medseg.errors import ConfigError

__all__ = ["explain_all", "explain_key"]

_KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def explain_all() -> str:
    """Every key with its default, a line each."""
    keys = all_keys()
    width = max(map(len, keys))
    return "\n".join(f"{name.ljust(width)}  {_default(key)}" for name, key in keys.items())


def explain_key(name: str) -> str:
    """A key with its default, what it takes and its meaning; for a part such as 'training', every key in it.

    For a list, the keys of its entries follow.

    The meaning is what the docstring of the part says about the key, else what it says about the part as a whole.

    Raises:
        ConfigError: for an unknown key, naming the nearest.

    Example:
        >>> print(explain_key("training.momentum"))
        training.momentum
          default: 0.99
          takes:   number >= 0 and < 1
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
    about, what = _meaning(key)
    return f"{key.name}\n  default: {_default(key)}\n  takes:   {_taken(key.schema)}\n  {about} {what}"


def _meaning(key: Key) -> tuple[str, str]:
    """('meaning:', the sentences of the docstring that name the key), or ('part:', its first sentence)."""
    text = " ".join(key.part.split())
    # A sentence ends at a full stop before a capital letter or before the next name in quotes.
    sentences = re.split(r"(?<=[.])\s+(?=[A-Z`])", text)
    name = f"`{key.name.rpartition('.')[2]}`"
    about = [sentence for sentence in sentences if name in sentence]
    return ("meaning:", " ".join(about)) if about else ("part:   ", sentences[0])


def _default(key: Key) -> str:
    if key.is_required:
        return "none: it must be given"
    # A default that a factory makes is an empty mapping; the schema does not show it.
    value = key.schema.get("default", {})
    if value is None:
        return "not set"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


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
