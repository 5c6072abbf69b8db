"""Label names in a file: plain YAML or JSON, the `labels.json` of a prediction, or a run's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medseg.config import parse_yaml
from medseg.errors import ConfigError
from medseg.labels import LabelScheme

__all__ = ["read_label_names"]


def read_label_names(path: Path) -> LabelScheme:
    """The labels that a file names.

    Args:
        path: YAML or JSON with `name: value` pairs, a key `labels` (and `ignore`), or `data.labels`.

    Raises:
        ConfigError: for a file that cannot be read or holds no labels.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: labels cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    part: Any = values
    if isinstance(part, dict) and isinstance(part.get("data"), dict):
        part = part["data"]
    ignore = None
    if isinstance(part, dict) and isinstance(part.get("labels"), dict):
        part, ignore = part["labels"], part.get("ignore")
    fits = isinstance(part, dict) and part and all(_is_value(v) for v in part.values())
    if not fits or not (ignore is None or isinstance(ignore, int)):
        raise ConfigError(f"{path}: expected labels as name: value, e.g. {{lung: 1, tumour: 2}}, or a key 'labels' so")
    return LabelScheme.from_mapping({str(k): v for k, v in part.items()}, ignore)


def _is_value(value: Any) -> bool:
    each = value if isinstance(value, list) else [value]
    return bool(each) and all(isinstance(v, int) and not isinstance(v, bool) for v in each)
