"""Shared by NRRD and MetaImage: a block of voxels, axes in LPS and channels on one axis become a `Volume`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.geometry import flip_lps_ras
from medseg.io.plausible import affine_fault
from medseg.io.voxel_files.streams import Encoding, VoxelBlock, read_block
from medseg.volume import Finding, Metadata, Volume

__all__ = ["LpsImage", "checked_sizes", "detached_file", "numbered_files", "volume_of"]

_MOST_FILES = 2**16
_NUMBER = re.compile(r"%0?\d{0,2}[di]")


@dataclass(frozen=True, slots=True)
class LpsImage:
    """A parsed header.

    Args:
        voxels: the files that contain the voxels, equal parts of them in this order; mostly one.
        dtype: as stored, including byte order.
        sizes: of all stored axes, fastest first.
        channel_axis: index of the channel axis, None if there is none.
        affine: `(4, 4)`, index along the other axes to mm, LPS+.
        fields: the header fields that define the affine, for messages.
        encoding, offset, skip: as in `VoxelBlock`.
        spacing_known: False if the header has no spacing at all.
        findings: irregularities of the header.
    """

    voxels: tuple[Path, ...]
    dtype: np.dtype[np.generic]
    sizes: tuple[int, ...]
    channel_axis: int | None
    affine: NDArray[np.float64]
    fields: str
    encoding: Encoding = "raw"
    offset: int = 0
    skip: int = 0
    spacing_known: bool = True
    findings: tuple[Finding, ...] = ()


def volume_of(image: LpsImage, path: Path) -> Volume:
    """Read the voxels that a parsed header describes.

    Raises:
        ReadError: if the voxels are truncated or damaged, or the affine is unusable.
    """
    affine = flip_lps_ras(image.affine)
    spatial = [n for axis, n in enumerate(image.sizes) if axis != image.channel_axis]
    if fault := affine_fault(affine, spatial):
        raise ReadError(
            f"{path} has axes that span no volume of an image, by {image.fields}: {fault}; correct its header"
        )
    flat, surplus = _read_files(image, path)
    findings = list(image.findings)
    if surplus:
        text = f"{path} has more voxels than its header of sizes {image.sizes}; the rest is ignored"
        findings.append(Finding("surplus_data", text, (str(path),)))
    array = flat.reshape(image.sizes, order="F")
    channels = 0
    if image.channel_axis is not None:
        array = np.moveaxis(array, image.channel_axis, 0)
        channels = array.shape[0]
        # A channel axis of length one is dropped.
        if channels == 1:
            array, channels = array[0], 0
    metadata = Metadata(source=str(path))
    try:
        return Volume(array, affine, channels, metadata, tuple(findings), spacing_known=image.spacing_known)
    except GeometryError as error:
        raise ReadError(f"{path} cannot be used: {error}") from None


def _read_files(image: LpsImage, path: Path) -> tuple[NDArray[Any], bool]:
    count, files = math.prod(image.sizes), len(image.voxels)
    if count % files:
        raise ReadError(
            f"{path} lists {files} files, into which its {count} voxels (sizes {image.sizes}) cannot be divided; "
            "correct its header"
        )
    blocks = [
        VoxelBlock(voxels, image.dtype, count // files, image.encoding, image.offset, image.skip)
        for voxels in image.voxels
    ]
    if files == 1:
        return read_block(blocks[0])
    parts = [read_block(block) for block in blocks]
    return np.concatenate([flat for flat, _ in parts]), any(surplus for _, surplus in parts)


def numbered_files(words: Sequence[str], header: Path) -> list[str]:
    """The file names that a pattern means, as NRRD and MetaImage write it: 'slice%03d.raw 1 120 1'.

    Args:
        words: the pattern, then first and last number and, if it is not 1, the step; further words are not read.
        header: for messages.

    Raises:
        ReadError: if the pattern has not exactly one number, or means no or absurdly many files.
    """
    pattern, *numbers = words
    try:
        first, last, step = (int(word) for word in [*numbers, "1"][:3])
    except ValueError:
        first, last, step = 0, 0, 0
    if len(_NUMBER.findall(pattern)) != 1 or pattern.count("%") != 1 or step == 0:
        raise ReadError(
            f"{header} names its voxels as {' '.join(words)[:80]!r}; expected a pattern with one number, and the first "
            "and last number, like 'slice%03d.raw 1 120 1'"
        )
    found = range(first, last + (1 if step > 0 else -1), step)
    if not 1 <= len(found) <= _MOST_FILES:
        raise ReadError(
            f"{header} names {len(found)} files of voxels ({' '.join(words)[:80]!r}); expected 1 to {_MOST_FILES}"
        )
    return [pattern % number for number in found]


def checked_sizes(sizes: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """The sizes, if they are possible for an image.

    Raises:
        ReadError: if there are fewer than two or more than five axes, an empty one, or more voxels than any file has.
    """
    if not 2 <= len(sizes) <= 5 or min(sizes) < 1 or math.prod(sizes) >= 2**60:
        raise ReadError(f"{path} has sizes {sizes[:8]}: expected 2 to 5 axes, none of them empty or absurdly long")
    return sizes


def detached_file(header: Path, name: str) -> Path:
    """The voxel file that a header names.

    Raises:
        ReadError: if it does not exist, is the header itself, or is outside the header's folder: an untrusted header
            must not read other files.
    """
    named = Path(name)
    if not name or "\0" in name or named.is_absolute() or ".." in named.parts or "\\" in name:
        raise ReadError(
            f"{header} names {name[:80]!r} as its voxels; expected a file in its own folder: put it there and correct "
            "the header"
        )
    found = header.parent / named
    try:
        is_there = found.is_file()
    except OSError:
        is_there = False
    if not is_there or found == header:
        raise ReadError(f"{header} has no voxel file: expected {name[:80]!r} in the same folder")
    return found
