"""Where an exported model is written: a folder, or a zip of it, whose files are the smaller for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medseg.disk.archive import pack
from medseg.disk.atomic import atomic_folder, atomic_path
from medseg.disk.temporary import temporary_folder
from medseg.errors import CheckpointError, WriteError
from medseg.inference.bundle_files import INFO, bundle_files, open_regular, refuse_foreign
from medseg.inference.bundle_json import read_info

__all__ = ["is_zip", "new_bundle", "refuse_target"]


def is_zip(target: Path) -> bool:
    """Whether a place is to become a zip.

    Example:
        >>> is_zip(Path("lung_int8.zip")), is_zip(Path("lung_int8"))
        (True, False)
    """
    return target.suffix.lower() == ".zip"


@contextlib.contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """An empty folder, of which the target consists once the block ends without an error.

    Args:
        target: a folder, or a name that ends in `.zip`; what is there is replaced.

    Raises:
        WriteError: disk full or no permission.
    """
    if not is_zip(target):
        with atomic_folder(target, overwrite=True) as fresh:
            yield fresh
        return
    with temporary_folder() as fresh:
        yield fresh
        with atomic_path(target) as archive:
            pack(fresh, archive)


def refuse_target(target: Path) -> None:
    """Refuse a place that holds anything but an exported model.

    Raises:
        WriteError: something else, or a trained model.
    """
    if is_zip(target) and not target.is_file():
        if target.exists():
            raise WriteError(f"{target} exists and is not a file; choose another name")
        return
    if is_zip(target):
        try:
            with bundle_files(target) as files, files.open(INFO) as (opened, _):
                present, _ = read_info(opened, target)
        except (CheckpointError, KeyError):
            raise WriteError(
                f"{target} exists and is not a model bundle; choose another name or move it away"
            ) from None
    else:
        refuse_foreign(target)
        if not (target / INFO).is_file():
            return
        with open_regular(target / INFO) as opened:
            present, _ = read_info(opened, target)
    if present.network.format == "safetensors":
        raise WriteError(f"{target} holds a trained model, which an export would replace; choose another place")
