"""Whether files are still being written: their names, sizes and times before they were looked for and afterwards.

Slices that arrive over a network lie there one after the other, and nothing in a part of a study says that it is one.
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

# Size, time of the last writing, and of the last change of any kind, which cannot be set back; nanoseconds.
Stamp = tuple[int, int, int]
# Of the seconds to wait for quiet: writing that goes on for longer is not waited for.
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class FolderStamp:
    """When entries last came into a folder or went, and the newest change of a file and of a folder in it."""

    entries_changed: int
    newest_file: int = 0
    newest_folder: int = 0


@dataclass(frozen=True, slots=True)
class CaseSnapshot:
    """The files of one case as they were before anything was read. Small enough to be sent to another machine.

    Args:
        files: each file with its stamp, None where it was not there.
        folders: each folder in which further files of the case may appear.
        vanished: files of these folders that had gone before anybody could see whose they were.
        was_quiet: whether nothing had been written for as long as was asked for.
    """

    files: Mapping[Path, Stamp | None]
    folders: Mapping[Path, FolderStamp] = field(default_factory=dict)
    vanished: int = 0
    was_quiet: bool = True

    def change(self, belong: Callable[[Sequence[Path]], int]) -> str:
        """What has changed since, in a phrase; '' where nothing has.

        Args:
            belong: how many of some new files may belong to the case.
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
        """The new files of a folder, and one of each folder in it that is new or has changed."""
        before = self.folders[folder]
        if _entries_changed(folder) == before.entries_changed:
            return []
        try:
            found = [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError:
            return []  # the files of the case are then gone themselves
        new: list[Path] = []
        for path in found:
            stamp = _stamp(path)
            if stamp is None or path in self.files or path in self.folders:
                continue
            # One that came in the same tick of the clock as the newest known one has its time.
            if stamp[2] >= (before.newest_folder if path.is_dir() else before.newest_file):
                new += _first_file(path) if path.is_dir() else [path]
        return new


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files below some places as they were at one moment."""

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
        """Whether a change lies no longer back than what counts as quiet; a clock that is far off tells nothing."""
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
            # Slices of one series may come into a folder beside, so all folders up to the place count.
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

    Writing that goes on for ten times as long is not waited for; cases whose files are then still fresh are told by
    their own snapshot.

    Args:
        places: files and folders.
        without: a folder that is passed over: the output, which may lie below one of them.
        settle_s: seconds without a change that count as quiet; 0 waits for nothing.
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
    # Before the files: one that comes between is then taken for a new one.
    entries_changed = _entries_changed(folder)
    found = {path: stamp for path in files if (stamp := _stamp(path)) is not None}
    stamps |= found
    in_folder.setdefault(folder, []).extend(found)
    newest_file = max((stamp[2] for stamp in found.values()), default=0)
    newest_folder = max((stamp[2] for path in below if (stamp := _stamp(path)) is not None), default=0)
    folders.setdefault(folder, FolderStamp(entries_changed, newest_file, newest_folder))


def _first_file(folder: Path) -> list[Path]:
    """One file of a folder, which says whose the folder is; none where it is empty."""
    return next(([Path(parent, min(names))] for parent, _, names in os.walk(folder) if names), [])


def _entries_changed(folder: Path) -> int:
    """When files last came into a folder or went; -1 where it is gone."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _stamp(path: Path) -> Stamp | None:
    try:
        state = path.stat()
    except OSError:
        return None
    # On Windows the third is when the file was made, which tells new files too.
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns
