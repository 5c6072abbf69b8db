"""`training.init`: initial weights of a training, from a model bundle or a public file."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, fields
from pathlib import Path

from torch import nn

from medseg.disk.atomic import write_text_atomic
from medseg.errors import CheckpointError
from medseg.inference.bundle import Bundle, load_bundle
from medseg.inference.importing.cache import as_bundle
from medseg.io.formats import is_there
from medseg.nets import PretrainedReport, load_pretrained
from medseg.nets.pretrained import weight_names
from medseg.training.init_report import sentences

__all__ = ["PRETRAINED", "initial_names", "initialise", "kept_report", "show_and_keep"]

_log = logging.getLogger("medseg")
REPORT = "init.json"
# What `medseg pretrain` writes into its folder.
PRETRAINED = "pretrained.safetensors"
FORMAT_VERSION = 1


def initial_names(path: Path) -> tuple[str, ...]:
    """What the initial weights are called in their bundle or file.

    Raises:
        CheckpointError: for a file that is absent, damaged or contains no weights.
    """
    path = _file_of(path)
    try:
        return tuple(next(iter(_held(path).weights.values()))) if _is_bundle(path) else weight_names(path)
    except CheckpointError as error:
        raise _named(path, error) from None


def initialise(net: nn.Module, path: Path) -> PretrainedReport:
    """Load into a net what fits of a bundle, a model of nnU-Net (folders or zips), or of public weights.

    Returns:
        What was loaded, adapted (channels, classes, 2D kernels in a 3D net), dropped and not found, by name.

    Raises:
        CheckpointError: for a file that is absent or damaged, and where nothing fits.
    """
    file = _file_of(path)
    try:
        if not _is_bundle(file):
            return load_pretrained(net, file)
        bundle = _held(file)
        try:
            return load_pretrained(net, dict(next(iter(bundle.weights.values()))))
        except CheckpointError as error:
            raise CheckpointError(f"{error}; its network is net.name={bundle.info.net.name}") from None
    except CheckpointError as error:
        raise _named(path, error) from None


def show_and_keep(report: PretrainedReport, path: Path, folder: Path) -> None:
    """Say on the console what became of the initial weights, and keep it, with every name, in the fold's folder.

    Args:
        report: what `initialise` returned.
        path: where the weights came from.
        folder: gets `init.json`.

    Raises:
        WriteError: disk full or no permission.
    """
    said = sentences(report, path)
    for sentence in said:
        _log.info("%s", sentence)
    if not _log.isEnabledFor(logging.INFO):
        # A program that calls `train` sees its progress on standard error, but not its log.
        sys.stderr.writelines(f"{sentence}\n" for sentence in said)
    kept = {"format_version": FORMAT_VERSION, "init": str(path), "summary": said, **asdict(report)}
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / REPORT, json.dumps(kept, indent=1) + "\n")


def kept_report(folder: Path) -> PretrainedReport | None:
    """What `show_and_keep` left in a fold's folder; None where nothing is there, or nothing that can be read."""
    try:
        kept = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return PretrainedReport(**{field.name: kept[field.name] for field in fields(PretrainedReport)})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _file_of(path: Path) -> Path:
    """The path itself, or the weights in a folder of `medseg pretrain`."""
    if not path.exists():
        raise CheckpointError(
            f"training.init: {path} does not exist; give a model bundle, a model of nnU-Net, or weights as "
            ".safetensors or .pth"
        )
    return path / PRETRAINED if is_there(path / PRETRAINED) else as_bundle(path)


def _is_bundle(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".zip"


def _held(path: Path) -> Bundle:
    bundle = load_bundle(path)
    if bundle.networks:
        raise CheckpointError("no training can start from an exported model; give the one that it was exported from")
    return bundle


def _named(path: Path, error: CheckpointError) -> CheckpointError:
    return CheckpointError(f"training.init: {path}: {error}")
