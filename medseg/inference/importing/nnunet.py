"""What a model folder of nnU-Net v2 holds; read as data, never run.

`DatasetNNN_Name/TRAINER__PLANS__CONFIGURATION/` holds `plans.json`, `dataset.json` and `fold_N/checkpoint_final.pth`,
which nnU-Net itself unpickles. Here checkpoints are read by torch's restricted reader with a list of permitted types,
and the pickles beside them are not opened.

Source: nnU-Net 2.8.1, `predict_from_raw_data.py`, `nnUNetTrainer.py`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medseg.errors import CheckpointError
from medseg.inference.bundle_files import open_regular
from medseg.inference.importing.nnunet_plans import Described, described

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Contents", "read_json", "read_model"]

LARGEST_JSON = 64 << 20
LARGEST_CHECKPOINT = 16 << 30
COPIES = re.compile(r"(^|\.)all_modules\.[0-9]+\.|^decoder\.encoder\.")


@dataclass(frozen=True, slots=True)
class Contents:
    """A model folder as it was read.

    Args:
        described: plan, network and labels.
        weights: fold -> state dict; 0 for the fold 'all'.
        hash: SHA-256 of the checkpoints.
        folds: 'all' where that is the only fold, else None; as in a bundle.
        licence: that `dataset.json` states, else 'unknown'.
    """

    described: Described
    weights: Mapping[int, Mapping[str, Tensor]]
    hash: str
    folds: Literal["all"] | None
    licence: str


def read_model(folder: Path, checkpoints: Mapping[str, Path]) -> Contents:
    """What a model folder holds.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        checkpoints: those wanted, as `checkpoints_in` gives them.

    Raises:
        CheckpointError: a model that is damaged, hostile, or of a kind that medseg does not know.
    """
    plans, dataset = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    digest = hashlib.sha256()
    weights: dict[int, dict[str, Tensor]] = {}
    told: list[Described] = []
    for fold, file in checkpoints.items():
        content = _checkpoint(file, digest)
        told.append(_told(plans, dataset, content, folder))
        weights[0 if fold == "all" else int(fold)] = _weights(content, told[-1], file)
    if any(each != told[0] for each in told):
        raise CheckpointError(f"{folder}: its folds are of different networks, labels or mirrorings")
    folds: Literal["all"] | None = "all" if set(checkpoints) == {"all"} else None
    return Contents(told[0], weights, digest.hexdigest(), folds, _licence(dataset))


def _licence(dataset: Mapping[str, Any]) -> str:
    stated = dataset.get("licence") or dataset.get("license")
    return " ".join(stated.split())[:200] if isinstance(stated, str) and stated.strip() else "unknown"


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON file of a model folder.

    Raises:
        CheckpointError: absent, damaged, or larger than 64 MB.
    """
    try:
        with open_regular(path) as file:
            text = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); copy the whole model folder") from None
    if len(text) > LARGEST_JSON:
        raise CheckpointError(f"{path} is larger than {LARGEST_JSON >> 20} MB, as no file of nnU-Net is")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({str(error)[:100]}); copy it again") from None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} is not a file of nnU-Net v2; expected an object with names and values")
    return found


def _checkpoint(path: Path, digest: Any) -> Mapping[str, Any]:
    """A checkpoint, of which only tensors, numbers, texts and lists of them are made."""
    import numpy as np
    import torch
    from numpy._core import multiarray

    permitted: list[Any] = [multiarray.scalar, (multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype]
    permitted += [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            if size > LARGEST_CHECKPOINT:
                raise CheckpointError(f"{path} is larger than {LARGEST_CHECKPOINT >> 30} GB, as no checkpoint is")
            file.seek(0)
            while part := file.read(1 << 20):
                digest.update(part)
            file.seek(0)
            with torch.serialization.safe_globals(permitted), warnings.catch_warnings():
                # A file that is not a checkpoint is refused all the same.
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); copy the whole model folder") from None
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        named = re.search(r"GLOBAL (\S+)", reason)
        why = f"it names {named[1]}, which a checkpoint of nnU-Net does not need" if named else reason[:200]
        raise CheckpointError(f"{path} is damaged or hostile, and nothing in it was run: {why}") from None
    if not isinstance(content, Mapping) or not isinstance(content.get("network_weights"), Mapping):
        raise CheckpointError(f"{path} is not a checkpoint of nnU-Net v2: it has no network_weights")
    return content


def _told(plans: Mapping[str, Any], dataset: Mapping[str, Any], content: Mapping[str, Any], folder: Path) -> Described:
    arguments = content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    mirroring = content.get("inference_allowed_mirroring_axes")
    if not isinstance(configuration, str) or not isinstance(mirroring, tuple | list | None):
        raise CheckpointError(f"{folder}: its checkpoint does not say which configuration of plans.json it is of")
    trainer = str(content.get("trainer_name", ""))
    return described(plans, dataset, configuration, trainer, mirroring, str(folder))


def _weights(content: Mapping[str, Any], told: Described, path: Path) -> dict[str, Tensor]:
    """The weights by our names: nnU-Net stores each layer two to four times, which must not differ."""
    import torch

    from medseg.nets.profile import build_on_meta

    found: dict[str, Any] = {}
    for key, value in content["network_weights"].items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: its network_weights hold {type(value).__name__}, expected tensors")
        found[key.removeprefix("module.").removeprefix("_orig_mod.")] = value.detach()
    wanted = build_on_meta(**told.net.arguments).state_dict()
    missing = sorted(set(wanted) - set(found))
    other = sorted(key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape)
    surplus = sorted(key for key in found.keys() - wanted.keys() if not COPIES.search(key))
    if missing or other or surplus:
        shown = (missing or other or surplus)[0]
        raise CheckpointError(
            f"{path}: its weights are not of the network that plans.json describes (first difference: {shown}); the "
            f"trainer {content.get('trainer_name')!r} may have one of its own, which medseg does not know"
        )
    for key in found.keys() - wanted.keys():
        _same_as_original(key, found, path)
    kept = {key: found[key].contiguous().clone() for key in wanted}
    for key, value in kept.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {key} holds NaN or infinite weights; the training failed")
    return kept


def _same_as_original(key: str, found: Mapping[str, Any], path: Path) -> None:
    import torch

    original = key.removeprefix("decoder.")
    number = re.search(r"all_modules\.([0-9]+)\.", original)
    if number is not None:
        # A layer lists its convolution, then its norm, and then what has no weights.
        original = original.replace(number[0], "conv." if number[1] == "0" else "norm.")
    original = original if original in found else f"decoder.{original}"
    if original not in found or not torch.equal(found[key], found[original]):
        raise CheckpointError(f"{path}: {key} differs from the layer that it is a copy of; the file is damaged")
