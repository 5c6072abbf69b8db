"""`medseg pseudo-label`: from image-level labels or boxes to label maps that a training takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.config import RunConfig
from medseg.datasets.cases import Case
from medseg.errors import ConfigError, DatasetError, WriteError
from medseg.inference.device import resolve_device
from medseg.io import write
from medseg.io.formats import is_there, kind_of
from medseg.nets.classifier import Classifier
from medseg.preparation.sources import reading_of
from medseg.preparation.split import Split, fold_numbers, split_cases
from medseg.progress import console_progress
from medseg.training.weak.boxes import read_boxes
from medseg.training.weak.classifier_file import identity_of_classifier, kept_classifier
from medseg.training.weak.classify import auc_of, drawn_classifier, train_classifier
from medseg.training.weak.dataset import CASES, CONFIG, ignore_value, write_dataset
from medseg.training.weak.image_labels import WeakCases, check_image_labels, find_weak_cases
from medseg.training.weak.makers import BoxMaker, ClassifierMaker, Made, Maker
from medseg.training.weak.pictures import load_pictures, part_of, read_weak_case
from medseg.training.weak.quality import Counts, Row, dice_of_steps, write_quality
from medseg.training.weak.refine import label_map_of, labels_of
from medseg.volume import Volume

__all__ = ["PseudoLabels", "make_pseudo_labels"]

_log = logging.getLogger("medseg")
# Below this area under the ROC curve on held-out images a map is hardly better than a guess.
POOR = 0.75
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Written pseudo-labels.

    Args:
        folder: of the label maps.
        cases: how many.
        auc: label -> area under the ROC curve on held-out images; {} for boxes, None where they all show it or none.
        dice: label -> step -> mean Dice against the masks that the image-level labels were counted from.
    """

    folder: Path
    cases: int
    auc: Mapping[str, float | None]
    dice: Mapping[str, Mapping[str, float]]

    def text(self) -> str:
        """A few lines for people."""
        lines = []
        for label, auc in self.auc.items():
            told = "not known, as all held-out images show it or none does" if auc is None else f"{auc:.3f}"
            lines.append(f"{label}: area under the ROC curve of held-out images {told}")
        for label, steps in self.dice.items():
            each = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in steps.items())
            lines += [f"{label}: mean Dice against the masks after each step: {each}"] if each else []
        lines.append(f"label maps of {self.cases} cases: {self.folder}; their quality: {self.folder / 'quality.csv'}")
        return "\n".join([*lines, f"to train on them: medseg train {self.folder / CONFIG}"])


def make_pseudo_labels(config: RunConfig, folder: Path, overwrite: bool = False) -> PseudoLabels:
    """Learn where labels are, and write label maps.

    The classifier trains on the training cases of the split that `medseg train` would take, and is judged on the
    others. `cases.csv` states the same split, so that no case judges a training that its own label map has taught.

    Args:
        config: `data`, `weak`, `net.dims`, `training`, `seed` and `device` count.
        folder: gets a label map for each case, `cases.csv`, `dataset.json`, `train.yaml`, `quality.csv`, `quality.json`
            and the classifier, which a later call with the same settings for it takes over.
        overwrite: replace pseudo-labels that the folder holds.

    Raises:
        ConfigError: settings that do not fit together, or a folder that holds pseudo-labels.
        DatasetError: a label that no image shows, or every image; boxes outside of their images; missing files.
        ReadError, GeometryError, AnnotationError: files that cannot be read or do not fit together.
        CheckpointError: `training.init` is absent, damaged or does not fit.
        WriteError: disk full, no permission; a folder with files of the data set.
    """
    if is_there(folder / CASES) and not overwrite:
        raise ConfigError(f"{folder} already holds pseudo-labels; give another folder, or --overwrite to replace them")
    found = find_weak_cases(config)
    _refuse_own_folder(found.dataset.cases, folder)
    split = split_cases(found.dataset, config, fold_numbers(found.dataset, config)[0])
    maker, auc = (
        _box_maker(found, config, split) if found.kind == "boxes" else _classifier_maker(found, config, split, folder)
    )
    if is_there(folder):
        (folder / CASES).unlink(missing_ok=True)
    splits = {**dict.fromkeys(split.train, "train"), **dict.fromkeys(split.validation, "validation")}
    writer = _Writer(found, config, folder, maker)
    cases = [case for case in found.dataset.cases if case.name in splits]
    with console_progress("label maps") as progress:
        for number, case in enumerate(cases):
            writer.write(case, splits[case.name])
            progress(number + 1, len(cases), case.name)
    names = found.dataset.labels.names
    write_quality(folder, writer.rows, {"source": found.kind, "auc_of_held_out_images": auc})
    write_dataset(folder, found.dataset, writer.files, splits, config)
    _warn_of_empty(writer.rows, names)
    dice = {name: dice_of_steps(writer.rows, name) for name in names}
    return PseudoLabels(folder, len(cases), auc, dice)


class _Writer:
    """Writes the label maps of cases, and keeps a row of each for the table of quality."""

    def __init__(self, found: WeakCases, config: RunConfig, folder: Path, maker: Maker) -> None:
        self._found, self._config, self._folder, self._maker = found, config, folder, maker
        self._reading = reading_of(config.data, found.dataset.labels)
        self._ignore = ignore_value(found.dataset.labels)
        self.files: dict[str, str] = {}
        self.rows: list[Row] = []

    def write(self, case: Case, split: str) -> None:
        """The label map of a case."""
        scheme = self._found.dataset.labels
        image, labels = read_weak_case(case, self._reading)
        array = np.zeros(image.shape, np.min_scalar_type(max(*scheme.painted, self._ignore)))
        counts = {name: Counts() for name in scheme.names}
        truth = labels if self._found.kind == "masks" else None
        for made in self._maker.images(case.name, image, labels):
            part = part_of(array, made.index)
            if made.shown is None:
                part[...] = self._ignore
            if made.steps is None or made.allowed is None:
                continue
            certainty = self._config.weak.certainty
            part[made.place] = label_map_of(made.steps.last, made.allowed, scheme.painted, self._ignore, certainty)
            self._count(made, counts, None if truth is None else part_of(truth.array, made.index)[made.place])
        suffix = ".png" if image.dims == 2 and kind_of(case.images[0]) == "raster" else ".nii.gz"
        self.files[case.name] = f"{case.name}{suffix}"
        write(Volume(array, image.affine, spacing_known=image.spacing_known), self._folder / self.files[case.name])
        ignored = float(np.mean(array == self._ignore))
        for name, value in zip(scheme.names, scheme.painted, strict=True):
            counts[name].voxels = int((array == value).sum())
            self.rows.append(Row(case.name, split, name, counts[name], ignored))

    def _count(self, made: Made, counts: Mapping[str, Counts], truth: NDArray[np.integer] | None) -> None:
        assert made.steps is not None and made.allowed is not None and made.shown is not None
        scheme = self._found.dataset.labels
        taken = {name: labels_of(odds, made.allowed) for name, odds in made.steps.log_odds.items()}
        for n, (name, value) in enumerate(zip(scheme.names, scheme.painted, strict=True), start=1):
            if name not in made.shown:
                continue
            counts[name].images += 1
            if made.probabilities is not None:
                counts[name].probability += made.probabilities[name]
            each = {step: labels == n for step, labels in taken.items()}
            counts[name].add_steps(each, None if truth is None else truth == value)


def _classifier_maker(
    found: WeakCases, config: RunConfig, split: Split, folder: Path
) -> tuple[Maker, dict[str, float | None]]:
    """Train the classifier on the training cases, and judge it on the others."""
    scheme, names = found.dataset.labels, found.dataset.labels.names
    device = resolve_device(config.device)
    with console_progress("read") as progress:
        pictures = load_pictures(found, config, progress)
    training = [picture for picture in pictures if picture.case in split.train]
    first = pictures[0]
    what = "slices" if first.index is not None else "volumes" if first.image.ndim == 4 else "images"
    check_image_labels(names, [picture.shown for picture in training], what)
    count = len({picture.case for picture in training})
    _log.info("the classifier learns from %d %s of %d cases", len(training), what, count)

    def train() -> Classifier:
        with console_progress("classifier") as progress:
            return train_classifier(training, names, config, device, progress, mirrored=not scheme.sides)

    identity = identity_of_classifier(training, names, config)
    net = kept_classifier(folder, identity, drawn_classifier(first, len(names), config), train).to(device).eval()
    held_out = [picture for picture in pictures if picture.case in split.validation]
    auc = dict(zip(names, auc_of(net, held_out, names, device), strict=True))
    poor = [name for name, value in auc.items() if value is not None and value < POOR]
    if poor:
        _log.warning(
            "on held-out images the classifier hardly recognises %s; the label maps are likely to be wrong: give more "
            "images, more time, or boxes",
            ", ".join(poor),
        )
    return ClassifierMaker(net, pictures, scheme, config, device), auc


def _box_maker(found: WeakCases, config: RunConfig, split: Split) -> tuple[Maker, dict[str, float | None]]:
    """Read the boxes, and look at all of them before anything is written."""
    scheme = found.dataset.labels
    cases = [case for case in found.dataset.cases if case.split != "test"]
    source = None
    if config.weak.boxes is not None:
        source = read_boxes(config.weak.boxes, [case.name for case in found.dataset.cases], scheme)
    maker = BoxMaker(source, scheme, config)
    reading = reading_of(config.data, scheme)
    labels: set[str] = set()
    without = []
    with console_progress("boxes") as progress:
        for number, case in enumerate(cases):
            boxes = maker.boxes_of(case.name, *read_weak_case(case, reading))
            labels |= {box.label for box in boxes} if case.name in split.train else set()
            without += [] if boxes else [case.name]
            progress(number + 1, len(cases), case.name)
    missing = [name for name in scheme.names if name not in labels]
    if missing:
        raise DatasetError(
            f"no case that trains has a box of label {missing[0]!r}, so nothing can be learned of it; add boxes, or "
            "take it out of data.labels"
        )
    if without:
        more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
        _log.warning(
            "%d of %d cases have no box and become background: %s%s; take them out where labels were not looked for",
            len(without),
            len(cases),
            ", ".join(without[:_SHOWN]),
            more,
        )
    return maker, {}


def _refuse_own_folder(cases: Sequence[Case], folder: Path) -> None:
    """Refuse to write among the files that are read: a label map could take the place of one."""
    out = folder.resolve()
    for case in cases:
        for path in (*case.images, *(label.path for label in case.labels)):
            if path.resolve().parent == out:
                raise WriteError(f"cannot write into {folder}: it holds {path}, which is read; give another folder")


def _warn_of_empty(rows: Sequence[Row], names: Sequence[str]) -> None:
    for name in names:
        empty = [row.case for row in rows if row.label == name and row.counts.images and not row.counts.voxels]
        if empty:
            more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
            _log.warning(
                "%d cases show %s, but their label maps hold no voxel of it: %s%s",
                len(empty),
                name,
                ", ".join(empty[:_SHOWN]),
                more,
            )
