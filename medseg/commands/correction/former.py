"""The run that is corrected: its configuration, data set, splits and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import RunConfig, load_config
from medseg.datasets.cases import Case, Dataset, find_cases
from medseg.errors import ConfigError
from medseg.inference.bundle import Bundle, load_bundle
from medseg.io.formats import is_there
from medseg.plugins import is_plugin
from medseg.preparation.kept_split import split_of_run
from medseg.preparation.sources import Reading, reading_of
from medseg.preparation.split import Split
from medseg.training.run import MODEL

__all__ = ["FormerRun", "former_run"]

# They belong to the correction itself.
_OURS = ("output", "data.split", "data.corrected", "training.init", "training.fold")


@dataclass(frozen=True, slots=True)
class FormerRun:
    """A finished run.

    Args:
        folder: its run folder.
        config: as it is recorded, with settings on top that hold for the training to come.
        dataset: its cases.
        splits: of every fold up to the last one that was trained.
        bundle: its model.
    """

    folder: Path
    config: RunConfig
    dataset: Dataset
    splits: Mapping[int, Split]
    bundle: Bundle

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that were trained."""
        return tuple(sorted(self.bundle.held_folds))

    @property
    def model(self) -> Path:
        """Where the bundle lies."""
        return self.folder / MODEL

    @property
    def reading(self) -> Reading:
        """How its cases are read."""
        return reading_of(self.config.data, self.dataset.labels)

    @property
    def held_out(self) -> dict[int, list[Case]]:
        """Fold -> its validation cases, with their references of before."""
        cases = {case.name: case for case in self.dataset.cases}
        return {fold: [cases[name] for name in self.splits[fold].validation] for fold in self.folds}

    @property
    def own_code(self) -> tuple[str, ...]:
        """The module of the user's own network; a run that the user trained is the user's permission."""
        name = self.config.net.name
        return (name.partition(":")[0],) if is_plugin(name) else ()


def former_run(place: Path, overrides: Mapping[str, Any]) -> FormerRun:
    """Read a run folder.

    Args:
        place: the run folder, or the bundle in it.
        overrides: dotted key -> value, for the training to come; `data.root` where the data have moved.

    Raises:
        ConfigError: no run folder, one without held-out cases, or a setting that the correction makes itself.
        CheckpointError: its model is damaged.
        DatasetError, ReadError: its data set has changed or cannot be read.
    """
    ours = next((key for key in overrides if key in _OURS or key in ("data", "training")), None)
    if ours is not None:
        raise ConfigError(f"{ours} cannot be set here: medseg correct takes it from the run; leave it out")
    folder = place.parent if place.name == MODEL and is_there(place.parent / "config.yaml") else place
    missing = [name for name in ("config.yaml", "plan.yaml", MODEL) if not is_there(folder / name)]
    if missing:
        raise ConfigError(
            f"{folder} is not the folder of a finished training: it has no {' and no '.join(missing)}; give the folder "
            "that medseg train wrote"
        )
    config = load_config(folder / "config.yaml", dict(overrides))
    config = config.model_copy(update={"output": folder})
    bundle = load_bundle(folder / MODEL)
    if bundle.info.folds == "all":
        raise ConfigError(
            f"{folder} was trained on all cases, so no case is held out to judge a new model by; train it with a "
            "fold first (medseg train ... --fold 0)"
        )
    dataset = find_cases(config.data)
    splits = {fold: split_of_run(dataset, config, fold) for fold in range(max(bundle.held_folds) + 1)}
    run = FormerRun(folder, config, dataset, splits, bundle)
    empty = [fold for fold, cases in run.held_out.items() if not cases]
    if empty:
        raise ConfigError(
            f"fold {empty[0]} of {folder} has no held-out case, so nothing can judge a new model; train it with a "
            "split that holds cases out (data.split)"
        )
    return run
