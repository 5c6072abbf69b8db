"""Files and folders that appear complete or not at all: written under a temporary name, then renamed to the target."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import MedsegError, WriteError

__all__ = ["atomic_folder", "atomic_path", "parents_made", "replaced_folder", "write_error", "write_text_atomic"]

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or write somewhere else",
    errno.EDQUOT: "the disk quota is used up; free some space or write somewhere else",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.EISDIR: "a folder of that name exists; choose another name",
    errno.EFBIG: "the file is too large for that disk; write somewhere else",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EIO: "the disk reports an error; check it, or write somewhere else",
}


def write_error(path: Path, error: OSError) -> WriteError:
    """The `WriteError` for an `OSError` raised while writing `path`, in one line with the remedy."""
    found = _first_error(error)
    # numpy reports a full disk as "8000 requested and 7136 written", without an errno.
    number = errno.ENOSPC if found.errno is None and "requested and" in str(found) else found.errno
    text = found.strerror or str(found).strip().partition("\n")[0] or type(found).__name__
    return WriteError(f"cannot write {path}: {_REMEDIES.get(number or 0, text)}")


def _first_error(error: OSError) -> OSError:
    """The original system error: pydicom raises others from it, with tracebacks as their text."""
    while error.errno is None and isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path next to `path`; it becomes `path` if the block ends without an error.

    The temporary name is hidden and has the suffix of the target, which some writers depend on. Missing parent folders
    are created. After an error, an interruption or on a full disk nothing is left behind, and an older file of that
    name is unchanged.

    Raises:
        WriteError: for any OSError in the block or while renaming: disk full, no permission.

    Example:
        >>> with atomic_path("out/scores.csv") as temporary:
        ...     _ = temporary.write_text("case,dice")
        >>> Path("out/scores.csv").read_text()
        'case,dice'
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
    try:
        with parents_made(target):
            try:
                yield temporary
                _to_disk(temporary)
                temporary.replace(target)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
    except MedsegError:
        raise
    except OSError as error:
        raise write_error(target, error) from error


@contextlib.contextmanager
def parents_made(target: Path) -> Iterator[None]:
    """Create the folders above `target`; new ones are removed again if the block ends in an error and left them empty.

    Raises:
        OSError: if permission is missing, or a part of the path is a file.
    """
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), target.parents))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text; the file appears complete or not at all.

    Raises:
        WriteError: if the disk is full or permission is missing.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder next to `path`; it becomes `path` if the block ends without an error.

    After an error or an interruption nothing is left behind, and an older folder of that name is unchanged. If the
    process is killed between the two renames of a replacement, the older folder is at `replaced_folder(path)`, and the
    next call first restores it.

    Args:
        path: the folder to create. It may exist if it is empty.
        overwrite: True to replace an existing folder and its contents.

    Raises:
        WriteError: if `path` is a file, or a folder that is not empty without `overwrite`; disk full, no permission.

    Example:
        >>> with atomic_folder("series") as folder:
        ...     _ = (folder / "slice.txt").write_text("1")
        >>> [path.name for path in Path("series").iterdir()]
        ['slice.txt']
    """
    target = Path(path)
    fresh, old = target.with_name(f".{secrets.token_hex(4)}-{target.name}"), replaced_folder(target)
    try:
        if old.is_dir() and not target.exists():
            old.rename(target)
        _check_free(target, overwrite)
        with parents_made(target):
            try:
                fresh.mkdir()
                yield fresh
                for file in fresh.rglob("*"):
                    if file.is_file():
                        _to_disk(file)
                if target.is_dir():
                    shutil.rmtree(old, ignore_errors=True)
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


def replaced_folder(path: Path) -> Path:
    """The path of the previous folder while `atomic_folder` replaces it."""
    return path.with_name(f".{path.name}.replaced")


def _to_disk(file: Path) -> None:
    # Otherwise a crash of the machine could leave a renamed but empty file.
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
