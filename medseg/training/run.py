"""`train`: from a configuration to a model bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from medseg.augmentation import SampleAugment
from medseg.config import PostprocessConfig, RunConfig
from medseg.disk.atomic import write_text_atomic
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle import save_bundle
from medseg.inference.bundle_files import INFO, open_regular
from medseg.inference.bundle_info import BundleInfo, NetInfo
from medseg.inference.bundle_json import read_info
from medseg.inference.device import device_memory, resolve_device
from medseg.inference.postprocess import check_postprocess
from medseg.io.formats import is_there
from medseg.labels import check_label_bounds
from medseg.preparation.folder import config_of
from medseg.preparation.kept_split import check_other_folds, fold_folder, keep_split, split_of_run
from medseg.preparation.prepare import Preparation, prepare
from medseg.preparation.run_folder import record_config, recorded_values, refuse_other_data, refuse_other_split
from medseg.preparation.split import Split, fold_numbers
from medseg.preparation.unlabelled import Unlabelled, prepare_unlabelled
from medseg.progress import console_progress
from medseg.tasks.defaults import with_task_defaults
from medseg.training.augmentation_check import check_augmentation, colours_are_shown
from medseg.training.bundle_info import bundle_info
from medseg.training.calibrate import calibrated
from medseg.training.crf_choice import choose_crf
from medseg.training.distributed import Ranks, ranks_of_torchrun
from medseg.training.fine_tuning import check_parts, start_from_init
from medseg.training.fold import Fold, Setup
from medseg.training.kept_labels import grown_net, keep_rows, kept_info, with_kept_labels
from medseg.training.loop import Trained, train_fold
from medseg.training.loss import check_loss, loss_for
from medseg.training.net import describe_net, meta_net_of_any_form, net_info_for
from medseg.training.norm_choice import with_norm
from medseg.training.rehearsal import check_regions, rehearse
from medseg.training.teacher import channel_order, load_teacher, teacher_info
from medseg.training.tensorboard import require_tensorboard
from medseg.training.validation import Scores

__all__ = ["Run", "prepare_run", "train", "train_run"]

_log = logging.getLogger("medseg")
MODEL = "model"
"""Name of the bundle in a run folder."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training.

    Args:
        folder: the run folder.
        bundle: the model, for `medseg.load_model` and `medseg predict`.
        scores: fold -> validation scores (Dice on the images' own grids); {} where `training.fold` is full.
        rank: of this process, where several have trained together.
    """

    folder: Path
    bundle: Path
    scores: Mapping[int, Scores]
    rank: int = 0


def train(
    config: str | Path | RunConfig,
    overrides: Mapping[str, Any] | None = None,
    *,
    fold: int | str | None = None,
    resume: bool = False,
) -> Run:
    """Train a network from a configuration.

    Args:
        config: a YAML file, a folder of data, the name of a preset, or a `RunConfig`.
        overrides: dotted key -> value, on top of the file or folder.
        fold: which fold, "all" of them in turn, or "full": one training on all cases; default `training.fold`.
        resume: continue from the last checkpoint of `output`, or start where there is none.

    Returns:
        The run: folder, model bundle, validation scores.

    Raises:
        ConfigError: an unknown key, net or loss, or an output folder that already holds a training.
        DatasetError, GeometryError, ReadError: a data set that cannot be trained on.
        CheckpointError: a damaged checkpoint, or one of another training; a teacher that is absent or damaged.
        WriteError: disk full or no permission.
        MachineError: too little memory, or another process of the training has ended.

    Example (trains for ten minutes):
        >>> run = medseg.train("configs/lung.yaml", overrides={"training.max_minutes": 10})  # doctest: +SKIP
        >>> model = medseg.load_model(run.bundle)  # doctest: +SKIP
    """
    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("overrides apply to a file or preset; change a RunConfig with model_copy")
        loaded = config
    else:
        loaded = config_of(config, overrides)
    if fold is not None:
        loaded = loaded.model_copy(update={"training": loaded.training.model_copy(update={"fold": fold})})
    return train_run(loaded, resume=resume)


def train_run(config: RunConfig, resume: bool = False, bundle: str = MODEL) -> Run:
    """`train` for a configuration that is loaded already; the same errors.

    Args:
        config: of the run.
        resume: see `train`.
        bundle: name of the bundle in the run folder; another one for a model that still has to prove itself.
    """
    config = with_task_defaults(config)
    with ranks_of_torchrun(config.device) as (ranks, device):
        begun = ranks.from_first(lambda: _begin(config, device, ranks, resume, bundle))
        return _train_folds(begun, device, ranks, resume)


@dataclass(frozen=True, slots=True)
class _Begun:
    """What is known of a run before it trains; `recorded`: the configuration that its folder held before.

    `bundle`: name of the bundle in the run folder.
    """

    config: RunConfig
    preparation: Preparation
    splits: Mapping[int, Split]
    net_info: NetInfo
    recorded: Mapping[str, Any]
    bundle: str
    unlabelled: Unlabelled | None = None


def _begin(config: RunConfig, device: torch.device, ranks: Ranks, resume: bool, bundle: str) -> _Begun:
    """Check everything, prepare the data set, and write the configuration into the run folder."""
    if config.training.logger == "tensorboard":
        require_tensorboard()
    config = with_kept_labels(config)
    kept = kept_info(config)
    _check_names(config)
    output = _output(config)
    config = with_norm(config, output)
    training = config.training
    if training.batch_size is not None:
        ranks.parts(training.batch_size, training.accumulate)
    full = config.training.fold == "full"
    if config.training.fold != "all":
        _refuse_overwriting(fold_folder(output, 0 if config.training.fold == "full" else config.training.fold), resume)
    _refuse_other_kind(output / bundle, full)
    taught = teacher_info(config) if kept is None else kept
    preparation = _prepared(config, device, taught)
    ranks.parts(preparation.plan.batch_size, training.accumulate)
    unlabelled = _unlabelled(config, preparation)
    for finding in (*preparation.findings, *(() if unlabelled is None else unlabelled.findings)):
        _log.info("%s: %s", finding.kind, finding.message)
    if preparation.plan.size is not None:
        _log.info("size %s: %s", preparation.plan.size.name, preparation.plan.size.reason)
    for each in preparation.plan.unmirrored or ():
        _log.info("axis %d is not mirrored: %s", each.axis, each.reason)
    scheme = preparation.dataset.labels
    if taught is not None and config.distill.teacher is not None:
        channel_order(taught.scheme, scheme, config.distill.teacher)
    check_regions(scheme)
    check_label_bounds(scheme.written.mapping)
    rules = config.prediction.postprocess
    if isinstance(rules, PostprocessConfig):
        check_postprocess(rules, scheme)
    numbers = fold_numbers(preparation.dataset, config)
    for number in numbers:
        _refuse_overwriting(fold_folder(output, number), resume)
    mine = {fold_folder(output, number) for number in numbers}
    begun = {path.parent for path in (output / "last.pt", *output.glob("fold*/last.pt")) if is_there(path)}
    if begun:
        # A fold that goes on with another seed is refused by its checkpoint.
        refuse_other_split(output, config, seed_matters=bool(begun - mine))
    check_other_folds(preparation.dataset, config, numbers)
    before = recorded_values(output)
    record_config(output, config)
    splits = {number: split_of_run(preparation.dataset, config, number) for number in numbers}
    if training.patience is not None and not all(split.validation for split in splits.values()):
        raise ConfigError(
            "training.patience counts validations without a better score, but no case is left to validate; leave it "
            "out, or give a split with validation cases"
        )
    net_info = (
        net_info_for(config, preparation.plan, scheme, device.type == "cuda")
        if kept is None
        else grown_net(kept, len(scheme.names))
    )
    _log.info("%s", describe_net(net_info))
    return _Begun(config, preparation, splits, net_info, before, bundle, unlabelled)


def _train_folds(begun: _Begun, device: torch.device, ranks: Ranks, resume: bool) -> Run:
    config, preparation = begun.config, begun.preparation
    output = _output(config)
    if not output.is_dir():
        raise ConfigError(
            f"rank {ranks.rank} does not see {output.resolve()}, which rank 0 has prepared; give an output folder on a "
            "disk that all machines of the training share"
        )
    scheme = preparation.dataset.labels.written
    teacher = load_teacher(config, preparation.plan, scheme, device)
    setup = Setup(config, preparation.plan, scheme, device, ranks, teacher)
    scores: dict[int, Scores] = {}
    for number, split in begun.splits.items():
        fold = Fold(
            number,
            fold_folder(output, number),
            training=[preparation.open(name) for name in split.train],
            validation=[preparation.open(name) for name in split.validation],
            unlabelled=[] if begun.unlabelled is None else begun.unlabelled.open(),
        )
        ranks.from_first(partial(_ready, fold, split, setup, begun, rehearsed=bool(scores)))
        try:
            trained = _train_one(fold, setup, begun, resume)
        except CheckpointError:
            # The folder still belongs to the training that was not resumed.
            write_text_atomic(output / "config.yaml", yaml.safe_dump(dict(begun.recorded), sort_keys=False))
            raise
        ranks.from_first(partial(_finish, trained, fold, setup, begun))
        if config.training.fold != "full":
            scores[number] = trained.scores
    return Run(output, output / begun.bundle, scores, ranks.rank)


def _ready(fold: Fold, split: Split, setup: Setup, begun: _Begun, rehearsed: bool) -> None:
    keep_split(split, _output(setup.config), fold.number)
    if not rehearsed:
        rehearse(begun.net_info.build(), begun.net_info, fold, setup, begun.preparation)


def _train_one(fold: Fold, setup: Setup, begun: _Begun, resume: bool) -> Trained:
    config = setup.config
    torch.manual_seed(config.seed)
    net = begun.net_info.build()
    kept = 0
    if config.training.keep_classes and setup.teacher is not None:
        keep_rows(net, setup.teacher)
        kept = len(setup.teacher.model.scheme.names)
    else:
        start_from_init(net, fold, setup, resume=resume)
    second = None
    if fold.unlabelled and config.semi.method == "cross_pseudo":
        second = begun.net_info.build()  # The generator has gone on, so its weights differ.
        start_from_init(second, fold, setup, resume=True)
    loss = loss_for(config.loss, begun.preparation, net, config.distill, kept)
    title = "train" if config.training.fold == "full" else f"train fold {fold.number}"
    with console_progress(title, enabled=setup.ranks.rank == 0, panel=True) as progress:
        return train_fold(net, loss, fold, setup, resume=resume, progress=progress, second=second)


def _finish(trained: Trained, fold: Fold, setup: Setup, begun: _Begun) -> None:
    """Fit what the configuration asks for on the validation cases of a fold, and write the bundle."""
    config, device, preparation, net_info = setup.config, setup.device, begun.preparation, begun.net_info
    net = net_info.build()
    crf = None
    if config.prediction.crf == "fit":
        net.load_state_dict(trained.weights)
        crf = choose_crf(net.to(device), fold.validation, setup.plan, setup.scheme, device)
    teacher = None if setup.teacher is None else setup.teacher.info
    info = bundle_info(config, preparation, net_info, fold.number, trained, crf, teacher)
    if config.prediction.quality == "calibrate":
        net.load_state_dict(trained.weights)
        names = {case.name for case in fold.validation}
        held_out = [case for case in preparation.dataset.cases if case.name in names]
        info = calibrated(info, net.to(device), device, held_out, config)
    save_bundle(_output(config) / begun.bundle, info, {fold.number: trained.weights})


def prepare_run(config: RunConfig) -> Preparation:
    """Check the data set, plan and store the prepared cases under `config.output`.

    Raises:
        ConfigError: an output folder of another data set.
        DatasetError, GeometryError, ReadError: naming the files and what to do.
    """
    config = with_kept_labels(with_task_defaults(config))
    kept = kept_info(config)
    preparation = _prepared(config, resolve_device(config.device), teacher_info(config) if kept is None else kept)
    unlabelled = _unlabelled(config, preparation)
    if unlabelled is None:
        return preparation
    return replace(preparation, findings=(*preparation.findings, *unlabelled.findings))


def _unlabelled(config: RunConfig, preparation: Preparation) -> Unlabelled | None:
    return None if config.semi.unlabelled is None else prepare_unlabelled(config, preparation)


def _prepared(config: RunConfig, device: torch.device, taught: BundleInfo | None) -> Preparation:
    output = _output(config)
    refuse_other_data(output, config)
    with console_progress("prepare") as progress:
        preparation = prepare(
            config,
            progress=progress,
            memory_gb=config.plan.memory_gb or device_memory(device) / 1e9,
            on_gpu=device.type == "cuda",
            teacher=None if taught is None else taught.plan,
        )
    check_augmentation(
        config.augmentation, preparation.plan, colours=colours_are_shown(config, preparation.fingerprint)
    )
    if not recorded_values(output):
        record_config(output, config)
    return preparation


def _output(config: RunConfig) -> Path:
    return config.output or Path("runs") / "run"


def _refuse_overwriting(folder: Path, resume: bool) -> None:
    if not resume and is_there(folder / "last.pt"):
        raise ConfigError(f"{folder} already holds a training; add --resume to continue, or give another output=FOLDER")


def _refuse_other_kind(bundle: Path, full: bool) -> None:
    """A network trained on all cases and the folds of a cross-validation cannot be one model."""
    if not is_there(bundle / INFO):
        return
    with open_regular(bundle / INFO) as file:
        present, _ = read_info(file, bundle)
    if (present.folds == "all") != full:
        what = "folds" if full else "a network trained on all cases"
        raise ConfigError(
            f"{bundle} already holds {what}, which this training would replace; give another output=FOLDER"
        )


def _check_names(config: RunConfig) -> None:
    """Build net, loss and augmentations without data, so that a wrong name or option shows before any is read."""
    net = meta_net_of_any_form(config)
    check_parts(net, config.training)
    check_loss(config.loss, net)
    SampleAugment(config.augmentation)
