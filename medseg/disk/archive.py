"""Zip archives of studies, unpacked only if nothing in them is hostile.

The archive's directory is checked before anything is written: names that lead outside, links, encryption, entries that
share their bytes, and implausible sizes are refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from medseg.disk.atomic import write_error
from medseg.errors import MedsegError, ReadError, WriteError

__all__ = ["NoRoomError", "check_members", "naming_archive", "opened_zip", "pack", "split_zip_path", "unpack"]

# Label maps compress a thousandfold, so a high ratio alone proves nothing; but no study contains so many bytes of them.
_BOMB_BYTES = 1 << 30
_BOMB_RATIO = 200
# A study has thousands of files; the archive's directory has about a hundred bytes for each.
_MOST_MEMBERS = 100_000
_LARGEST_DIRECTORY = 32 << 20
# Errors that only writing can raise.
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
# Left free on the disk for the outputs and for other programs.
_SPARE_BYTES = 256 << 20


class NoRoomError(WriteError, ReadError):
    """There is no room on the disk to unpack an archive; reported by the command line like any full disk."""


def unpack(archive: Path, folder: Path, members: Iterable[str] | None = None) -> None:
    """Extract a zip, or some of its members, into an existing folder.

    Args:
        archive: the zip.
        folder: an existing folder, empty or not.
        members: names as in the archive; None for all.

    Raises:
        ReadError: if the archive is damaged, encrypted or hostile (names that lead outside, links, implausible sizes),
            or a member is missing.
        NoRoomError: if the contents do not fit onto the disk.
    """
    with opened_zip(archive) as opened:
        entries = opened.infolist() if members is None else [_entry(opened, name, archive) for name in members]
        for entry in entries:
            _check_entry(entry, archive)
        _check_sizes(entries, archive, folder)
        try:
            for entry in entries:
                opened.extract(entry, folder)
        except OSError as error:
            if error.errno not in _OF_THE_DISK:
                raise
            raise NoRoomError(f"{archive} cannot be unpacked: {write_error(folder, error)}") from error


def pack(folder: Path, archive: Path) -> None:
    """Write the files of a folder as a zip; the same files give the same bytes.

    Args:
        folder: its files and those of its sub-folders.
        archive: the zip; what is there is replaced.

    Raises:
        OSError: disk full, or no permission.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as file, opened.open(entry, "w", force_zip64=True) as packed:
                shutil.copyfileobj(file, packed, 1 << 20)


@contextlib.contextmanager
def opened_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading; its directory must not be larger than that of a study.

    Raises:
        ReadError: if the file is not a zip, or reading its members fails.
    """
    try:
        with _Opened(archive) as file, zipfile.ZipFile(file) as opened:
            if len(opened.filelist) > _MOST_MEMBERS:
                raise ReadError(_too_many(archive))
            yield opened
    except MedsegError:
        raise
    except zipfile.BadZipFile as error:
        raise ReadError(f"{archive} is not a zip or is damaged ({error}); download it again") from None
    except OSError as error:
        raise ReadError(f"{archive} cannot be unpacked: {error.strerror or error}") from None
    except (RuntimeError, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError, ArithmeticError) as error:
        raise ReadError(f"{archive} cannot be unpacked ({error}); unpack it yourself and give the folder") from None


def check_members(opened: zipfile.ZipFile, archive: Path) -> None:
    """Refuse an archive that contains anything hostile, even if only some members are wanted.

    Raises:
        ReadError: for names that lead outside, links, encryption, and files of equal names or with shared bytes.
    """
    entries = opened.infolist()
    for entry in entries:
        _check_entry(entry, archive)
    _check_places([entry for entry in entries if not entry.is_dir()], archive)


def _entry(opened: zipfile.ZipFile, name: str, archive: Path) -> zipfile.ZipInfo:
    try:
        return opened.getinfo(name)
    except KeyError as error:
        raise ReadError(f"{archive} has changed: {error}") from None


class _Opened(io.FileIO):
    """A zip with a limit on its directory, which is read in one piece and parsed into much larger objects."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise ReadError(_too_many(Path(str(self.name))))
        return super().read(-1 if size is None else size)


def _too_many(archive: Path) -> str:
    return f"{archive} has more than {_MOST_MEMBERS} files, more than any study; unpack it yourself and give the folder"


def _check_entry(entry: zipfile.ZipInfo, archive: Path) -> None:
    name = entry.filename
    if not name:
        raise ReadError(f"{archive} is damaged: one of its files has no name; download it again")
    # Archives from Windows may use its separators and drives.
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        raise ReadError(f"{archive} contains {name[:120]!r}, which leads out of its folder; nothing was unpacked")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ReadError(
            f"{archive} contains {name[:120]!r}, which is a link or device; unpack it yourself and give the folder"
        )
    # Bit 0 of the general purpose flags (APPNOTE 4.4.4).
    if entry.flag_bits & 1:
        raise ReadError(f"{archive} is encrypted; unpack it yourself and give the folder")


def _check_places(files: list[zipfile.ZipInfo], archive: Path) -> None:
    if len({entry.filename for entry in files}) < len(files):
        raise ReadError(f"{archive} contains two files of one name; unpack it yourself and give the folder")
    if sum(entry.compress_size for entry in files) > archive.stat().st_size:
        raise ReadError(f"{archive} contains entries that share their bytes, as in a zip bomb; it is not unpacked")


def _check_sizes(entries: list[zipfile.ZipInfo], archive: Path, folder: Path) -> None:
    files = [entry for entry in entries if not entry.is_dir()]
    _check_places(files, archive)
    unpacked = sum(e.file_size for e in files)
    dense = [e for e in files if e.file_size > _BOMB_RATIO * e.compress_size]
    if sum(e.file_size for e in dense) > _BOMB_BYTES:
        grown, small = sum(e.file_size for e in dense) / 1e9, sum(e.compress_size for e in dense) / 1e6
        raise ReadError(
            f"{archive} contains files that would grow from {small:.1f} MB to {grown:.1f} GB, as in a zip bomb; if you "
            "trust it, unpack it yourself and give the folder"
        )
    free = shutil.disk_usage(folder).free - _SPARE_BYTES
    if unpacked > free:
        raise NoRoomError(
            f"{archive} needs {unpacked / 1e9:.1f} GB unpacked, {max(free, 0) / 1e9:.1f} GB are free for temporary "
            "files; free some space, or unpack it yourself and give the folder"
        )


@contextlib.contextmanager
def naming_archive(archive: Path, folder: Path) -> Iterator[None]:
    """Make errors about files in the unpacked `folder` name the archive, because the folder is temporary."""
    try:
        yield
    except MedsegError as error:
        error.args = (str(error).replace(str(folder), str(archive)),)
        raise


def split_zip_path(path: Path) -> tuple[Path, str] | None:
    """`('/a/b.zip', 'study/1.dcm')` for `/a/b.zip/study/1.dcm`; None for a path that is not inside a zip."""
    for parent in path.parents:
        if parent.suffix.lower() == ".zip" and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None
