"""Shared by NRRD and MetaImage: a block of voxels, axes in LPS and channels on one axis become a `Volume`."""

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
    """A parsed header.

    Args:
        voxels: the file that contains the voxels.
        dtype: as stored, including byte order.
        sizes: of all stored axes, fastest first.
        channel_axis: index of the channel axis, None if there is none.
        affine: `(4, 4)`, index along the other axes to mm, LPS+.
        fields: the header fields that define the affine, for messages.
        encoding, offset, skip: as in `VoxelBlock`.
        spacing_known: False if the header has no spacing at all.
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
    count = math.prod(image.sizes)
    flat, surplus = read_block(VoxelBlock(image.voxels, image.dtype, count, image.encoding, image.offset, image.skip))
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
