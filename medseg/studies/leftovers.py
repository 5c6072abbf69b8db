"""Temporary files of runs that were killed."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from medseg.disk.locks import Locks
from medseg.disk.temporary import remove_dead_folders
from medseg.studies.outputs import PREVIEWS, UNCERTAINTY

__all__ = ["clear_leftovers"]

# As named by `medseg.disk.atomic.atomic_path`.
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}-.+")


def clear_leftovers(folder: Path, locks: Locks) -> None:
    """Remove the incomplete files of dead runs from an output folder, unless another run is alive there.

    Their unpacked archives in the system's temporary directory are removed too, wherever they wrote to.
    """
    remove_dead_folders()
    # Listed before checking for other runs, so that files of a run that starts now are not among them.
    found = [path for place in (folder, folder / PREVIEWS, folder / UNCERTAINTY) for path in _temporary(place)]
    if locks.alone():
        for path in found:
            with contextlib.suppress(OSError):
                path.unlink()


def _temporary(folder: Path) -> list[Path]:
    """The temporary files in a folder; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as inside:
        return [Path(each.path) for each in inside if _TEMPORARY.fullmatch(each.name) and each.is_file()]
