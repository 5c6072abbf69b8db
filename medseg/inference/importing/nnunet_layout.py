"""How the networks of an nnU-Net folder make one model: alone, as stages of a cascade, or as an ensemble.

`plans.json` names the stage before a configuration. Which configurations are averaged stands in
`inference_information.json`, as nnUNetv2_find_best_configuration leaves it in the folder of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.errors import CheckpointError
from medseg.inference.importing.nnunet import read_json
from medseg.inference.importing.nnunet_folders import checkpoints_in, models_in
from medseg.inference.importing.nnunet_plans import configuration_of
from medseg.inference.importing.nnunet_postprocessing import postprocessing_file

__all__ = ["Layout", "layout_of"]

INFORMATION = "inference_information.json"
MOST_STAGES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """A model in a folder of nnU-Net.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION` of a single network, of the last stage of a cascade, or the folder that
            holds the members of an ensemble.
        kind: as of a bundle.
        members: of a cascade its stages in order, of an ensemble its models; () of a single network.
        postprocessing: the file with the rules for its masks, where there is one.
    """

    folder: Path
    kind: Literal["single", "cascade", "ensemble"] = "single"
    members: tuple[Layout, ...] = ()
    postprocessing: Path | None = None

    def files(self) -> Iterator[Path]:
        """All files that decide what the model is."""
        if self.postprocessing is not None:
            yield self.postprocessing
        for member in self.members:
            yield from member.files()
        if self.kind == "single":
            yield from (self.folder / "plans.json", self.folder / "dataset.json")
            yield from checkpoints_in(self.folder).values()


def layout_of(source: Path) -> Layout:
    """The model in a folder: `TRAINER__PLANS__CONFIGURATION`, or one above it.

    Raises:
        CheckpointError: no model or several that nothing chooses among; a stage that is missing; a pickle where rules
            for masks should stand.
    """
    found = models_in(source)
    if len(found) == 1:
        return _staged(found[0])
    for folder in {path.parent for path in found}:
        if (folder / INFORMATION).is_file():
            return _recommended(folder)
    stages = {stage.name for path in found for stage in _stages(path)[:-1]}
    last = [path for path in found if path.name not in stages]
    if len(last) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise CheckpointError(
            f"{source} holds {len(found)} models of nnU-Net ({names}); give the folder of one of them, and others by "
            "--ensemble"
        )
    return _staged(last[0])


def _staged(folder: Path) -> Layout:
    stages = _stages(folder)
    rules = postprocessing_file(folder, checkpoints_in(folder))
    if len(stages) == 1:
        return Layout(folder, postprocessing=rules)
    # What nnU-Net hands on to the next stage is not post-processed.
    return Layout(folder, "cascade", (*map(Layout, stages[:-1]), Layout(folder, postprocessing=rules)))


def _stages(folder: Path) -> list[Path]:
    """The folders of the stages before a model's and its own."""
    stages = [folder]
    while True:
        plans = read_json(stages[0] / "plans.json")
        start, _, name = stages[0].name.rpartition("__")
        known = plans.get("configurations")
        if not isinstance(known, Mapping) or name not in known:
            # The checkpoint, which is read later, says which configuration it is.
            return stages
        previous = configuration_of(plans, name, f"{stages[0]}: plans.json").get("previous_stage")
        if not previous:
            return stages
        before = stages[0].parent / f"{start}__{previous}"
        if not isinstance(previous, str) or Path(previous).name != previous or len(stages) >= MOST_STAGES:
            raise CheckpointError(f"{folder}: plans.json names {str(previous)[:100]!r} as the stage before {name!r}")
        if before not in _models_at(before):
            raise CheckpointError(
                f"{folder} is a stage of a cascade and needs the model {before.name} beside it, which is missing; copy "
                "it there, or give the folder of the data set that holds both"
            )
        stages.insert(0, before)


def _models_at(folder: Path) -> list[Path]:
    """`models_in` of a folder that may be missing."""
    return models_in(folder) if folder.is_dir() else []


def _recommended(folder: Path) -> Layout:
    """The model, or ensemble of models, that nnU-Net found to be the best one."""
    path = folder / INFORMATION
    best = read_json(path).get("best_model_or_ensemble")
    chosen = best.get("selected_model_or_models") if isinstance(best, Mapping) else None
    if not isinstance(chosen, Sequence) or not chosen or not all(isinstance(each, Mapping) for each in chosen):
        raise CheckpointError(f"{path} does not say which model is the best one; give the folder of one model")
    names = [_folder_name(each, path) for each in chosen]
    for name in names:
        if not _models_at(folder / name):
            raise CheckpointError(f"{path} names the model {name}, which is missing beside it; copy it there")
    if len(names) == 1:
        return _staged(folder / names[0])
    members = tuple(_staged(folder / name) for name in names)
    ensembles = sorted((folder / "ensembles").glob("ensemble___*")) if (folder / "ensembles").is_dir() else []
    own = [each for each in ensembles if each.name.split("___")[1:-1] == names]
    rules = postprocessing_file(own[0]) if own else None
    return Layout(folder, "ensemble", tuple(map(_without_rules, members)), rules)


def _without_rules(layout: Layout) -> Layout:
    """A member of an ensemble, of whose masks none is written."""
    return Layout(layout.folder, layout.kind, tuple(map(_without_rules, layout.members)))


def _folder_name(chosen: Mapping[str, Any], path: Path) -> str:
    parts = [chosen.get(key) for key in ("trainer", "plans_identifier", "configuration")]
    name = "__".join(map(str, parts))
    if not all(isinstance(part, str) for part in parts) or Path(name).name != name:
        raise CheckpointError(
            f"{path} names {name[:200]!r}, which is not the folder of a model; give the folder of one model"
        )
    return name
