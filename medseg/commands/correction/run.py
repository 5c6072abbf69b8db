"""`medseg correct`: reads corrected masks, measures the edits, trains on, and lets the new model ship or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.commands.correction.edits import LabelEdit, Swap, edits_of, swaps_of
from medseg.commands.correction.files import CorrectedRow, Correction, write_correction
from medseg.commands.correction.former import FormerRun, former_run
from medseg.commands.correction.gate import held_out_scores
from medseg.commands.correction.masks import find_masks
from medseg.commands.correction.matching import CorrectedStudy, LeftOut, Studies, match
from medseg.config import RunConfig
from medseg.datasets.cases import Case, find_cases
from medseg.datasets.corrected import CorrectedCase, Corrections, read_corrections, write_corrections
from medseg.errors import ConfigError, DatasetError, PartialFailure
from medseg.inference.bundle import save_bundle
from medseg.inference.load import load_model
from medseg.inference.predictor import Model
from medseg.io import write
from medseg.io.formats import is_there
from medseg.io.naming import safe_name
from medseg.preparation.sources import read_case
from medseg.studies.selection import channel_names
from medseg.training.run import MODEL, train_run
from medseg.volume import Metadata, Volume

__all__ = ["CorrectOptions", "correct"]

FOLDER = "corrections"
CANDIDATE = "candidate"
REFUSED = "refused_model"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class CorrectOptions:
    """How a run is corrected.

    Args:
        images: further places with the images of corrected masks.
        max_loss: Dice that a label of a held-out case may lose, 0 to 1.
        overrides: settings of the training to come, dotted key -> value.
        allow_swaps: train although labels look swapped.
        accept_unchanged: masks that are as predicted count as looked at and right.
        resume: continue a training that was interrupted.

    Raises:
        ConfigError: a limit out of range.
    """

    images: tuple[Path, ...] = ()
    max_loss: float = 0.05
    overrides: Mapping[str, Any] = field(default_factory=dict)
    allow_swaps: bool = False
    accept_unchanged: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss <= 1:
            raise ConfigError(f"--max-loss is {self.max_loss:g}; expected a loss of Dice from 0 to 1, such as 0.05")


def correct(run: Path, corrected: Path, out: Path, options: CorrectOptions, progress: Progress) -> str:
    """Train a run on with corrected masks.

    Args:
        run: folder of the run.
        corrected: file or folder of corrected masks.
        out: folder of the new run.
        options: see there.
        progress: called as `progress(done, total, text)` while cases are read, predicted and scored.

    Returns:
        A summary for a console.

    Raises:
        ConfigError: no run folder, an output that holds a training, settings that do not fit.
        DatasetError: no mask can be used, or labels look swapped; nothing was trained.
        PartialFailure: the new model does not ship, or it does, but masks were left out.
        CheckpointError, ReadError, GeometryError, WriteError, MachineError: as `train` and `load_model`.
    """
    former = former_run(run, options.overrides)
    _check_output(out, former, options.resume)
    model = load_model(former.model, former.config.device, allow_code=former.own_code)
    found = _read(former, model, corrected, out / FOLDER, options, progress)
    if not found.records:
        write_correction(found.correction, out / FOLDER)
        raise DatasetError(f"no corrected mask in {corrected} can train: {'; '.join(found.correction.lines())}")
    if found.correction.swaps and not options.allow_swaps:
        write_correction(replace(found.correction, state="suspected"), out / FOLDER)
        listed = "; ".join(each.text() for each in found.correction.swaps)
        raise DatasetError(
            f"labels look swapped in {len({each.case for each in found.correction.swaps})} corrected case(s), so "
            f"nothing was trained: {listed}; correct them, or give --allow-swaps if they are right"
        )
    write_correction(found.correction, out / FOLDER)
    _train(former, found.records, out, options.resume)
    scores = held_out_scores(
        (former.model, out / CANDIDATE),
        former.held_out,
        former.reading,
        former.config.device,
        former.own_code,
        progress,
    )
    return _decided(replace(found.correction, held_out=tuple(scores)), out)


def _check_output(out: Path, former: FormerRun, resume: bool) -> None:
    if is_there(out) and is_there(former.folder) and out.resolve() == former.folder.resolve():
        raise ConfigError(f"{out} is the run itself; give a new folder with -o")
    for name in (MODEL, REFUSED):
        if is_there(out / name):
            raise ConfigError(f"{out} already holds a corrected run ({name}); give another folder with -o")
    if not resume and any(is_there(path) for path in (out / "last.pt", *out.glob("fold*/last.pt"))):
        raise ConfigError(f"{out} already holds a training; add --resume to continue it, or give another folder")


@dataclass(frozen=True, slots=True)
class _Found:
    correction: Correction
    records: dict[str, CorrectedCase]


def _read(
    former: FormerRun, model: Model, place: Path, folder: Path, options: CorrectOptions, progress: Progress
) -> _Found:
    """Read, match and measure all masks; those that will train lie in the folder afterwards."""
    scheme = former.dataset.labels
    found = find_masks(place, former.config.data, scheme.written, former.reading)
    channels = channel_names(former.bundle.info.plan)
    studies = Studies(former.dataset, (*options.images, *found.images), channels)
    rows: list[CorrectedRow] = []
    left: list[LeftOut] = []
    edits: list[LabelEdit] = []
    swaps: list[Swap] = []
    records: dict[str, CorrectedCase] = {}
    matched = match(found, studies, former.reading, scheme.written, options.accept_unchanged)
    for number, each in enumerate(matched):
        progress(number, len(found.masks), found.masks[number].names[0])
        if isinstance(each, LeftOut):
            left.append(each)
            continue
        name = each.case.name
        expected = model.predict(each.image)
        before = read_case(each.case, former.reading)[1] if each.of_run else expected
        edits += edits_of(name, before, each.label_map, scheme.written)
        suspected = swaps_of(name, each.label_map, expected, scheme.written)
        swaps += suspected or (swaps_of(name, each.label_map, before, scheme.written) if each.of_run else [])
        trains = not each.of_run or any(name in former.splits[fold].train for fold in former.folds)
        rows.append(CorrectedRow(name, str(each.mask.file), each.matched_by, _role(each, trains)))
        if trains:
            records[name] = _kept(each, folder / "labels")
    progress(len(found.masks), len(found.masks), "")
    unit = "ml" if former.bundle.info.plan.spatial_dims == 3 and former.bundle.info.plan.spacing_mm else "voxels"
    state = Correction(
        "training",
        str(former.folder),
        former.bundle.model_hash,
        options.max_loss,
        unit,
        tuple(rows),
        tuple(left),
        tuple(edits),
        tuple(swaps),
    )
    return _Found(state, records)


def _role(each: CorrectedStudy, trains: bool) -> str:
    return "held out" if not trains else "training" if each.of_run else "new"


def _kept(each: CorrectedStudy, folder: Path) -> CorrectedCase:
    """Write the label map of a case where the training will find it."""
    picture = each.image.dims == 2 and not each.image.spacing_known and each.label_map.array.max(initial=0) < 256
    path = folder / f"{safe_name(each.case.name)}{'.png' if picture else '.nii.gz'}"
    label_map: Volume = replace(each.label_map, metadata=Metadata(), findings=())
    write(label_map, path)
    case: Case = each.case
    if each.of_run:
        return CorrectedCase(case.name, path)
    return CorrectedCase(case.name, path, case.images, case.series, case.group)


def _train(former: FormerRun, records: Mapping[str, CorrectedCase], out: Path, resume: bool) -> None:
    """Train every fold of the run on, from its own weights: those of another fold have seen its held-out cases."""
    before = former.config.data.corrected
    earlier = {} if before is None else {each.name: each for each in read_corrections(before).cases}
    path = out / FOLDER / "cases.json"
    data = former.config.data.model_copy(update={"split": None, "corrected": path})
    config = former.config.model_copy(update={"output": out, "data": data})
    _write_cases(former, {**earlier, **records}, config, path)
    shutil.copyfile(former.folder / "plan.yaml", out / "plan.yaml")
    for fold in former.folds:
        weights = former.model
        if len(former.folds) > 1:
            weights = out / FOLDER / f"before_fold{fold}"
            save_bundle(weights, former.bundle.info, {fold: former.bundle.weights[fold]})
        training = config.training.model_copy(update={"init": weights, "fold": fold})
        begun = is_there((out if fold == 0 else out / f"fold{fold}") / "last.pt")
        train_run(config.model_copy(update={"training": training}), resume=resume and begun, bundle=CANDIDATE)


def _write_cases(former: FormerRun, records: Mapping[str, CorrectedCase], config: RunConfig, path: Path) -> None:
    """Write the list of corrected cases with the run's splits; new cases train where no one of their patient validates.

    Raises:
        DatasetError: a new case is of a patient who validates in every fold.
    """
    known = {case.name for case in former.dataset.cases}
    new = tuple(name for name in records if name not in known)
    splits = [former.splits[fold] for fold in sorted(former.splits)]
    validation = tuple(split.validation for split in splits)
    train = tuple((*split.train, *new) for split in splits)
    write_corrections(Corrections(tuple(records.values()), train, validation), path)
    groups = {case.name: case.group or case.name for case in find_cases(config.data).cases}
    kept = []
    for split in splits:
        held = {groups[name] for name in split.validation}
        kept.append((*split.train, *(name for name in new if groups[name] not in held)))
    out_of_all = [name for name in new if not any(name in kept[fold] for fold in former.folds)]
    if out_of_all:
        raise DatasetError(
            f"{', '.join(out_of_all)}: another case of the same patient is held out to judge the model, so this one "
            "cannot train; take its mask away, or give data.group=none if they are different patients"
        )
    write_corrections(Corrections(tuple(records.values()), tuple(kept), validation), path)


def _decided(correction: Correction, out: Path) -> str:
    """Let the new model ship, or put it aside."""
    worse = correction.worse
    done = replace(correction, state="refused" if worse else "accepted")
    (out / CANDIDATE).rename(out / (REFUSED if worse else MODEL))
    write_correction(done, out / FOLDER)
    text = "\n".join([*done.lines(), f"table and page: {out / FOLDER / 'correction.html'}"])
    if worse:
        names = ", ".join(dict.fromkeys(each.case for each in worse))
        suspects = ", ".join(dict.fromkeys(each.case for each in done.swaps))
        hint = f"; labels look swapped in {suspects}" if suspects else ""
        raise PartialFailure(
            f"the new model does not ship: {len({each.case for each in worse})} held-out case(s) lost more than "
            f"{done.max_loss:g} Dice: {names}{hint}; it lies in {out / REFUSED} for a look\n{text}"
        )
    text += f"\nmodel: {out / MODEL}"
    if done.left_out:
        raise PartialFailure(f"{len(done.left_out)} corrected mask(s) were left out; the model ships\n{text}")
    return text
