"""The end of a training, rehearsed before its first step: whatever fails without trained weights fails at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from torch import nn

from medseg.config import PostprocessConfig
from medseg.disk.atomic import write_text_atomic
from medseg.disk.temporary import temporary_folder
from medseg.errors import ConfigError, WriteError
from medseg.inference.bundle import save_bundle
from medseg.inference.bundle_info import NetInfo
from medseg.inference.load import load_by
from medseg.inference.load_options import LoadOptions
from medseg.io import write
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.io.label_names import labels_json, read_label_names
from medseg.labels import LabelScheme
from medseg.metrics import score_case
from medseg.preparation.prepare import Preparation
from medseg.preparation.store import PreparedCase
from medseg.training.bundle_info import bundle_info
from medseg.training.fold import Fold, Setup
from medseg.training.loop import Trained
from medseg.training.validation import Scores
from medseg.volume import Volume

__all__ = ["check_regions", "rehearse"]


def check_regions(scheme: LabelScheme) -> None:
    """Refuse regions that no mask can represent.

    Raises:
        ConfigError: for two regions with the same values, or more combinations than a label map can represent.

    Example:
        >>> check_regions(LabelScheme.from_mapping({"whole": [1, 2], "core": [2]}))
    """
    for (first, mine), (second, theirs) in combinations(zip(scheme.names, scheme.values, strict=True), 2):
        if set(mine) == set(theirs):
            raise ConfigError(f"the regions {first!r} and {second!r} have the same values {mine}; remove one of them")
    _ = scheme.written


def rehearse(net: nn.Module, net_info: NetInfo, fold: Fold, setup: Setup, preparation: Preparation) -> None:
    """Write the bundle of an untrained network, predict a part of one case with it, and write, read and score a mask.

    The part is at most one patch, so that it takes no longer than a training step. All files are temporary.

    Args:
        net: as it will be trained; not changed.
        net_info: how the bundle describes it.
        fold: of its cases, the first is used.
        setup: configuration, plan, labels and device.
        preparation: the data set.

    Raises:
        MedsegError: what would have failed after the training.
    """
    scheme = setup.scheme
    untrained = Trained(net.state_dict(), 0, 0.0, Scores(0.0, {}, 0), PostprocessConfig(), {})
    teacher = None if setup.teacher is None else setup.teacher.info
    info = bundle_info(setup.config, preparation, net_info, fold.number, untrained, teacher=teacher)
    image = _part((*fold.training, *fold.validation)[0], setup)
    own_code = (net_info.name.partition(":")[0],) if ":" in net_info.name else ()
    with temporary_folder() as folder:
        bundle = save_bundle(folder / "model", info, {fold.number: untrained.weights})
        model = load_by(bundle, LoadOptions(str(setup.device), allow_code=own_code))
        mask = model.predict(image)
        _check_mask(mask, model.scheme, folder)
    if model.scheme != scheme:
        raise WriteError(f"the bundle describes the labels {model.scheme.mapping}, expected {scheme.mapping}")


def _part(case: PreparedCase, setup: Setup) -> Volume:
    """At most one patch from the middle of a case, on the network's grid."""
    shape = case.image.shape[1:]
    # A network of slices takes one of a volume.
    patch = (*setup.plan.patch_size, *[1] * (len(shape) - len(setup.plan.patch_size)))
    start = [max(0, (n - p) // 2) for n, p in zip(shape, patch, strict=True)]
    inside = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
    array = np.array(case.image[(slice(None), *inside)])
    known = setup.plan.spacing_mm is not None
    affine = np.diag([*case.spacing_mm, *[1.0] * (4 - len(case.spacing_mm))])
    return Volume(array, affine if known else np.eye(4), channels=len(array), spacing_known=known)


def _check_mask(mask: Volume, scheme: LabelScheme, folder: Path) -> None:
    """Write the mask, with each value in it that a mask can have, and read and score it as `evaluate` does."""
    array = mask.array.astype(scheme.dtype)
    values: Sequence[int] = sorted(scheme.known_values - {*scheme.ignored})[: array.size]
    array.reshape(-1)[: len(values)] = values
    path = folder / ("mask.nii.gz" if mask.dims == 3 or max(values) > 255 else "mask.png")
    write(replace(mask, array=array), path)
    write_text_atomic(folder / "labels.json", labels_json(scheme))
    found, names = read_label_map([LabelSource(path)]), read_label_names(folder / "labels.json")
    if names != scheme or not np.array_equal(found.array, array):
        raise WriteError(
            f"a mask of the labels {scheme.mapping} does not read back as it was written: expected the values "
            f"{_shown(array)}, found {_shown(found.array)} with the labels {names.mapping}"
        )
    scores = score_case(found.array, array, spacing_mm=found.spacing_mm, labels=names, metrics=("dice",))
    # Without a voxel of it, a label has no Dice.
    wrong = [name for name in scheme.names if scheme.mask(array, name).any() and scores[name]["dice"] != 1.0]
    if wrong:
        raise WriteError(f"a mask scored against itself has a Dice below 1 for {', '.join(wrong)}")


def _shown(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    values = np.unique(array)
    return ", ".join(map(str, values[:8].tolist())) + (", ..." if len(values) > 8 else "")
