"""The files of a bundle, in a folder or a zip, opened so that nothing but plain files of the bundle is ever read.

Links, pipes and devices are refused, so are zips in which anything is hostile and members that unpack to far more than
they are: a bundle may come from anywhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from medseg.disk.archive import check_members, opened_zip
from medseg.disk.atomic import replaced_folder
from medseg.errors import CheckpointError, ReadError, WriteError

__all__ = [
    "DEEPEST_MEMBER",
    "FOLD_FILES",
    "FOLD_NAMES",
    "INFO",
    "MEND",
    "WEIGHTS",
    "BundleFiles",
    "bundle_files",
    "open_regular",
    "refuse_foreign",
]

INFO = "model.json"
FOLD = r"(0|[1-9][0-9]{0,3})"
# The file of a fold by the format of the network; that of OpenVINO has a second one, .bin.
FOLD_NAMES = {
    "safetensors": "weights_fold{}.safetensors",
    "onnx": "network_fold{}.onnx",
    "openvino": "network_fold{}.xml",
}
FOLD_FILES = {kind: re.compile(name.replace(".", r"\.").format(FOLD)) for kind, name in FOLD_NAMES.items()}
WEIGHTS = FOLD_FILES["safetensors"]
MEND = "restore it from a backup or train again"
# Models in models in a model.
DEEPEST_MEMBER = 3
# Weights are noise and shrink by a tenth; what shrinks more, and is large, was made to grow.
BOMB_BYTES, BOMB_RATIO = 64 << 20, 20


class BundleFiles(Protocol):
    """An open bundle.

    Attributes:
        folders: where its files came from: the folder, and the one it was found in; or the zip.
        names: of its files.
    """

    folders: tuple[Path, ...]
    names: tuple[str, ...]

    def open(self, name: str) -> contextlib.AbstractContextManager[tuple[IO[bytes], int]]:
        """One of the files, at its beginning, and its size in bytes."""
        ...


@contextlib.contextmanager
def bundle_files(place: Path) -> Iterator[BundleFiles]:
    """A bundle's files: its folder, a zip of it, or a run folder that holds it as `model/`.

    Args:
        place: also `ZIP/members/NAME`, a member of the model in a zip.

    Raises:
        CheckpointError: for what is not a bundle, or contains links, devices or hostile zip entries.
    """
    zipped = next((each for each in (place, *place.parents[: 2 * DEEPEST_MEMBER]) if each.is_file()), None)
    if zipped is None:
        yield _Folder(place)
        return
    try:
        with opened_zip(zipped) as opened:
            check_members(opened, zipped)
            yield _Zip(zipped, opened, place.relative_to(zipped).parts)
    except ReadError as error:
        raise CheckpointError(
            f"{place} is neither a bundle folder nor an intact zip of one ({error}); {MEND}"
        ) from None


def refuse_foreign(target: Path) -> None:
    """Refuse a place for a bundle that holds something else.

    Raises:
        WriteError: a file, or a folder that is neither empty nor a bundle.
    """
    if target.exists() and not (target / INFO).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise WriteError(f"{target} exists and is not a model bundle; choose another folder or move it away")


def open_regular(path: Path) -> IO[bytes]:
    """A plain file, opened for reading; never through a link, and without waiting for a pipe.

    Raises:
        CheckpointError: for a link, pipe, device or folder.
        OSError: as `open`.
    """
    # Looked at first, as to open a device may already do something; and again, as it may have changed since.
    if stat.S_ISREG(path.lstat().st_mode):
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise CheckpointError(f"{path} is a link, pipe, device or folder; a bundle holds plain files: put the file itself")


class _Folder:
    def __init__(self, place: Path) -> None:
        # A kill between the two renames of a swap leaves the former bundle under its other name.
        candidates = (place, place / "model", replaced_folder(place))
        self.folder = next((c for c in candidates if os.path.lexists(c / INFO)), place)
        self.folders: tuple[Path, ...] = (place, self.folder)
        if not self.folder.is_dir():
            raise CheckpointError(f"no model bundle {place}; give the folder or zip that medseg train wrote")
        try:
            self.names = tuple(sorted(file.name for file in self.folder.iterdir()))
        except OSError as error:
            raise CheckpointError(f"{place}: the model cannot be read ({error.strerror})") from None

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        try:
            with open_regular(self.folder / name) as file:
                yield file, os.fstat(file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{self.folder / name}: the model cannot be read ({error.strerror})") from None


class _Zip:
    def __init__(self, place: Path, opened: zipfile.ZipFile, member: tuple[str, ...] = ()) -> None:
        self.place, self.opened = place, opened
        self.folders: tuple[Path, ...] = (place.joinpath(*member),)
        found = [n for n in opened.namelist() if n.rpartition("/")[2] == INFO]
        self.prefix = min(found, key=len, default=INFO).removesuffix(INFO) + "".join(f"{part}/" for part in member)
        self.names = tuple(n.removeprefix(self.prefix) for n in opened.namelist() if n.startswith(self.prefix))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        entry = self.opened.getinfo(self.prefix + name)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"{self.place}: {name} is packed in an unusual way; zip the folder again (deflate)")
        if entry.file_size > max(BOMB_BYTES, BOMB_RATIO * entry.compress_size):
            raise CheckpointError(
                f"{self.place}: {name} would grow from {entry.compress_size / 1e6:.1f} MB to "
                f"{entry.file_size / 1e9:.1f} GB, as in a zip bomb; if it is none, unpack it and give the folder"
            )
        with self.opened.open(entry) as file:
            yield file, entry.file_size
