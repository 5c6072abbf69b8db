"""A task of TotalSegmentator as a model made of parts; networks are converted once and kept in a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.config import PostprocessConfig
from medseg.disk.atomic import write_error
from medseg.disk.caches import cache_folder
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_files import INFO
from medseg.inference.bundle_parts import CompositeInfo, CropInfo, SourceInfo, WorkingGrid
from medseg.inference.composites.loading import load_members
from medseg.inference.importing.totalsegmentator.network import dataset_labels, write_network
from medseg.inference.importing.totalsegmentator.tasks import Task, labels_of_dataset, tasks
from medseg.inference.importing.totalsegmentator.weights import model_folder, weights_folder
from medseg.inference.predictor import Model
from medseg.lookup import nearest_hint
from medseg.version import __version__

__all__ = ["load_task"]


def load_task(name: str, weights: str | Path | None, load: Callable[[Path], Model], roi: Sequence[str] = ()) -> Model:
    """The model of a task; only networks that find a wanted label are converted and loaded.

    Args:
        name: of the task.
        weights: the folder of the weights; None: TotalSegmentator's own.
        load: loads a bundle.
        roi: the labels that are wanted; () for all.

    Raises:
        ConfigError: a label that the task does not have, or a task that this medseg cannot run.
        CheckpointError: weights that are absent, damaged or unknown.
        WriteError: a cache that cannot be written.
    """
    task, folder = tasks()[name], weights_folder(weights)
    if task.crop == "unknown":
        raise ConfigError(
            f"totalsegmentator:{name} crops the image around a structure that this medseg does not know; give another "
            "task, or TotalSegmentator itself"
        )
    folders = {f"part{number}": model_folder(folder, number, task) for number in task.datasets}
    held = {each: _labels(place, number) for (each, place), number in zip(folders.items(), task.datasets, strict=True)}
    labels = _whole(task, held)
    wanted = {label: value for label, value in labels.items() if not roi or label in roi}
    if missing := [label for label in roi if label not in labels]:
        raise ConfigError(
            f"totalsegmentator:{name} has no label {missing[0][:80]!r}; its labels are {', '.join(labels)}"
            f"{nearest_hint(missing[0], tuple(labels))}"
        )
    needed = [each for each in folders if not wanted.keys().isdisjoint(held[each])]
    bundles = {each: _cached(folders[each], held[each], task) for each in needed}
    crop = None
    if task.crop is not None:
        rough = tasks()[task.crop.task]
        place = model_folder(folder, rough.datasets[0], rough)
        found = _labels(place, rough.datasets[0])
        bundles = {"rough": _cached(place, found, rough), **bundles}
        crop = CropInfo(member="rough", labels=task.crop.labels, grid=_grid(rough), margin_mm=task.crop.margin_mm)
    info = CompositeInfo(
        kind="parts",
        labels=dict(wanted),
        members=tuple(bundles),
        source=SourceInfo(kind="totalsegmentator", licence=task.licence),
        weight_license=task.licence,
        grid=_grid(task),
        crop=crop,
        postprocess=PostprocessConfig(
            keep_components={label: 1 for label in task.keep_largest if label in wanted},
            minimum_volume_ml={label: ml for label, ml in task.smallest_ml.items() if label in wanted},
        ),
    )
    members = [(each, load(bundles[each])) for each in info.members]
    return load_members(f"totalsegmentator:{name}", info, info.to_json().encode(), members, dict(wanted))


def _grid(task: Task) -> WorkingGrid | None:
    return None if task.spacing_mm is None else WorkingGrid(spacing_mm=task.spacing_mm, order=1, whole_numbers=True)


def _labels(folder: Path, number: int) -> dict[str, int]:
    """The labels of a folder by the names of its task: those of its `dataset.json`, if the table knows no others."""
    found, known = dataset_labels(folder), labels_of_dataset(number)
    if not known:
        return found
    if len(found) != len(known):
        raise CheckpointError(
            f"{folder / 'dataset.json'} names {len(found)} labels, but data set {number} of TotalSegmentator has "
            f"{len(known)}; these are other weights"
        )
    return {name: value for value, name in enumerate(known, 1)}


def _whole(task: Task, held: dict[str, dict[str, int]]) -> dict[str, int]:
    """The labels of all parts, numbered through; those of one part keep their values."""
    names = dict.fromkeys(name for labels in held.values() for name in labels)
    return {name: value for value, name in enumerate(names, 1)}


def _cached(folder: Path, labels: dict[str, int], task: Task) -> Path:
    """The bundle of a model folder in the cache; written where it is not there yet."""
    digest = hashlib.sha256(f"{__version__} {task.step} {task.folds} {task.air} {labels}".encode())
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".pth") and path.is_file()):
        state = file.stat()
        digest.update(f"\n{file.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    target = cache_folder() / "totalsegmentator" / f"{folder.parent.name}-{digest.hexdigest()[:16]}"
    if not (target / INFO).is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(target.parent, error) from error
        write_network(folder, target, labels, task)
    return target
