"""Data sets of the benchmarks: cases by patient, folds, and folders of links that hold a part of a data set."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import RunConfig
from medseg.datasets.cases import Case, find_cases
from medseg.preparation.folder import config_for_folder

# The presets of today, for those data sets that one is meant for.
PRESETS = {
    "hippocampus": "hippocampus",
    "lung2d_cxr": "lung2d",
    "lung2d_lungsegdb": "lung2d",
    "tumor3d_lgg": "tumor3d",
    "tumor3d_lidc": "tumor3d",
    "vessel2d_chasedb1": "vessel2d",
    "vessel2d_hrf": "vessel2d",
    "vessel3d_vesselnn": "vessel3d",
}
NAMED_LABELS = {
    "hippocampus": {"anterior": 1, "posterior": 2},
    "vessel2d_chasedb1": {"vessel": 1},
}


@dataclass(frozen=True)
class Data:
    """A data set with an image file and a label file per case.

    Args:
        name: of the data set.
        cases: sorted by name.
        labels: name -> value in the label maps.
        threshold: as `data.label_threshold`.
        pictures: whether the cases are 2D pictures.
    """

    name: str
    cases: tuple[Case, ...]
    labels: dict[str, Any]
    threshold: float | None
    pictures: bool

    def overrides(self) -> dict[str, Any]:
        """The settings that say what the labels mean."""
        return {"data.labels": self.labels, "data.label_threshold": self.threshold}

    def folds(self, count: int) -> list[tuple[list[Case], list[Case]]]:
        """(training cases, held-out cases) of each fold: of the sorted patients, every `count`-th is held out."""
        patients = sorted({patient(case) for case in self.cases})
        parts = []
        for first in range(count):
            held = set(patients[first::count])
            parts.append(
                ([c for c in self.cases if patient(c) not in held], [c for c in self.cases if patient(c) in held])
            )
        return parts


def patient(case: Case) -> str:
    """Whose the case is."""
    return case.group or case.name


def open_data(name: str, root: Path, work: Path) -> Data:
    """The data set in `root / name`; lists that have to be written first go to `work`."""
    folder = (root / name).resolve()
    found: dict[str, Any] = {}
    if name == "vessel2d_chasedb1":
        found["data.csv"] = str(_chase_list(folder, work / f"{name}.csv"))
    if name in NAMED_LABELS:
        found["data.labels"] = NAMED_LABELS[name]
    if name == "vessel2d_chasedb1":
        found["data.label_threshold"] = 127
    config: RunConfig = config_for_folder(folder, found).config
    dataset = find_cases(config.data)
    several = next((c.name for c in dataset.cases if len(c.images) != 1 or len(c.labels) != 1), None)
    if several is not None:
        raise SystemExit(
            f"{several} of {folder} consists of several files; these benchmarks need one image and one mask"
        )
    pictures = not dataset.cases[0].images[0].name.endswith((".nii", ".nii.gz", ".nrrd", ".mha"))
    labels = dict(zip(dataset.labels.names, (v[0] for v in dataset.labels.values), strict=True))
    return Data(name, dataset.cases, labels, config.data.label_threshold, pictures)


def link_cases(cases: Iterable[Case], folder: Path) -> Path:
    """`images/CASE.*` and `labels/CASE.*`, links to the files of the cases; other links there are removed."""
    wanted = {}
    for case in cases:
        wanted[folder / "images" / f"{case.name}{ending(case.images[0])}"] = case.images[0]
        wanted[folder / "labels" / f"{case.name}{ending(case.labels[0].path)}"] = case.labels[0].path
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in (folder / kind).iterdir():
            path.unlink()
    for link, path in wanted.items():
        link.symlink_to(path.resolve())
    return folder


def ending(path: Path) -> str:
    """`.nii.gz`, `.png` and the like."""
    return "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix


def _chase_list(folder: Path, path: Path) -> Path:
    rows: Sequence[Path] = sorted(folder.glob("Image_*.jpg"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("case", "image", "label", "group"))
        for image in rows:
            table.writerow((image.stem, image.name, f"{image.stem}_1stHO.png", image.stem[6:8]))
    return path
