"""`training.init`: initial weights of a training, from a model bundle or a public file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from medseg.errors import CheckpointError
from medseg.inference.bundle import load_bundle
from medseg.nets import load_pretrained

__all__ = ["initialise"]

_log = logging.getLogger("medseg")
SHOWN = 6


def initialise(net: nn.Module, path: Path) -> None:
    """Load into a net what fits of a bundle (folder or zip) or of public weights (.pth, .pt, .safetensors).

    The log says what was loaded, adapted (channels, classes, 2D kernels in a 3D net), dropped and not found.

    Raises:
        CheckpointError: for a file that is absent or damaged, and where nothing fits.
    """
    if not path.exists():
        raise CheckpointError(
            f"training.init: {path} does not exist; give a model bundle, or weights as .safetensors or .pth"
        )
    bundle = path.is_dir() or path.suffix == ".zip"
    try:
        report = load_pretrained(net, next(iter(load_bundle(path).weights.values())) if bundle else path)
    except CheckpointError as error:
        raise CheckpointError(f"training.init: {path}: {error}") from None
    _log.info("training.init: %s: %s", path, report)
    _show("dropped", report.dropped)
    _show("new", report.missing)
    for name, how in list(report.how.items())[:SHOWN]:
        _log.info("  %s: %s", name, how)
    if any(name.endswith("running_mean") for name in report.dropped):
        _log.info("  these weights contain batch statistics, which this net does not use; net.norm=batch keeps them")


def _show(what: str, names: Sequence[str]) -> None:
    if names:
        _log.info("  %s: %s%s", what, ", ".join(names[:SHOWN]), ", ..." if len(names) > SHOWN else "")
