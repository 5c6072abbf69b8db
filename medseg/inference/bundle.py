"""The model bundle: a folder, or one zip of it, that holds all that prediction needs, and no code.

model.json                  labels, plan, net, prediction defaults, provenance, scores, licences
weights_fold{N}.safetensors one per fold
README.md                   model card
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from medseg.errors import CheckpointError, ConfigError, WriteError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.model_card import model_card
from medseg.io.atomic import write_error

__all__ = ["Bundle", "load_bundle", "save_bundle"]

FORMAT_VERSION = 1
INFO = "model.json"
WEIGHTS = re.compile(r"weights_fold(\d+)\.safetensors")
MEND = "restore it from a backup or train again"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory: CPU state dicts by fold; `model_hash` covers `model.json` and weights."""

    path: Path
    info: BundleInfo
    weights: dict[int, dict[str, Tensor]]
    model_hash: str


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
    """
    target = Path(folder)
    files = {f"weights_fold{fold}.safetensors": _encode(state) for fold, state in weights.items()}
    if not files:
        raise CheckpointError(f"{target}: a bundle needs the weights of at least one fold")
    if target.exists() and not (target / INFO).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise WriteError(f"{target} exists and is not a model bundle; choose another folder or move it away")
    kept: list[Path] = []
    if (target / INFO).is_file():
        present = _parse((target / INFO).read_bytes(), target)
        if present.same_model(info):
            kept = [f for f in sorted(target.iterdir()) if WEIGHTS.fullmatch(f.name) and f.name not in files]
            joined = info.prediction.joined(present.prediction) if kept else info.prediction
            info = info.model_copy(update={"scores": {**present.scores, **info.scores}, "prediction": joined})
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        temporary.chmod(0o755)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        for file in kept:
            shutil.copyfile(file, temporary / file.name)
        (temporary / INFO).write_text(info.to_json(), encoding="utf-8")
        (temporary / "README.md").write_text(model_card(info, [*files, *(f.name for f in kept)]), encoding="utf-8")
        _swap(temporary, target)
    except OSError as error:
        raise write_error(target, error) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle: its folder, a zip of it, or a run folder that holds it as `model/`.

    Raises:
        CheckpointError: missing, damaged, or written by a newer medseg.

    Example:
        >>> load_bundle("runs/lung/model").info.scheme.names
        ('lung', 'tumour')
    """
    place = Path(path)
    files = _read_zip(place) if place.is_file() else _read_folder(place)
    if INFO not in files:
        raise CheckpointError(f"{place} is not a model bundle: it holds no {INFO}")
    info = _parse(files[INFO], place)
    found = {int(m[1]): name for name in files if (m := WEIGHTS.fullmatch(name))}
    if not found:
        raise CheckpointError(f"{place}: no weights_fold0.safetensors or other fold beside {INFO}; {MEND}")
    digest = hashlib.sha256(files[INFO])
    weights = {}
    for fold, name in sorted(found.items()):
        digest.update(name.encode())
        digest.update(files[name])
        try:
            weights[fold] = safetensors.torch.load(files[name])
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{place}: {name} is damaged ({error}); {MEND}") from None
    _refuse_code(place, info.net.name)
    return Bundle(place, info, weights, digest.hexdigest())


def _encode(state: Mapping[str, Tensor]) -> bytes:
    # Cloned, since safetensors refuses tensors that share memory (tied weights).
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return safetensors.torch.save(tensors)


def _swap(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    old = _replaced(target)
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _read_folder(place: Path) -> dict[str, bytes]:
    # A kill between the two renames of a swap leaves the former bundle under its other name.
    candidates = (place, place / "model", _replaced(place))
    folder = next((c for c in candidates if (c / INFO).is_file()), place)
    if not folder.is_dir():
        raise CheckpointError(f"no model bundle {place}; give the folder or zip that medseg train wrote")
    try:
        return {f.name: f.read_bytes() for f in folder.iterdir() if f.name == INFO or WEIGHTS.fullmatch(f.name)}
    except OSError as error:
        raise CheckpointError(f"{place}: the model cannot be read ({error.strerror})") from None


def _read_zip(place: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(place) as archive:
            names = [n for n in archive.namelist() if n.rpartition("/")[2] == INFO]
            prefix = min(names, key=len, default=INFO).removesuffix(INFO)
            inside = {n.removeprefix(prefix): n for n in archive.namelist() if n.startswith(prefix)}
            return {n: archive.read(m) for n, m in inside.items() if n == INFO or WEIGHTS.fullmatch(n)}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{place} is neither a bundle folder nor an intact zip of one ({error}); {MEND}"
        ) from None


def _parse(content: bytes, place: Path) -> BundleInfo:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{place}: {INFO} is damaged ({error}); {MEND}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{place}: {INFO} has format_version {version}, this medseg reads {FORMAT_VERSION}; update medseg"
        )
    try:
        info = BundleInfo.model_validate(values)
        channels = info.scheme.out_channels
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{place}: {INFO}: {key}: {first['msg']}; {MEND}") from None
    except ConfigError as error:
        raise CheckpointError(f"{place}: {INFO}: {error}") from None
    if (info.net.out_channels, info.net.in_channels, info.net.dims) != (
        channels,
        info.plan.in_channels,
        info.plan.dims,
    ):
        raise CheckpointError(f"{place}: {INFO}: net does not fit labels and plan (channels or dims differ); {MEND}")
    return info


def _refuse_code(place: Path, net_name: str) -> None:
    """A plug-in net comes from what is installed, never from files that came with the bundle."""
    module, colon, _ = net_name.partition(":")
    top = module.partition(".")[0]
    if colon and place.is_dir() and ((place / f"{top}.py").exists() or (place / top).is_dir()):
        raise CheckpointError(
            f"{place} carries the code of its own net ({top}); medseg runs no code from a bundle: install {top} first"
        )
