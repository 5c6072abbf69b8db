"""Damage: bits, lengths, numbers, words, nesting, bombs, and zips that want to write elsewhere."""

from __future__ import annotations

import gzip
import io
import re
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np


def damage(folder: Path, rng: np.random.Generator) -> None:
    """Damage one file below a folder, in one to three ways."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    # Small texts that steer a data set are what matters there, so they are hit more often.
    texts = [p for p in files if p.suffix in (".json", ".csv")]
    path = rng.choice(np.array(texts if texts and rng.random() < 0.8 else files, dtype=object))
    if path.suffix == ".zip" and rng.random() < 0.4:
        _hostile_zip(path, rng)
        return
    content = path.read_bytes()
    unzip = content[:2] == b"\x1f\x8b" and rng.random() < 0.75
    content = gzip.decompress(content) if unzip else content
    for _ in range(rng.integers(1, 4)):
        content = _WAYS[rng.integers(len(_WAYS))](content, rng)
    if path.suffix == ".png" and rng.random() < 0.7:
        content = _with_right_checksums(content)
    if unzip and rng.random() < 0.1:
        # A bomb: behind the voxels go 200 MB more.
        content += bytes(200 << 20)
    path.write_bytes(gzip.compress(content, 1, mtime=0) if unzip else content)


def _place(content: bytes, rng: np.random.Generator) -> int:
    """A byte, more often among the first few hundred, where headers are."""
    return int(rng.integers(0, max(1, min(len(content), 400) if rng.random() < 0.7 else len(content))))


def _flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        if out:
            out[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _cut_short(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _absurd_number(content: bytes, rng: np.random.Generator) -> bytes:
    kind = str(rng.choice(["<h", ">h", "<i", ">i", "<q", ">q", "<f", "<d"]))
    values = [2**15 - 1, -1, 0, 1, 255] + [2**31 - 1, -(2**31)] * (kind[1] in "iqfd") + [2**62] * (kind[1] in "qfd")
    value = values[rng.integers(len(values))]
    number = struct.pack(kind, float(rng.choice([np.nan, np.inf, 1e30])) if kind[1] in "fd" and value == 1 else value)
    # Numbers of most formats lie at even places.
    place = _place(content, rng) & ~1
    return content[:place] + number + content[place + len(number) :]


_WORDS = [b"-1", b"0", b"1", b"99999999999", b"1e308", b"nan", b"", b"../../../etc/passwd", b"none", b"999999999999999"]


def _edit_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a word or number of the text by an absurd one."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_./]{3,}", content[:2000]))
    if not found:
        return _flip_bits(content, rng)
    match = found[rng.integers(len(found))]
    return content[: match.start()] + _WORDS[rng.integers(len(_WORDS))] + content[match.end() :]


def _move_piece(content: bytes, rng: np.random.Generator) -> bytes:
    start, size, target = _place(content, rng), int(rng.integers(1, 64)), _place(content, rng)
    piece = content[start : start + size]
    if rng.random() < 0.5:
        content = content[:start] + content[start + size :]
    return content[:target] + piece * int(rng.choice([0, 1, 1, 2, 500])) + content[target:]


def _fill_piece(content: bytes, rng: np.random.Generator) -> bytes:
    start, size = _place(content, rng), int(rng.integers(1, 40))
    filling = bytes([int(rng.choice([0, 255, 65, 91, 123]))]) * len(content[start : start + size])
    return content[:start] + filling + content[start + size :]


def _nest(content: bytes, rng: np.random.Generator) -> bytes:
    """What makes recursive parsers fall over."""
    place = _place(content, rng)
    return content[:place] + bytes([int(rng.choice([91, 123, 40, 34]))]) * 20000 + content[place:]


_WAYS = (
    _flip_bits,
    _flip_bits,
    _cut_short,
    _absurd_number,
    _absurd_number,
    _absurd_number,
    _edit_text,
    _edit_text,
    _move_piece,
    _fill_piece,
    _nest,
)


def _with_right_checksums(content: bytes) -> bytes:
    """A PNG whose chunks carry the checksum of what they hold, so that damage gets past the first test."""
    out, place = io.BytesIO(), 8
    out.write(content[:8])
    while place + 8 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunk = content[place + 4 : place + 8 + size]
        out.write(struct.pack(">I", size) + chunk + struct.pack(">I", zlib.crc32(chunk)))
        place += 12 + size
    return out.getvalue()


def _hostile_zip(path: Path, rng: np.random.Generator) -> None:
    kind = int(rng.integers(5))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as out:
        warnings.simplefilter("ignore")
        if kind == 0:
            names = [
                "../../escaped.nii",
                "/tmp/escaped.nii",
                "a/../../escaped.nii",
                "..\\escaped.nii",
                "study",
                "a" * 300,
            ]
            out.writestr(str(rng.choice(names)), b"x")
        elif kind == 1:
            link = zipfile.ZipInfo("study/link.nii")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            out.writestr(link, "/etc/passwd")
        elif kind == 2:
            out.writestr("study/zeros.nii", bytes(100 << 20))
        elif kind == 3:
            out.writestr("study/ct.nii.gz", b"again")
        else:
            out.writestr("inner.zip", path.read_bytes()[:300])
    if kind == 2 and rng.random() < 0.5:
        # The directory promises 4 GB less a byte.
        raw = bytearray(path.read_bytes())
        for place in [m.start() for m in re.finditer(rb"PK\x01\x02", raw)]:
            raw[place + 24 : place + 28] = b"\xfe\xff\xff\xff"
        path.write_bytes(raw)
