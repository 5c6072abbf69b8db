"""Detects files that are still being written, by comparing names, sizes and times before and after.

Slices that arrive over a network appear one by one, and an incomplete study looks like a complete one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.disk.archive import split_zip_path
from medseg.disk.directory_walk import is_hidden

__all__ = ["CaseSnapshot", "Snapshot", "take_snapshot"]

# Size, time of the last modification, and of the last change of any kind, which cannot be set back; nanoseconds.
Stamp = tuple[int, int, int]
# Multiples of the time to wait for quiet: writing that continues for longer is not waited for.
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class FolderStamp:
    """When entries were last added to or removed from a folder, and the newest change of a file and a folder in it."""

    entries_changed: int
    newest_file: int = 0
    newest_folder: int = 0


@dataclass(frozen=True, slots=True)
class CaseSnapshot:
    """The files of one case as they were before anything was read. Small enough to be sent to another machine.

    Args:
        files: each file with its stamp, None if it was not there.
        folders: each folder in which further files of the case may appear.
        vanished: files of these folders that disappeared before it was clear which case they belong to.
        was_quiet: whether nothing had been written for the requested time.
    """

    files: Mapping[Path, Stamp | None]
    folders: Mapping[Path, FolderStamp] = field(default_factory=dict)
    vanished: int = 0
    was_quiet: bool = True

    def change(self, belong: Callable[[Sequence[Path]], int]) -> str:
        """The changes since, in a phrase; '' if there are none.

        Args:
            belong: returns how many of the given new files may belong to the case.
        """
        states = [(before, _stamp(path)) for path, before in self.files.items()]
        gone = sum(now is None for _, now in states)
        changed = sum(now is not None and now != before for before, now in states)
        appeared = sum(belong(new) for new in map(self._new_files, self.folders) if new)
        told = {"came": appeared, "changed": changed, "went": gone + self.vanished}
        parts = [f"{count} file(s) {what}" for what, count in told.items() if count]
        if not parts and not self.was_quiet:
            return "files were written when the run began"
        return ", ".join(parts) + " since the run began" if parts else ""

    def _new_files(self, folder: Path) -> list[Path]:
        """The new files of a folder, and one file of each new or changed folder in it."""
        before = self.folders[folder]
        if _entries_changed(folder) == before.entries_changed:
            return []
        try:
            found = [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError:
            return []  # the files of the case have then disappeared themselves
        new: list[Path] = []
        for path in found:
            stamp = _stamp(path)
            if stamp is None or path in self.files or path in self.folders:
                continue
            # A file created in the same clock tick as the newest known one has the same time.
            if stamp[2] >= (before.newest_folder if path.is_dir() else before.newest_file):
                new += _first_file(path) if path.is_dir() else [path]
        return new


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files below some places at one moment."""

    stamps: Mapping[Path, Stamp]
    in_folder: Mapping[Path, Sequence[Path]]
    folders: Mapping[Path, FolderStamp]
    taken_ns: int
    settle_s: float

    @property
    def newest_ns(self) -> int:
        """When the newest file was last changed."""
        return max((stamp[2] for stamp in self.stamps.values()), default=0)

    def is_fresh(self, changed_ns: int) -> bool:
        """Whether a change is more recent than the time that counts as quiet; a badly wrong clock is ignored."""
        return abs(self.taken_ns - changed_ns) < self.settle_s * 1e9

    def of(self, paths: Iterable[Path], may_grow: bool) -> CaseSnapshot:
        """The part that concerns one case.

        Args:
            paths: its files; inside an archive as `archive.zip/member`.
            may_grow: whether further files in the same folders may belong to it.
        """
        files: dict[Path, Stamp | None] = {}
        folders: dict[Path, FolderStamp] = {}
        for path in paths:
            inside = split_zip_path(path) if path not in self.stamps else None
            folder = path if path.is_dir() else path.parent
            if not path.is_dir():
                held = inside[0] if inside else path
                files[held] = self.stamps.get(held)
            # Slices of a series may appear in a sibling folder, so all folders up to the place count.
            while may_grow and inside is None and folder in self.folders and folder not in folders:
                folders[folder] = self.folders[folder]
                folder = folder.parent
        quiet = not any(stamp is not None and self.is_fresh(stamp[2]) for stamp in files.values())
        return CaseSnapshot(files, folders, sum(map(self._vanished_from, folders)), quiet)

    def _vanished_from(self, folder: Path) -> int:
        if _entries_changed(folder) == self.folders[folder].entries_changed:
            return 0
        return sum(not path.exists() for path in self.in_folder.get(folder, ()) if not is_hidden(path))


def take_snapshot(places: Sequence[Path], without: Path, settle_s: float) -> Snapshot:
    """All files below `places`, once nothing has been written there for `settle_s` seconds.

    Writing that continues for ten times as long is not waited for; the snapshot of a case then shows that its files are
    recent.

    Args:
        places: files and folders.
        without: a folder to skip: the output folder, which may be inside one of them.
        settle_s: seconds without a change that count as quiet; 0 does not wait.
    """
    deadline = time.monotonic() + _PATIENCE * settle_s
    while True:
        found = _snapshot(places, without.absolute(), settle_s)
        if not found.is_fresh(found.newest_ns) or time.monotonic() >= deadline:
            return found
        time.sleep(max(0.01, settle_s - abs(found.taken_ns - found.newest_ns) / 1e9))


def _snapshot(places: Sequence[Path], without: Path, settle_s: float) -> Snapshot:
    stamps: dict[Path, Stamp] = {}
    in_folder: dict[Path, list[Path]] = {}
    folders: dict[Path, FolderStamp] = {}
    taken_ns = time.time_ns()
    for place in places:
        if not place.is_dir():
            _note(place.parent, [], [place], stamps, in_folder, folders)
            continue
        passed_over = {without} - {place.absolute()}
        for parent, below, names in os.walk(place):
            folder = Path(parent)
            below[:] = [name for name in below if (folder / name).absolute() not in passed_over]
            _note(
                folder, [folder / name for name in below], [folder / name for name in names], stamps, in_folder, folders
            )
    return Snapshot(stamps, in_folder, folders, taken_ns, settle_s)


def _note(
    folder: Path,
    below: Sequence[Path],
    files: Sequence[Path],
    stamps: dict[Path, Stamp],
    in_folder: dict[Path, list[Path]],
    folders: dict[Path, FolderStamp],
) -> None:
    # Read before the files: a file that appears in between then counts as new.
    entries_changed = _entries_changed(folder)
    found = {path: stamp for path in files if (stamp := _stamp(path)) is not None}
    stamps |= found
    in_folder.setdefault(folder, []).extend(found)
    newest_file = max((stamp[2] for stamp in found.values()), default=0)
    newest_folder = max((stamp[2] for path in below if (stamp := _stamp(path)) is not None), default=0)
    folders.setdefault(folder, FolderStamp(entries_changed, newest_file, newest_folder))


def _first_file(folder: Path) -> list[Path]:
    """One file of a folder, which identifies the case of the folder; none if the folder is empty."""
    return next(([Path(parent, min(names))] for parent, _, names in os.walk(folder) if names), [])


def _entries_changed(folder: Path) -> int:
    """When entries were last added to or removed from a folder; -1 if it is missing."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _stamp(path: Path) -> Stamp | None:
    try:
        state = path.stat()
    except OSError:
        return None
    # On Windows the third value is the creation time, which also reveals new files.
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns
