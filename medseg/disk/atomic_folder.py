"""Folders that appear whole or not at all: filled beside the target, then renamed onto it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from medseg.disk.atomic import parents_made, write_error
from medseg.errors import MedsegError, WriteError

__all__ = ["atomic_folder"]


@contextlib.contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path`; it becomes `path` when the block ends without an error.

    After an error or an interruption nothing is left behind, and an older folder of that name stays as it was.

    Args:
        path: the folder to appear. It may exist if it is empty.
        overwrite: True to replace an existing folder with all that is in it.

    Raises:
        WriteError: `path` is a file, or a folder with content that is not to be overwritten; disk full, no permission.

    Example:
        >>> with atomic_folder("series") as folder:
        ...     _ = (folder / "slice.txt").write_text("1")
        >>> [path.name for path in Path("series").iterdir()]
        ['slice.txt']
    """
    target = Path(path)
    mark = secrets.token_hex(4)
    fresh, old = target.with_name(f".{mark}-{target.name}"), target.with_name(f".{mark}-old-{target.name}")
    try:
        _check_free(target, overwrite)
        with parents_made(target):
            try:
                fresh.mkdir()
                yield fresh
                for file in fresh.rglob("*"):
                    if file.is_file():
                        _to_disk(file)
                if target.is_dir():
                    target.rename(old)
                fresh.rename(target)
            finally:
                if old.exists() and not target.exists():
                    old.rename(target)
                shutil.rmtree(fresh, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)
    except MedsegError:
        raise
    except OSError as error:
        raise write_error(target, error) from error


def _check_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise WriteError(
            f"cannot write {target}: a file of that name exists, expected a new folder; choose another name"
        )
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise WriteError(f"cannot write {target}: the folder is not empty; choose another one, or ask for overwriting")


def _to_disk(file: Path) -> None:
    # Without this a crash of the machine can leave a renamed folder of empty files.
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
