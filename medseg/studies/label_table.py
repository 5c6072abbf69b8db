"""`labels.json` of an output folder: what the values in its masks mean. One folder holds masks of one label table."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from medseg.disk.atomic import write_text_atomic
from medseg.errors import ConfigError
from medseg.io.label_names import labels_json
from medseg.labels import LabelScheme
from medseg.studies.ledger import FINISHED, Ledger

__all__ = ["refuse_other_labels", "write_label_table"]

TABLE = "labels.json"


def write_label_table(folder: Path, scheme: LabelScheme) -> None:
    """Write `labels.json`, for `medseg evaluate`.

    Raises:
        WriteError: disk full or no permission.
    """
    write_text_atomic(folder / TABLE, labels_json(scheme))


def refuse_other_labels(folder: Path, scheme: LabelScheme, ledger: Ledger, cases: Collection[str]) -> None:
    """Refuse a folder where masks of a model with other labels would stay, which `labels.json` would name wrongly.

    Args:
        folder: the output folder.
        scheme: labels of the model.
        ledger: of the folder.
        cases: what this run predicts; their masks are replaced, as another model made them.

    Raises:
        ConfigError: naming what the masks hold and what the model makes.
    """
    before, now = _recorded(folder / TABLE), _labels_of(scheme)
    if before is None or before == now:
        return
    staying = sorted({row.case for row in ledger.rows if row.state in FINISHED} - set(cases))
    if staying:
        raise ConfigError(
            f"{folder} holds masks with the labels {_shown(before)} that would stay, such as {staying[0]}, but this "
            f"model has {_shown(now)}; give another output folder"
        )


def _labels_of(scheme: LabelScheme) -> dict[str, Any]:
    return {n: list(v) if scheme.is_regions else v[0] for n, v in zip(scheme.names, scheme.values, strict=True)}


def _recorded(path: Path) -> dict[str, Any] | None:
    """The labels that the file names; None where there is none, or none that can be read."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return labels if isinstance(labels, dict) else None


def _shown(labels: dict[str, Any]) -> str:
    listed = [f"{name}: {value}" for name, value in labels.items()]
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "")
