"""Grouping of files into cases, and names of cases and files."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from medseg.io.formats import is_there, stem_of

__all__ = ["CHANNEL_NAME", "composed", "file_named", "group_channels", "natural_order", "safe_name"]

CHANNEL_NAME = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
# File names have at most 255 bytes, including suffixes and the marks of locks and temporary files.
_LONGEST = 150


def group_channels(files: Iterable[Path], folder: Path) -> dict[str, tuple[Path, ...]]:
    """Case -> its files in channel order, by nnU-Net's `_0000`, `_0001`, ... if they count up from 0.

    If files differ only in suffix or folder, their case names include the suffix or folder.

    Args:
        files: image files below `folder`.
        folder: the folder that case names are relative to.
    """
    names: dict[tuple[Path, str], dict[int, Path]] = {}
    plain: list[Path] = []
    for path in sorted(files):
        match = CHANNEL_NAME.match(stem_of(path))
        if match:
            names.setdefault((path.parent, match["case"]), {}).setdefault(int(match["channel"]), path)
        else:
            plain.append(path)
    cases: dict[str, tuple[Path, ...]] = {}
    for (parent, name), channels in sorted(names.items()):
        if sorted(channels) == list(range(len(channels))):
            cases[_case_name(parent / name, folder)] = tuple(channels[n] for n in sorted(channels))
        else:
            plain.extend(channels.values())
    counts: dict[str, int] = {}
    for path in plain:
        name = _case_name(path.with_name(stem_of(path)), folder)
        counts[name] = counts.get(name, 0) + 1
    for path in sorted(plain):
        name = _case_name(path.with_name(stem_of(path)), folder)
        if counts[name] > 1 or name in cases:
            name = _case_name(path, folder)
        cases[name] = (path,)
    return cases


def composed(name: str) -> str:
    """The name with accents composed (Unicode NFC): macOS and some archives write u and a diaeresis for one letter.

    Example:
        >>> composed("Mu\\u0308ller") == "M\\u00fcller"
        True
    """
    return unicodedata.normalize("NFC", name)


def file_named(path: Path) -> Path | None:
    """The file or folder of that name, or one whose name differs only in how its accents are composed; else None."""
    if is_there(path):
        return path
    if path.name.isascii() and path.parent.name.isascii():
        return None
    parent = path.parent if path == path.parent or is_there(path.parent) else file_named(path.parent)
    if parent is None or not parent.is_dir():
        return None
    wanted = composed(path.name)
    return next((each for each in sorted(parent.iterdir()) if composed(each.name) == wanted), None)


def safe_name(name: str) -> str:
    """A name that is safe on every disk, in logs and in tables: at most 150 bytes of UTF-8, printable, not hidden.

    Characters that are not printable, or not valid text, become their bytes as in `caf%E9`; long names end in a hash.
    """
    text = "".join(
        c if c.isprintable() else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape")) for c in name
    )
    if text.startswith("."):
        text = f"%2E{text[1:]}"
    coded = text.encode()
    if len(coded) <= _LONGEST:
        return text
    digest = hashlib.sha256(coded).hexdigest()[:8]
    return f"{coded[: _LONGEST - 9].decode(errors='ignore')}_{digest}"


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key that puts 'label_2' before 'label_10' and ignores case.

    Example:
        >>> sorted(["label_10", "Label_2"], key=natural_order)
        ['Label_2', 'label_10']
    """
    parts = [p for p in re.split(r"(\d{1,9})", name) if p]
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in parts], name


def _case_name(path: Path, folder: Path) -> str:
    return "_".join(path.relative_to(folder).parts)
