"""Which labels each image shows, as a table, folders or label maps say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.config import DataConfig, RunConfig
from medseg.datasets.cases import Case, Dataset, find_cases
from medseg.datasets.patients import find_patients
from medseg.disk.directory_walk import is_hidden
from medseg.errors import ConfigError, DatasetError
from medseg.io.case_table import CaseTable, read_case_table
from medseg.io.formats import image_files, stem_of
from medseg.io.naming import file_named
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint
from medseg.preparation.unlabelled import find_unlabelled

__all__ = ["NEGATIVE", "Shown", "WeakCases", "check_image_labels", "find_weak_cases", "kind_of_source", "table_path"]

NEGATIVE = ("normal", "negative", "healthy", "background", "none")
"""Names of folders of images that show no label."""
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_SPLITS = {"": "", "train": "train", "training": "train", "val": "validation", "validation": "validation"}

Shown = Mapping[int | None, frozenset[str]]
"""Slice along the last axis, or None for the whole image -> names of the labels that it shows."""


@dataclass(frozen=True, slots=True)
class WeakCases:
    """The cases, and what is known of each.

    Args:
        dataset: of cases that may have no label file.
        kind: table, folders, masks or boxes.
        shown: case -> what it shows; {} where label maps or boxes say it.
    """

    dataset: Dataset
    kind: str
    shown: Mapping[str, Shown]


def find_weak_cases(config: RunConfig) -> WeakCases:
    """The cases of a configuration, with the image-level labels that tables and folders give.

    Raises:
        ConfigError: if `data.labels` is missing, or labels are regions.
        DatasetError: a missing column, file or folder, or a cell that is neither 0 nor 1.
    """
    kind = kind_of_source(config)
    if kind == "masks" or (kind == "boxes" and config.weak.boxes is None):
        dataset = find_cases(config.data)
        _refuse_regions(dataset.labels)
        return WeakCases(dataset, kind, {})
    scheme = _scheme(config.data)
    if kind == "boxes":
        return WeakCases(_dataset(_images(config.data), scheme, config.data), kind, {})
    cases, shown = _from_table(config.data, scheme) if kind == "table" else _from_folders(config.data, scheme)
    return WeakCases(_dataset(cases, scheme, config.data), kind, shown)


def kind_of_source(config: RunConfig) -> str:
    """`weak.source`, where it is auto what the data are."""
    if config.weak.boxes is not None:
        return "boxes"
    if config.weak.source != "auto":
        return config.weak.source
    names = {name.casefold() for name in config.data.labels or {}}
    table = table_path(config.data)
    if table is not None:
        columns = read_case_table(table)
        if "label" not in columns.columns and names & {name.casefold() for name in columns.others}:
            return "table"
    root = config.data.root
    folders = {p.name.casefold() for p in root.iterdir() if p.is_dir()} if root.is_dir() else set()
    return "folders" if names and names & folders else "masks"


def check_image_labels(labels: Sequence[str], shown: Sequence[frozenset[str]], what: str) -> None:
    """Refuse image-level labels from which no classifier can learn where a label is.

    Args:
        labels: names of all labels.
        shown: names of the labels that each image that trains shows.
        what: what each of them is, for messages: images, slices or volumes.

    Raises:
        DatasetError: for a label that no image shows, or that every image shows.
    """
    for name in labels:
        count = sum(name in each for each in shown)
        if not count:
            raise DatasetError(
                f"none of the {len(shown)} {what} that train shows label {name!r}, so nothing can be learned of it; "
                "add images that show it, or take it out of data.labels"
            )
        if count == len(shown):
            slices = "; give net.dims=2 to let each slice count by itself" if what == "volumes" else ""
            raise DatasetError(
                f"all {count} {what} that train show label {name!r}, but a classifier learns where a label is only "
                f"from images with and without it{slices}; add images without it, or give boxes (--boxes) or scribbles"
            )


def table_path(data: DataConfig) -> Path | None:
    """The table of cases: `data.csv`, else the only CSV of the folder; None where there is none."""
    if data.csv is not None:
        return next((path for path in (data.csv, data.root / data.csv) if path.is_file()), None)
    files = sorted(data.root.glob("*.csv")) if data.root.is_dir() else []
    return files[0] if len(files) == 1 else None


def _dataset(cases: Sequence[Case], scheme: LabelScheme, data: DataConfig) -> Dataset:
    if not cases:
        raise DatasetError(f"{data.root} contains no images; check data.root")
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{data.root}: two cases are called {twice!r}; give each a unique name")
    patients = find_patients(tuple(sorted(cases, key=lambda case: case.name)), data.group)
    modality = data.modality
    channels = () if modality is None else (modality,) if isinstance(modality, str) else modality
    return Dataset(patients.cases, scheme, channels, findings=patients.findings, patients_found=patients.found)


def _scheme(data: DataConfig) -> LabelScheme:
    if data.labels is None:
        raise ConfigError(
            "data.labels is not given; write e.g. data.labels='{tumour: 1}': the names of columns, folders or boxes, "
            "and the value that each gets in the label maps"
        )
    scheme = LabelScheme.from_mapping(data.labels, data.ignore)
    _refuse_regions(scheme)
    return scheme


def _refuse_regions(scheme: LabelScheme) -> None:
    if scheme.is_regions:
        raise ConfigError("pseudo-labels need labels with one value each; data.labels gives several to one (regions)")


def _images(data: DataConfig) -> Sequence[Case]:
    """Images to which boxes belong: listed by a table, or those of a folder."""
    path = table_path(data)
    if path is not None and {"case", "image"} <= {*(table := read_case_table(path)).columns}:
        return [_case(row, ["image"], f"{path} line {line}", data, path.parent) for line, row in table.rows]
    return find_unlabelled(data.root, "data.root")


def _from_table(data: DataConfig, scheme: LabelScheme) -> tuple[list[Case], dict[str, Shown]]:
    path = table_path(data)
    if path is None:
        asked = f"data.csv: {data.csv} does not exist" if data.csv else f"{data.root} does not have exactly one CSV"
        raise DatasetError(f"{asked}; give the table of image-level labels as data.csv=FILE")
    table = read_case_table(path)
    images = [name for name in table.columns if name.startswith("image")]
    columns = {name: _column(name, table) for name in scheme.names}
    if "case" not in table.columns or not images:
        raise DatasetError(
            f"{path} has no column {'image' if 'case' in table.columns else 'case'}; expected case, image (or "
            f"image_<channel>), and one column of 0 and 1 for each of {', '.join(scheme.names)}"
        )
    sliced = next((name for name in table.others if name.casefold() == "slice"), None)
    cases: dict[str, Case] = {}
    shown: dict[str, dict[int | None, frozenset[str]]] = {}
    for line, row in table.rows:
        where = f"{path} line {line}"
        case = _case(row, images, where, data, path.parent)
        labels = frozenset(
            name for name, column in columns.items() if _is_yes(row[column], f"{where}, column {column}")
        )
        known = shown.setdefault(case.name, {})
        index = _slice(row[sliced], where) if sliced else None
        if index in known:
            which = "" if index is None else f", slice {index}"
            raise DatasetError(f"{where}: case {case.name!r}{which} is listed twice; keep one line")
        if cases.setdefault(case.name, case) != case:
            raise DatasetError(f"{where}: case {case.name!r} has other files, group or split than in the lines before")
        known[index] = labels
    return list(cases.values()), {**shown}


def _case(row: Mapping[str, str], images: Iterable[str], where: str, data: DataConfig, beside: Path) -> Case:
    name = row["case"]
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise DatasetError(f"{where}: {name[:120]!r} is not a name for a case; expected text without slashes")
    split = row.get("split", "").lower()
    if split not in (*_SPLITS, "test"):
        raise DatasetError(f"{where}: case {name!r} has split {split!r}; expected train, validation, test or nothing")
    files = tuple(_existing(row[column], data.root, beside, f"{where}, column {column}") for column in images)
    return Case(name, files, (), row.get("group", ""), _SPLITS.get(split, split))


def _slice(cell: str, where: str) -> int:
    if not cell.isdecimal():
        raise DatasetError(f"{where}, column slice, holds {cell[:60]!r}; expected the slice's number, counted from 0")
    return int(cell)


def _column(name: str, table: CaseTable) -> str:
    match = next((each for each in table.others if each.strip().casefold() == name.casefold()), None)
    if match is None:
        raise DatasetError(
            f"{table.path} has no column {name!r} with the image-level label of that name; found "
            f"{', '.join((*table.columns, *table.others))}{nearest_hint(name, table.others)}"
        )
    return match.strip()


def _is_yes(cell: str, where: str) -> bool:
    if cell.casefold() not in (*_YES, *_NO):
        raise DatasetError(f"{where} holds {cell[:60]!r}; expected 1 where the image shows the label, else 0")
    return cell.casefold() in _YES


def _existing(text: str, root: Path, beside: Path, where: str) -> Path:
    found = next((f for folder in (root, beside) if text and (f := file_named(folder / text)) is not None), None)
    if found is None:
        raise DatasetError(
            f"{where}: expected {root / text[:200]}, which does not exist; add the file or correct the path"
        )
    return found


def _from_folders(data: DataConfig, scheme: LabelScheme) -> tuple[list[Case], dict[str, Shown]]:
    if not data.root.is_dir():
        raise DatasetError(
            f"data.root: {data.root} is not a folder; give the folder that holds one folder for each label"
        )
    folders = sorted(path for path in data.root.iterdir() if path.is_dir() and not is_hidden(path))
    by_name = {name.casefold(): name for name in scheme.names}
    cases: list[Case] = []
    shown: dict[str, Shown] = {}
    for folder in folders:
        name = folder.name.casefold()
        if name not in by_name and name not in NEGATIVE:
            raise DatasetError(
                f"the folder {folder} is neither a label ({', '.join(scheme.names)}) nor one for images without any "
                f"({', '.join(NEGATIVE)}); rename or move it{nearest_hint(folder.name, scheme.names)}"
            )
        for path in image_files(folder):
            # Pictures in two folders may have one name.
            case = Case(f"{folder.name}_{stem_of(path)}", (path,), ())
            cases.append(case)
            shown[case.name] = {None: frozenset([by_name[name]] if name in by_name else [])}
    return cases, shown
