"""How a training starts from weights: what it loads, what is frozen, whose batch statistics are kept."""

from __future__ import annotations

import copy
import logging

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.config import TrainingConfig
from medseg.errors import ConfigError
from medseg.lookup import nearest_hint
from medseg.nets.frozen_batch_norm import freeze_batch_norm
from medseg.preparation.plan import Plan
from medseg.training.fold import Fold, Setup
from medseg.training.init_weights import initialise, kept_report, show_and_keep
from medseg.training.optimizer import is_in
from medseg.volume import Finding

__all__ = ["ENOUGH_SAMPLES", "check_parts", "freeze", "start_from_init"]

_log = logging.getLogger("medseg")
# From this batch size on, batch norm trains well (Wu and He, Group Normalization, ECCV 2018, figure 1).
ENOUGH_SAMPLES = 8


def check_parts(net: nn.Module, training: TrainingConfig) -> None:
    """Refuse `training.frozen` and `training.layer_rates` that name no part of the network.

    Raises:
        ConfigError: naming the nearest part, and those that there are.

    Example:
        >>> check_parts(nn.Sequential(nn.Conv2d(1, 2, 3)), TrainingConfig(layer_rates={"0": 0.1}))
    """
    weights = [name for name, _ in net.named_parameters()]
    parts = {name.rsplit(".", n)[0] for name in weights for n in range(name.count(".") + 1)}
    for key, names in (("frozen", training.frozen), ("layer_rates", tuple(training.layer_rates))):
        wrong = next((name for name in names if name not in parts), None)
        if wrong is not None:
            largest = dict.fromkeys(name.partition(".")[0] for name in weights)
            raise ConfigError(
                f"training.{key} names {wrong!r}, but no weight of the network lies there; its parts are "
                f"{', '.join(largest)}{nearest_hint(wrong, sorted(parts))}"
            )
    if training.frozen and all(any(is_in(name, part) for part in training.frozen) for name in weights):
        raise ConfigError("training.frozen names all of the network, so nothing would be trained; leave its head out")


def start_from_init(net: nn.Module, fold: Fold, setup: Setup, *, resume: bool) -> None:
    """Give a new network the weights of `training.init`, and freeze what the configuration or a small batch asks for.

    Args:
        net: changed in place.
        fold: its folder keeps the report on the weights, unless a training in it is resumed.
        setup: configuration and plan.
        resume: whether a checkpoint in the folder is resumed, whose weights will replace these.

    Raises:
        CheckpointError: for weights that are absent or damaged, and where nothing fits.
        ConfigError: for statistics that cannot be frozen, or a batch of one sample that batch norm cannot take.
    """
    training = setup.config.training
    with_statistics: set[str] = set()
    if training.init is not None:
        begun = resume and (fold.folder / "last.pt").exists()
        # The checkpoint holds the weights, and their file may be gone.
        report = kept_report(fold.folder) if begun else None
        if report is None:
            report = initialise(net, training.init)
        if not begun and setup.ranks.rank == 0:
            show_and_keep(report, training.init, fold.folder)
        ending = ".running_mean"
        with_statistics = {name.removesuffix(ending) for name in report.loaded if name.endswith(ending)}
    for finding in freeze(net, training, setup.plan, with_statistics):
        _log.info("%s: %s", finding.kind, finding.message)


def freeze(net: nn.Module, training: TrainingConfig, plan: Plan, with_statistics: set[str]) -> list[Finding]:
    """Freeze parts of a network, and batch statistics.

    Args:
        net: changed in place.
        training: `frozen` and `batch_statistics`.
        plan: its batch and patch.
        with_statistics: names of the batch norms whose statistics came with the initial weights.

    Returns:
        What the user should know about batch norm with this batch.

    Raises:
        ConfigError: for statistics to be frozen that did not come with the initial weights, or a batch of one sample
            of which batch norm cannot compute any.
    """
    for name, parameter in net.named_parameters():
        if any(is_in(name, part) for part in training.frozen):
            parameter.requires_grad_(False)
    norms = [name for name, module in net.named_modules() if isinstance(module, _BatchNorm)]
    kept = [name for name in norms if name in with_statistics]
    if training.batch_statistics == "frozen" and not kept:
        raise ConfigError(
            "training.batch_statistics is frozen, but the network has no batch norm whose statistics came with "
            "training.init; leave it out, or give net.norm=batch and weights that hold running statistics"
        )
    small = plan.batch_size < ENOUGH_SAMPLES
    keep = training.batch_statistics == "frozen" or (training.batch_statistics == "auto" and small)
    frozen = {name for name in norms if (keep and name in kept) or any(is_in(name, part) for part in training.frozen)}
    for name in frozen:
        freeze_batch_norm(net, name)
    updated = [name for name in norms if name not in frozen]
    if plan.batch_size == 1 and updated:
        _require_statistics(net, plan)
    # Statistics that the user wants updated need no remark.
    fresh = [name for name in updated if name not in with_statistics]
    return _findings(plan.batch_size, len(frozen), len(fresh)) if small else []


def _findings(batch: int, frozen: int, fresh: int) -> list[Finding]:
    said = []
    size = (
        f"a batch has {batch} sample{'s' if batch > 1 else ''}, fewer than the {ENOUGH_SAMPLES} that batch norm needs"
    )
    if frozen:
        said.append(
            f"{size}, so {frozen} batch norm{'s keep' if frozen > 1 else ' keeps'} the running statistics of "
            f"training.init; with training.batch_size={ENOUGH_SAMPLES} they are updated"
        )
    if fresh:
        said.append(
            f"{size}, and {fresh} of the network's batch norms begin{'' if fresh > 1 else 's'} without statistics; "
            f"training.batch_size={ENOUGH_SAMPLES} or net.norm=instance may learn better"
        )
    return [Finding("small_batch", each) for each in said]


def _require_statistics(net: nn.Module, plan: Plan) -> None:
    """Refuse a batch of one sample where a map of one voxel leaves a batch norm a single value per channel."""
    trial = copy.deepcopy(net).train()
    try:
        with torch.no_grad():
            trial(torch.zeros(1, plan.in_channels, *plan.patch_size))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "training.batch_size is 1, of which batch norm cannot compute statistics where a map of the network has "
            "one voxel; give training.batch_size=2 or more, or net.norm=instance"
        ) from None
