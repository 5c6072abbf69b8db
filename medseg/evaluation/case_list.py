"""The CSV of cases: which count, which belong to one patient, and what subgroups they are in."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.config import MOST_LIST_BYTES, read_text
from medseg.errors import DatasetError

__all__ = ["CaseList", "listed", "read_case_list"]

_SHOWN = 8
# Columns of a data set's CSV that say where files lie, not what a case is like.
_NOT_SUBGROUPS = ("case", "group", "patient", "image", "label", "split")


@dataclass(frozen=True, slots=True)
class CaseList:
    """Case -> patient, and case -> column -> value of all other columns (text as it stands in the file)."""

    path: Path
    groups: Mapping[str, str]
    subgroups: Mapping[str, Mapping[str, str]]


def read_case_list(path: Path) -> CaseList:
    """Read the columns `case`, `group` (or `patient`) and all others, which make subgroups.

    Raises:
        DatasetError: no CSV, no column `case`, or a case that is named twice.
    """
    try:
        file = io.StringIO(read_text(path, MOST_LIST_BYTES), newline="")
        rows = [row for row in csv.DictReader(file, restval="") if row.get("case")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as a CSV of cases ({error})") from None
    if not rows:
        raise DatasetError(f"{path}: expected a CSV with a column 'case', and 'group' for cases of one patient")
    names = [row["case"] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DatasetError(f"{path} names {listed(twice, 'case')} more than once; keep one line of each")
    column = next((c for c in ("group", "patient") if c in rows[0]), None)
    others = [c for c in rows[0] if c and c not in _NOT_SUBGROUPS and not c.startswith("image_")]
    return CaseList(
        path,
        {row["case"]: (row[column] if column else "") or row["case"] for row in rows},
        {row["case"]: {c: row[c] for c in others} for row in rows},
    )


def listed(names: Sequence[str], what: str) -> str:
    """'3 cases (a, b, c)'."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''} ({shown})"
