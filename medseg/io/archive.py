"""Zip archives of studies."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from medseg.errors import ReadError

__all__ = ["split_zip_path", "unpack"]


def unpack(archive: Path, folder: Path, members: Iterable[str] | None = None) -> None:
    """Extract a zip, or some of its members, into an existing folder; names that point outside stay inside.

    Raises:
        ReadError: damaged or encrypted archive, missing member, or no room for the contents.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder, None if members is None else list(members))
    except zipfile.BadZipFile as error:
        raise ReadError(f"{archive} is no zip or is damaged ({error}); download it again") from None
    except (RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise ReadError(f"{archive} cannot be unpacked ({error}); unpack it yourself and give the folder") from None
    except KeyError as error:
        raise ReadError(f"{archive} has changed: {error}") from None
    except OSError as error:
        raise ReadError(f"{archive} cannot be unpacked: {error.strerror or error}") from None


def split_zip_path(path: Path) -> tuple[Path, str] | None:
    """`('/a/b.zip', 'study/1.dcm')` for `/a/b.zip/study/1.dcm`; None for a path that lies in no zip."""
    for parent in path.parents:
        if parent.suffix.lower() == ".zip" and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None
