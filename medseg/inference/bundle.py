"""The model bundle: a folder, or one zip of it, that holds all that prediction needs, and no code.

model.json                  labels, plan, net, prediction defaults, provenance, scores, source, licences
weights_fold{N}.safetensors one per fold; of an exported model network_fold{N}.onnx, or .xml and .bin
README.md                   model card
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.disk.atomic import atomic_folder
from medseg.errors import CheckpointError
from medseg.inference.bundle_files import (
    FOLD_FILES,
    FOLD_NAMES,
    INFO,
    MEND,
    WEIGHTS,
    BundleFiles,
    bundle_files,
    open_regular,
    refuse_foreign,
)
from medseg.inference.bundle_info import MOST_FOLDS, BundleInfo
from medseg.inference.bundle_json import read_info
from medseg.inference.device import CPU, device_memory
from medseg.inference.exporting.files import StoredNetwork, partner, read_network
from medseg.inference.model_card import model_card

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Bundle", "load_bundle", "read_bundle", "save_bundle"]

Expected = Callable[[BundleFiles, BundleInfo], "Mapping[str, Tensor] | None"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory.

    Args:
        path: where it was read from.
        info: contents of `model.json`; one of format_version 1 is upgraded, see `bundle_upgrade`.
        weights: fold -> state dict on the CPU; {} of an exported model.
        model_hash: SHA-256 of `model.json` and weights or networks as they lie there.
        networks: fold -> network, of an exported model.

    Example:
        >>> load_bundle("runs/lung/model").weights.keys()
        dict_keys([0])
    """

    path: Path
    info: BundleInfo
    weights: dict[int, dict[str, Tensor]]
    model_hash: str
    networks: dict[int, StoredNetwork] = field(default_factory=dict)

    @property
    def held_folds(self) -> set[int]:
        """The numbers of its folds; 0 for a network trained on all cases."""
        return {*self.weights, *self.networks}


def save_bundle(folder: str | Path, info: BundleInfo, weights: Mapping[int, Mapping[str, Tensor]]) -> Path:
    """Write a bundle folder; readers see the old one or the new one, never a mixture.

    Folds that the folder already holds stay where `info` describes the same model (labels, plan, net, windows) and
    `weights` does not bring them anew; scores, and what was fitted on validation cases, are then joined. A folder of
    another model is replaced.

    Args:
        folder: the bundle, e.g. `runs/lung/model`.
        info: contents of `model.json`.
        weights: fold -> state dict.

    Returns:
        The folder.

    Raises:
        WriteError: disk full, no permission, or a folder that holds something else than a bundle.
        CheckpointError: if there are no weights.

    Example:
        >>> bundle = load_bundle("runs/lung/model")
        >>> save_bundle("runs/copy", bundle.info, bundle.weights).name
        'copy'
    """
    target = Path(folder)
    files = {f"weights_fold{fold}.safetensors": _encode(state) for fold, state in weights.items()}
    if not files:
        raise CheckpointError(f"{target}: a bundle needs the weights of at least one fold")
    refuse_foreign(target)
    kept: list[Path] = []
    if (target / INFO).is_file():
        with open_regular(target / INFO) as file:
            present, _ = read_info(file, target)
        if present.same_model(info):
            kept = [f for f in sorted(target.iterdir()) if WEIGHTS.fullmatch(f.name) and f.name not in files]
            joined = info.prediction.joined(present.prediction) if kept else info.prediction
            info = info.model_copy(update={"scores": {**present.scores, **info.scores}, "prediction": joined})
    if info.folds != "all":
        present_folds = {int(found[1]) for f in kept if (found := WEIGHTS.fullmatch(f.name))}
        info = info.model_copy(update={"folds": tuple(sorted({*weights, *present_folds}))})
    stored = info.network.model_copy(update={"precision": _precision(weights.values())})
    info = info.model_copy(update={"network": stored})
    with atomic_folder(target, overwrite=True) as fresh:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        for each in kept:
            with open_regular(each) as source, (fresh / each.name).open("wb") as copy:
                shutil.copyfileobj(source, copy)
        (fresh / INFO).write_text(info.to_json(), encoding="utf-8")
        (fresh / "README.md").write_text(model_card(info, [*files, *(f.name for f in kept)]), encoding="utf-8")
    return target


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle: its folder, a zip of it, or a run folder that holds it as `model/`.

    No code is run. Weights are read after their header was compared with the network that `model.json` names, built
    without memory; with that of a network that is not part of medseg, only `load_model` compares them. Networks of an
    exported model are read, and opened by `load_model` alone.

    Raises:
        CheckpointError: missing, damaged, hostile, or written by a newer medseg.

    Example:
        >>> load_bundle("runs/lung/model").info.scheme.names
        ('lung', 'tumour')
    """
    from medseg.inference.bundle_nets import catalogue_weights

    return read_bundle(Path(path), lambda files, info: catalogue_weights(path, info))


def read_bundle(place: Path, expected: Expected) -> Bundle:
    """`load_bundle`, asking what the weights are to be before they are read.

    Args:
        place: the bundle.
        expected: called with the open bundle and its `model.json`: names, shapes and types of the weights; None where
            they are not known, as those inside of an exported network.

    Raises:
        CheckpointError: as `load_bundle`; what `expected` raises.
    """
    with bundle_files(place) as files:
        if INFO not in files.names:
            raise CheckpointError(f"{place} is not a model bundle: it contains no {INFO}")
        with files.open(INFO) as (file, _):
            info, content = read_info(file, place)
        stored = info.network.format
        what = "weights" if stored == "safetensors" else "networks"
        found = {int(m[1]): name for name in files.names if (m := FOLD_FILES[stored].fullmatch(name))}
        if not found:
            raise CheckpointError(f"{place}: no {FOLD_NAMES[stored].format(0)} or other fold beside {INFO}; {MEND}")
        promised = (0,) if info.folds == "all" else info.folds
        if promised is not None and tuple(sorted(found)) != tuple(sorted(promised)):
            raise CheckpointError(
                f"{place} holds {what} of the folds {_listed(found)}, but {INFO} names {_listed(promised)}; {MEND}"
            )
        if len(found) > MOST_FOLDS:
            raise CheckpointError(f"{place} holds {what} of {len(found)} folds; expected {MOST_FOLDS} at most")
        names = [name for each in found.values() for name in (each, *partner(each))]
        if missing := sorted(set(names) - set(files.names)):
            raise CheckpointError(f"{place}: {missing[0]} is missing beside {INFO}; {MEND}")
        size = sum(_size(files, name) for name in names)
        if size > (memory := device_memory(CPU)):
            raise CheckpointError(
                f"{place} holds {size / 1e9:.1f} GB of {what}, this machine has {memory / 1e9:.1f} GB of memory"
            )
        wanted = expected(files, info)
        digest = hashlib.sha256(content)
        weights, networks = {}, {}
        for fold, name in sorted(found.items()):
            digest.update(name.encode())
            if stored == "safetensors":
                weights[fold] = _read_weights(files, name, f"{place}: {name}", info, wanted, digest.update)
            else:
                networks[fold] = read_network(files, name, place, digest.update)
    return Bundle(place, info, weights, digest.hexdigest(), networks)


def _size(files: BundleFiles, name: str) -> int:
    with files.open(name) as (_, size):
        return size


def _read_weights(
    files: BundleFiles,
    name: str,
    where: str,
    info: BundleInfo,
    wanted: Mapping[str, Tensor] | None,
    seen: Callable[[bytes | memoryview], None],
) -> dict[str, Tensor]:
    from medseg.inference.bundle_nets import refuse_misfit
    from medseg.nets.weights_file import read_header, read_tensors

    with files.open(name) as (file, size):
        try:
            header = read_header(file, size, seen)
        except ValueError as error:
            raise CheckpointError(f"{where} is damaged ({error}); {MEND}") from None
        if wanted is not None:
            refuse_misfit(header, wanted, where, info.net.name)
        try:
            return read_tensors(file, header, seen)
        except ValueError as error:
            raise CheckpointError(f"{where} cannot be used: {error}; {MEND}") from None


def _listed(folds: Iterable[int]) -> str:
    return ", ".join(str(fold) for fold in sorted(folds)[:20]) or "none"


def _precision(states: Iterable[Mapping[str, Tensor]]) -> str:
    """The type that all floating point weights share; 'float32' where they differ."""
    types = {value.dtype for state in states for value in state.values() if value.is_floating_point()}
    name = str(types.pop()).removeprefix("torch.") if len(types) == 1 else "float32"
    return name if name in ("float16", "bfloat16") else "float32"


def _encode(state: Mapping[str, Tensor]) -> bytes:
    import safetensors.torch

    # Cloned, since safetensors refuses tensors that share memory (tied weights).
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return safetensors.torch.save(tensors)
