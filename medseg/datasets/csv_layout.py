"""Data sets listed in a CSV: `case,image[,image_<channel>...],label,group,split,annotated`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.config import DataConfig
from medseg.datasets.records import Case, Layout
from medseg.errors import DatasetError
from medseg.io.case_table import CaseTable, annotated_names, is_case_table, read_case_table
from medseg.io.label_maps import LabelSource
from medseg.io.naming import file_named
from medseg.volume import Finding

__all__ = ["case_list_in", "csv_layout"]

_SPLITS = {
    "": "",
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


def csv_layout(data: DataConfig) -> Layout:
    """The cases that a CSV lists.

    Columns: `case`, `image` and/or one `image_<channel>` per channel, `label`; optional `group` (the patient) and
    `split` (train, validation or test), `annotated` (names of the labels that are annotated in the case, joined by `;`;
    nothing: all). A label is a file, or several `file:value` joined by `;`. Paths are relative to `data.root` or to the
    CSV. Test cases need no label. Column names count in any case, `patient`, `subject` or
    `PatientID` as `group`; other columns are reported as a finding. See `read_case_table` for delimiters and encodings.

    Raises:
        DatasetError: if the CSV, a column or a file is missing, a cell is empty, or a split is unknown.
    """
    table = read_case_table(_csv_path(data))
    path, columns = table.path, table.columns
    images = [c for c in columns if c.startswith("image")]
    missing = [c for c in ("case", "label") if c not in columns] + ([] if images else ["image"])
    if missing:
        raise DatasetError(
            f"{path} has no column {', '.join(missing)}; expected case,image,label (image_<channel>, group, split, "
            f"annotated), found {','.join((*columns, *table.others)) or 'nothing'}{table.meant(missing[0])}"
        )
    cases = tuple(_case(row, images, f"{path} line {n}", data.root, path.parent) for n, row in table.rows)
    channels = tuple(c.removeprefix("image_") for c in images) if images != ["image"] else ()
    return Layout("csv", cases, channel_names=channels, findings=_unused(table))


def _unused(table: CaseTable) -> tuple[Finding, ...]:
    if not table.others:
        return ()
    message = f"columns of {table.path} that say nothing about the data set are not used: {table.unused()}"
    return (Finding("unused_columns", message, (str(table.path),)),)


def case_list_in(root: Path) -> Path | None:
    """The CSV that lists the cases of a folder: the only one with the columns case, image and label, else None.

    Raises:
        DatasetError: if several CSV files have these columns.
    """
    found = [path for path in sorted(root.glob("*.csv")) if is_case_table(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DatasetError(
            f"{root} contains {len(found)} CSV files that list cases: {names}; choose one with data.csv=FILE"
        )
    return found[0] if found else None


def _csv_path(data: DataConfig) -> Path:
    if data.csv is not None:
        found = next((p for p in (data.csv, data.root / data.csv) if p.is_file()), None)
        if found is None:
            raise DatasetError(f"data.csv: {data.csv} does not exist, neither here nor in {data.root}")
        return found
    files = sorted(data.root.glob("*.csv"))
    tables = [path for path in files if is_case_table(path)]
    files = tables if len(tables) == 1 else files
    if len(files) != 1:
        names = ", ".join(f.name for f in files) or "none"
        raise DatasetError(f"{data.root} should have one CSV that lists the cases, found {names}; name it in data.csv")
    return files[0]


def _case(row: Mapping[str, str], images: list[str], where: str, root: Path, beside: Path) -> Case:
    name = row["case"]
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise DatasetError(f"{where}: {name[:120]!r} is not a name for a case; expected text without slashes")
    split = row.get("split", "").lower()
    if split not in _SPLITS:
        raise DatasetError(f"{where}: case {name!r} has split {split!r}; expected train, validation, test or nothing")
    is_test = _SPLITS[split] == "test"
    empty = next((c for c in (*images, *(() if is_test else ("label",))) if not row[c]), None)
    if empty is not None:
        raise DatasetError(f"{where}: case {name!r} has nothing in column {empty}; give a file or remove the line")
    found = tuple(_existing(row[c], root, beside, f"{where}: case {name!r}, column {c}") for c in images)
    labels = tuple(
        _label(part.strip(), root, beside, f"{where}: case {name!r}, column label")
        for part in row["label"].split(";")
        if part.strip()
    )
    if not labels and not is_test:
        raise DatasetError(f"{where}: case {name!r} has no file in column label")
    annotated = annotated_names(row.get("annotated", ""), f"{where}: case {name!r}, column annotated")
    return Case(name, found, labels, row.get("group", ""), _SPLITS[split], annotated=annotated)


def _label(text: str, root: Path, beside: Path, where: str) -> LabelSource:
    file, colon, value = text.rpartition(":")
    if not (colon and value.strip().isdecimal()):
        return LabelSource(_existing(text, root, beside, where))
    if len(value.strip()) > 10 or int(value) >= 2**32:
        raise DatasetError(f"{where}: {text[:120]!r} has a value above {2**32 - 1}, the largest that a label can have")
    if int(value) == 0:
        raise DatasetError(f"{where}: {text!r} paints background; expected file:value with a value of 1 or more")
    return LabelSource(_existing(file.strip(), root, beside, where), int(value))


def _existing(text: str, root: Path, beside: Path, where: str) -> Path:
    for folder in (root, beside):
        found = file_named(folder / text)
        if found is not None:
            return found
    raise DatasetError(f"{where}: expected {root / text[:200]}, which does not exist; add the file or correct the path")
