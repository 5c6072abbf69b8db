"""`data.corrected`: label maps that came back corrected, for cases of the data set and for further ones.

The file lists them, and the split of each fold, so that the cases that a model before was judged on stay held out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.config import MOST_LIST_BYTES, read_text
from medseg.datasets.records import Case, Layout
from medseg.disk.atomic import write_text_atomic
from medseg.errors import DatasetError
from medseg.io.formats import is_there
from medseg.io.label_maps import LabelSource
from medseg.io.naming import composed

__all__ = ["CorrectedCase", "Corrections", "read_corrections", "with_corrections", "write_corrections"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class CorrectedCase:
    """A case whose label map came back corrected.

    Args:
        name: of the case.
        label: the corrected label map, on the image's grid, with the values of `data.labels`.
        images: a file or study for each channel, of a case that the data set does not have; () of one that it has.
        series: SeriesInstanceUID of the image, where it lies in a DICOM study.
        group: the patient, where the data set states patients.
    """

    name: str
    label: Path
    images: tuple[Path, ...] = ()
    series: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Corrections:
    """Corrected cases, and for each fold the names of the cases that train and that validate."""

    cases: tuple[CorrectedCase, ...]
    train: tuple[tuple[str, ...], ...]
    validation: tuple[tuple[str, ...], ...]


def write_corrections(corrections: Corrections, path: Path) -> None:
    """Write the file that `data.corrected` names.

    Raises:
        WriteError: disk full, no permission.
    """
    cases = [
        {
            "case": each.name,
            "label": str(each.label.resolve()),
            "images": [str(image.resolve()) for image in each.images],
            "series": each.series,
            "group": each.group,
        }
        for each in corrections.cases
    ]
    folds = [
        {"train": train, "validation": validation}
        for train, validation in zip(corrections.train, corrections.validation, strict=True)
    ]
    content = {"format_version": FORMAT_VERSION, "cases": cases, "folds": folds}
    write_text_atomic(path, json.dumps(content, indent=1) + "\n")


def read_corrections(path: Path) -> Corrections:
    """The file that `data.corrected` names.

    Raises:
        DatasetError: a file that is missing or damaged, or written by a newer medseg.
    """
    expected = f"data.corrected: {path}: expected the cases.json of medseg correct"
    try:
        content = json.loads(read_text(path, MOST_LIST_BYTES))
        version = content["format_version"]
        cases = tuple(map(_case, content["cases"]))
        train, validation = (
            tuple(tuple(str(name) for name in fold[side]) for fold in content["folds"])
            for side in ("train", "validation")
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{expected}, which cannot be read ({type(error).__name__})") from None
    if version != FORMAT_VERSION:
        raise DatasetError(f"{expected} of format_version {FORMAT_VERSION}, found {version!r}; update medseg")
    return Corrections(cases, train, validation)


def _case(entry: Mapping[str, Any]) -> CorrectedCase:
    images: Sequence[Any] = entry["images"]
    paths = tuple(Path(str(image)) for image in images)
    return CorrectedCase(
        str(entry["case"]), Path(str(entry["label"])), paths, str(entry["series"]), str(entry["group"])
    )


def with_corrections(layout: Layout, path: Path) -> Layout:
    """The data set with corrected label maps in place of its own, with further cases, and with the split of the file.

    Cases that no fold lists take no part, as before.

    Raises:
        DatasetError: a file or case that is missing.
    """
    corrections = read_corrections(path)
    cases = {composed(case.name): case for case in layout.cases}
    for each in corrections.cases:
        for file in (each.label, *each.images):
            if not is_there(file):
                raise DatasetError(f"{path}: case {each.name!r} needs {file}, which does not exist; bring it back")
        labels = (LabelSource(each.label),)
        known = cases.get(composed(each.name))
        if known is None and not each.images:
            raise DatasetError(f"{path}: case {each.name!r} is not in the data set any more; add it again")
        cases[composed(each.name)] = (
            Case(each.name, each.images, labels, each.group, series=each.series)
            if known is None
            else replace(known, labels=labels)
        )
    listed = {composed(name) for side in (corrections.train, corrections.validation) for fold in side for name in fold}
    kept = tuple(
        replace(case, split="" if composed(case.name) in listed and case.split != "test" else "test")
        for case in cases.values()
    )
    return replace(layout, cases=kept, folds=corrections.validation, train_folds=corrections.train)
