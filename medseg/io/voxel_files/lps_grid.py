"""NRRD and MetaImage share this: voxels in a block, axes in LPS, channels on one axis; made into a `Volume`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.geometry import flip_lps_ras
from medseg.io.plausible import affine_fault
from medseg.io.voxel_files.streams import Encoding, VoxelBlock, read_block
from medseg.volume import Finding, Metadata, Volume

__all__ = ["LpsImage", "checked_sizes", "detached_file", "volume_of"]


@dataclass(frozen=True, slots=True)
class LpsImage:
    """A header, understood.

    Args:
        voxels: the file that holds the voxels.
        dtype: as stored, byte order included.
        sizes: of all stored axes, fastest first.
        channel_axis: which of them is channels, None for none.
        affine: `(4, 4)`, index along the other axes to mm, LPS+.
        fields: the header's fields that the affine comes from, for messages.
        encoding, offset, skip: as in `VoxelBlock`.
        spacing_known: False where the header gives no spacing at all.
        findings: irregularities of the header.
    """

    voxels: Path
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
    """Read the voxels of an understood header.

    Raises:
        ReadError: cut short or damaged voxels, or an affine that cannot be worked with.
    """
    affine = flip_lps_ras(image.affine)
    spatial = [n for axis, n in enumerate(image.sizes) if axis != image.channel_axis]
    if fault := affine_fault(affine, spatial):
        raise ReadError(
            f"{path} has axes that span no volume of an image, by {image.fields}: {fault}; correct its header"
        )
    count = math.prod(image.sizes)
    flat, surplus = read_block(VoxelBlock(image.voxels, image.dtype, count, image.encoding, image.offset, image.skip))
    findings = list(image.findings)
    if surplus:
        text = f"{path} holds more voxels than its header of sizes {image.sizes} promises; the rest is left out"
        findings.append(Finding("surplus_data", text, (str(path),)))
    array = flat.reshape(image.sizes, order="F")
    channels = 0
    if image.channel_axis is not None:
        array = np.moveaxis(array, image.channel_axis, 0)
        channels = array.shape[0]
        # One value per voxel is no vector.
        if channels == 1:
            array, channels = array[0], 0
    metadata = Metadata(source=str(path))
    try:
        return Volume(array, affine, channels, metadata, tuple(findings), spacing_known=image.spacing_known)
    except GeometryError as error:
        raise ReadError(f"{path} cannot be used: {error}") from None


def checked_sizes(sizes: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """The sizes, if an image can have them.

    Raises:
        ReadError: fewer than two axes, more than five, an empty one, or more voxels than any file holds.
    """
    if not 2 <= len(sizes) <= 5 or min(sizes) < 1 or math.prod(sizes) >= 2**60:
        raise ReadError(f"{path} has sizes {sizes[:8]}: expected 2 to 5 axes, none of them empty or absurdly long")
    return sizes


def detached_file(header: Path, name: str) -> Path:
    """The file of voxels that a header names.

    Raises:
        ReadError: it does not exist, is the header itself, or lies outside the header's folder, where a header from
            elsewhere has nothing to look for.
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
        raise ReadError(f"{header} has no voxels beside it: expected {name[:80]!r} in the same folder")
    return found
