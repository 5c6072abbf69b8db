"""What the cases of a site are grouped by: scanner, kernel, slice thickness and the further columns of a list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from medseg.datasets.csv_layout import case_list_in
from medseg.datasets.records import Case
from medseg.errors import DatasetError
from medseg.io.case_table import read_case_table
from medseg.io.dicom.acquisition import acquisition_of
from medseg.io.formats import kind_of
from medseg.io.naming import composed
from medseg.volume import Volume

__all__ = ["attributes_of", "grouped", "listed_attributes"]

_THICKNESS = frozenset({"slice thickness", "slice spacing"})
_THIN, _THICK = 1.5, 3.0
_MOST_VALUES = 8


def listed_attributes(root: Path, table: Path | None) -> dict[str, dict[str, str]]:
    """Case -> column -> text, of a list of cases: the given one, or the one that lists the data set.

    Raises:
        DatasetError: a file that is not such a list.
    """
    path = table or (case_list_in(root) if root.is_dir() else None)
    if path is None:
        return {}
    found = read_case_table(path)
    if "case" not in found.columns:
        raise DatasetError(f"{path} has no column case; expected one that names the cases, and further columns")
    return {
        composed(row["case"]): {_name(column): row[column] for column in found.others if row.get(column)}
        for _, row in found.rows
    }


def attributes_of(case: Case, image: Volume, listed: Mapping[str, str]) -> dict[str, str]:
    """What is known of one case; a column of the list goes before what the DICOM headers say.

    Args:
        case: of the data set.
        image: as read.
        listed: its columns in the list of cases.
    """
    path = case.images[0]
    known = acquisition_of(path, case.series) if path.is_dir() or kind_of(path) == "dicom" else {}
    if "slice thickness" not in {*known, *listed} and image.dims == 3 and image.spacing_known:
        known["slice spacing"] = f"{max(image.spacing_mm):g}"
    return {**known, **listed}


def grouped(cases: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Attributes with few values each, per case; and which of them are left out, having too many.

    Thickness becomes thin, medium or thick; other numbers with more than 8 values are split at their median.
    """
    result: list[dict[str, str]] = [{} for _ in cases]
    left_out = []
    for name in dict.fromkeys(name for case in cases for name in case):
        texts = [case.get(name, "").strip() for case in cases]
        numbers = [_number(text) for text in texts]
        known = [number for number in numbers if number is not None]
        all_numbers = len(known) == sum(bool(text) for text in texts)
        if name in _THICKNESS and all_numbers:
            texts = ["" if number is None else _thickness(number) for number in numbers]
        elif len({*texts} - {""}) > _MOST_VALUES:
            if not all_numbers:
                left_out.append(name)
                continue
            middle = median(known)
            texts = ["" if n is None else f"up to {middle:g}" if n <= middle else f"over {middle:g}" for n in numbers]
        for found, text in zip(result, texts, strict=True):
            found[name] = text
    return result, tuple(left_out)


def _thickness(number: float) -> str:
    if number <= _THIN:
        return f"up to {_THIN:g} mm"
    return f"over {_THIN:g} to {_THICK:g} mm" if number <= _THICK else f"over {_THICK:g} mm"


def _name(column: str) -> str:
    return " ".join(column.strip().lower().replace("_", " ").split())


def _number(text: str) -> float | None:
    try:
        value = float(text.removesuffix("mm"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
