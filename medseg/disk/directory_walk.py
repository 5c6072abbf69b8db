"""The files below a folder, each once, and the places that are not looked into, so that none is lost unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

from medseg.errors import ReadError

__all__ = ["files_below", "is_hidden"]


def files_below(folder: Path) -> tuple[list[Path], list[tuple[Path, ReadError]]]:
    """All regular files in a folder and its sub-folders; pipes, devices and sockets are left out.

    Links to files are followed. Links to folders are not: they may go round in circles, or through the whole disk.

    Returns:
        The files, in no particular order, and each folder that was not looked into, with the reason: one without
        permission, or a link to a folder elsewhere. Links back to folders on the way are nothing to miss.
    """
    files: list[Path] = []
    missed: list[tuple[Path, ReadError]] = []
    root = Path(os.path.realpath(folder))

    def note(error: OSError) -> None:
        missed.append(
            (Path(error.filename), ReadError(f"{error.filename} cannot be looked into: {error.strerror or error}"))
        )

    for parent, folders, names in os.walk(folder, onerror=note):
        files += [path for name in names if (path := Path(parent, name)).is_file()]
        for link in (Path(parent, name) for name in folders):
            if not link.is_symlink():
                continue
            target = Path(os.path.realpath(link))
            if not (root.is_relative_to(target) or target.is_relative_to(root)):
                text = f"{link} is a link to a folder elsewhere, which is not followed; give that folder itself"
                missed.append((link, ReadError(text)))
    return files, missed


def is_hidden(path: Path) -> bool:
    """Names that no person gave: '._x.nii.gz' of macOS archives, '.DS_Store', temporary files."""
    return path.name.startswith(".") or "__MACOSX" in path.parts
