"""`training.keep_classes`: labels are added to a trained network, which keeps those that it has."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from medseg.config import RunConfig
from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle import load_bundle
from medseg.inference.bundle_info import BundleInfo, NetInfo
from medseg.inference.importing.cache import as_bundle
from medseg.training.teacher import Teacher

__all__ = ["grown_net", "keep_rows", "kept_info", "set_apart", "with_kept_labels"]

_log = logging.getLogger("medseg")
# Of the old network in the loss, where the configuration names no weight: with 0.5 the old labels lose.
WEIGHT = 0.9


def kept_info(config: RunConfig) -> BundleInfo | None:
    """`model.json` of the model whose labels are kept; None where none are.

    Raises:
        CheckpointError: a bundle that is absent or damaged, or a file of another kind.
        ConfigError: a teacher beside it, or regions.
    """
    init = config.training.init
    if not config.training.keep_classes or init is None:
        return None
    if config.distill.teacher is not None:
        raise ConfigError("training.keep_classes makes training.init the teacher; leave distill.teacher out")
    try:
        info = load_bundle(as_bundle(init)).info
    except CheckpointError as error:
        raise CheckpointError(f"training.init: {error}; training.keep_classes needs a model bundle") from None
    if info.plan.crop != "none":
        raise ConfigError(
            f"training.keep_classes: {init} crops images to their nonzero voxels, as models of nnU-Net do, which no "
            "training here does; fine-tune it by training.init alone"
        )
    if info.scheme.is_regions:
        raise ConfigError(f"training.keep_classes: {init} finds regions; labels can be added to plain labels only")
    return info


def with_kept_labels(config: RunConfig) -> RunConfig:
    """The configuration with the labels that the model has, and the weight that its lessons get; itself without
    `training.keep_classes`.

    Labels of the model that `data.labels` does not name are added and count as annotated in no case. They keep their
    values, but for one that another label of the data set has.

    Raises:
        CheckpointError, ConfigError: as `kept_info`; no label that would be new.
    """
    info = kept_info(config)
    if info is None:
        return config
    given = dict(config.data.labels or {})
    old = {name: values[0] for name, values in zip(info.scheme.names, info.scheme.values, strict=True)}
    if any(not isinstance(value, int) for value in given.values()):
        raise ConfigError("training.keep_classes: data.labels names regions; labels can be added to plain labels only")
    new = {name: value for name, value in given.items() if name not in old and value != 0}
    if not new:
        raise ConfigError(
            f"training.keep_classes adds labels to those of training.init ({', '.join(old)}), but data.labels names "
            "no other one"
        )
    taken = {value for value in given.values() if isinstance(value, int)}
    labels: dict[str, Any] = {}
    for name, value in old.items():
        if name in given:
            labels[name] = given[name]
            continue
        free = value if value not in taken else next(n for n in range(1, 1 << 16) if n not in taken | {*old.values()})
        if free != value:
            _log.info("label %s has the value %d in new masks, as the data set uses %d", name, free, value)
        labels[name] = free
        taken.add(free)
    lacking = [name for name in old if name not in given]
    annotated = config.data.annotated or ({"*": tuple(name for name in given if given[name] != 0)} if lacking else {})
    update = {"labels": {**labels, **new}, "annotated": annotated, "taught": tuple(old)}
    distill = config.distill
    if "weight" not in distill.model_fields_set:
        distill = distill.model_copy(update={"weight": WEIGHT})
    return config.model_copy(update={"data": config.data.model_copy(update=update), "distill": distill})


def grown_net(info: BundleInfo, labels: int) -> NetInfo:
    """The model's network for `labels` labels and the background."""
    return info.net.model_copy(update={"out_channels": labels + 1})


def keep_rows(net: nn.Module, teacher: Teacher) -> None:
    """Give the new network the old one's weights, layers of all labels included.

    A new label begins as the background does, whose probability they share, so that the network finds at first what the
    old one found (Cermelli et al., CVPR 2020, section 3.3).

    Args:
        net: of `grown_net`, changed in place.
        teacher: the old network, whose first fold is taken.

    Raises:
        CheckpointError: where the last layer is not one that grows with the labels.
    """
    import torch

    held = teacher.model.modules[0].state_dict()
    old = teacher.model.info.net.out_channels
    grown = {}
    for name, value in net.state_dict().items():
        before = held.get(name)
        if before is None or before.shape[1:] != value.shape[1:]:
            raise CheckpointError(
                f"training.keep_classes: the layer {name} of training.init does not grow with the labels"
            )
        if before.shape != value.shape:
            if before.shape[0] != old:
                raise CheckpointError(
                    f"training.keep_classes: the layer {name} of training.init does not grow with the labels"
                )
            added = len(value) - old
            before = torch.cat([before, before[:1].expand(added, *before.shape[1:])])
            if before.dim() == 1:
                before = before.clone()
                share = torch.log(torch.tensor(1.0 + added))
                before[0] -= share
                before[old:] -= share
        grown[name] = before.to(value.dtype)
    net.load_state_dict(grown)


def set_apart(net: nn.Module, teacher: Teacher) -> None:
    """Give the rows of the background and the new labels, which `keep_rows` made alike, small random differences.

    While the rows are the same, no weight below the last layer changes what tells a new label from the background, and
    training gets nowhere. The differences are those of a new layer and add up to 0, so that to the first order the
    network finds what it found before.

    Args:
        net: as `keep_rows` left it, changed in place.
        teacher: the old network.
    """
    import torch

    old = teacher.model.info.net.out_channels
    held = teacher.model.modules[0].state_dict()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.dim() < 2 or held[name].shape == value.shape:
                continue
            rows = torch.tensor([0, *range(old, len(value))], device=value.device)
            apart = torch.randn(len(rows), *value.shape[1:], device=value.device) / value[0].numel() ** 0.5
            value[rows] += apart - apart.mean(dim=0)
