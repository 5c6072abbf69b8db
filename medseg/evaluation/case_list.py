"""The CSV of cases: which count, which belong to one patient, and what subgroups they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError
from medseg.io.case_table import annotated_names, read_case_table
from medseg.io.naming import composed

__all__ = ["CaseList", "listed", "read_case_list"]

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class CaseList:
    """Case -> patient, and case -> column -> value of all other columns (text as it stands in the file).

    `annotated`: case -> names of its annotated labels, where not all are.
    """

    path: Path
    groups: Mapping[str, str]
    subgroups: Mapping[str, Mapping[str, str]]
    annotated: Mapping[str, tuple[str, ...]]


def read_case_list(path: Path) -> CaseList:
    """Read the columns `case`, `group` (or `patient`), `annotated`, and all but those of a data set, for subgroups.

    Raises:
        DatasetError: no CSV, no column `case`, or a case that is named twice.
    """
    table = read_case_table(path)
    rows = [{**row, "case": composed(row["case"])} for _, row in table.rows if row.get("case")]
    if not rows:
        raise DatasetError(
            f"{path}: expected a CSV with a column 'case', and 'group' for cases of one patient{table.meant('case')}"
        )
    names = [row["case"] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DatasetError(f"{path} names {listed(twice, 'case')} more than once; keep one line of each")
    cells = {row["case"]: row.get("annotated", "") for row in rows}
    annotated = {name: annotated_names(cell, f"{path}: case {name!r}") for name, cell in cells.items()}
    return CaseList(
        path,
        {row["case"]: row.get("group") or row["case"] for row in rows},
        {row["case"]: {c: row[c] for c in table.others} for row in rows},
        {name: names for name, names in annotated.items() if names is not None},
    )


def listed(names: Sequence[str], what: str) -> str:
    """'3 cases (a, b, c)'."""
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''} ({shown})"
