"""`net.norm: auto`, decided before the network is built: batch norm where the initial weights bring its statistics."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from medseg.config import RunConfig
from medseg.io.formats import is_there
from medseg.nets import NETS
from medseg.nets.pretrained_keys import candidates
from medseg.preparation.run_folder import recorded_values
from medseg.training.init_weights import initial_names
from medseg.training.net import meta_net_of_any_form

__all__ = ["with_norm"]


def with_norm(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with 'batch', or None for the network's own, in place of `net.norm: auto`.

    A run that has begun goes on as its `config.yaml` says; runs older than these choices had the network's own norm
    and updated its statistics.

    Args:
        config: of the training that is to begin or to go on.
        folder: the run folder.

    Raises:
        CheckpointError: where `training.init` is absent, damaged, or contains no weights.
        ConfigError: for options that do not fit the network.
    """
    before = recorded_values(folder) if _has_begun(folder) else {}
    if before and "batch_statistics" not in _part(before, "training"):
        training = config.training
        if training.batch_statistics == "auto":
            training = training.model_copy(update={"batch_statistics": "updated"})
        config = config.model_copy(update={"training": training})
    if config.net.norm != "auto":
        return config
    if before:
        recorded = _part(before, "net").get("norm")
        norm = recorded if recorded in ("instance", "batch", "group", "none") else None
    else:
        norm = "batch" if _brings_statistics(config) else None
    return config.model_copy(update={"net": config.net.model_copy(update={"norm": norm})})


def _has_begun(folder: Path) -> bool:
    return any(is_there(path) for path in (folder / "last.pt", *folder.glob("fold*/last.pt")))


def _part(values: dict[str, Any], name: str) -> dict[str, Any]:
    part = values.get(name)
    return part if isinstance(part, dict) else {}


def _brings_statistics(config: RunConfig) -> bool:
    """Whether the initial weights hold running statistics that the network has a place for with batch norm."""
    name, init = config.net.name, config.training.init
    if init is None or name not in NETS or "norm" not in inspect.signature(NETS[name]).parameters:
        return False
    statistics = [each for each in initial_names(init) if each.endswith("running_mean")]
    if not statistics:
        return False
    with_batch = config.model_copy(update={"net": config.net.model_copy(update={"norm": "batch"})})
    own = meta_net_of_any_form(with_batch).state_dict().keys()
    return any(candidate in own for each in statistics for candidate in candidates(each))
