"""All files below a folder, each once, together with the places that could not be searched."""

from __future__ import annotations

import os
from pathlib import Path

from medseg.errors import ReadError

__all__ = ["files_below", "is_hidden"]


def files_below(folder: Path) -> tuple[list[Path], list[tuple[Path, ReadError]]]:
    """All regular files in a folder and its sub-folders; pipes, devices and sockets are skipped.

    Links to files are followed. Links to folders are not: they may be circular, or lead through the whole disk.

    Returns:
        The files, in no particular order, and each folder that was not searched, with the reason: missing permission,
        or a link to a folder elsewhere. Links back to a parent folder are ignored.
    """
    files: list[Path] = []
    missed: list[tuple[Path, ReadError]] = []
    root = Path(os.path.realpath(folder))

    def note(error: OSError) -> None:
        missed.append(
            (Path(error.filename), ReadError(f"{error.filename} cannot be listed: {error.strerror or error}"))
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
    """Whether no person chose this name: '._x.nii.gz' of macOS archives, '.DS_Store', temporary files."""
    return path.name.startswith(".") or "__MACOSX" in path.parts
