"""Label names from a file: plain YAML or JSON, the `labels.json` of a prediction, or a run's configuration."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from medseg.config import parse_yaml, read_text
from medseg.errors import ConfigError
from medseg.labels import LabelScheme, label_table

__all__ = ["labels_json", "read_label_names"]

_MOST_YAML, _MOST_JSON = 1 << 20, 1 << 24
# A region cannot have more values than 16 bits can represent.
_MOST_VALUES = 1 << 16


def read_label_names(path: Path) -> LabelScheme:
    """The labels that a file defines.

    Args:
        path: YAML or JSON with `name: value` pairs, a key `labels` (and `ignore`), or `data.labels`. `value: name` and
            a label called `ignore` are understood as in `dataset.json`.

    Raises:
        ConfigError: if the file cannot be read or defines no labels.
    """
    try:
        values = _parsed(read_text(path, _MOST_JSON))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: labels cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    part: Any = values
    if isinstance(part, dict) and isinstance(part.get("data"), dict):
        part = part["data"]
    ignore: Any = None
    spare: Any = []
    if isinstance(part, dict) and isinstance(part.get("labels"), dict):
        part, ignore, spare = part["labels"], part.get("ignore"), part.get("spare", [])
    try:
        part, ignore = label_table(part, ignore) if isinstance(part, dict) else (part, ignore)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    fits = isinstance(part, dict) and part and all(_is_value(v) for v in (*part.values(), *([spare] if spare else [])))
    if not fits or not (ignore is None or _is_value(ignore)):
        raise ConfigError(f"{path}: expected labels as name: value, e.g. {{lung: 1, tumour: 2}}, or a key 'labels' so")
    try:
        return replace(LabelScheme.from_mapping({str(k): v for k, v in part.items()}, ignore), spare=tuple(spare))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def labels_json(scheme: LabelScheme) -> str:
    """`labels.json`: the meaning of the values in the masks beside it, for `read_label_names`."""
    labels = {n: list(v) if scheme.is_regions else v[0] for n, v in zip(scheme.names, scheme.values, strict=True)}
    table = {"format_version": 1, "labels": labels, "ignore": scheme.ignore_entry}
    # Values that no reference has: they stand for regions without a value of their own.
    table |= {"spare": list(scheme.spare)} if scheme.spare else {}
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def _parsed(text: str) -> Any:
    # A data set's JSON lists its cases as well, which takes minutes to parse as YAML.
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    if len(text) > _MOST_YAML:
        raise yaml.YAMLError(f"the file has {len(text) / 1e6:.0f} MB; expected the names of some labels")
    return parse_yaml(text)


def _is_value(value: Any) -> bool:
    each = value if isinstance(value, list) else [value]
    return 0 < len(each) <= _MOST_VALUES and all(isinstance(v, int) and not isinstance(v, bool) for v in each)
