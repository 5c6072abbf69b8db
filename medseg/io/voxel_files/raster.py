"""PNG, JPEG, TIFF, BMP and GIF as `[i = x, j = y]`, without a position: the affine has the spacing alone, if any.

A palette means colours in an image and values in a label map; alpha is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import atomic_path
from medseg.errors import ReadError, WriteError
from medseg.io.formats import format_of
from medseg.io.voxel_files.pictures import Role, read_pillow
from medseg.io.voxel_files.tiff import read_tiff
from medseg.volume import Metadata, Volume

__all__ = ["read_raster", "write_raster"]

Array = NDArray[Any]


def read_raster(path: Path, role: Role = "") -> Volume:
    """An image, `(I, J)` or `(3, I, J)` for colour; multi-page TIFF files give `(I, J, K)`.

    8, 16 and 32-bit values are kept; the orientation that a camera wrote (EXIF) is applied. ImageJ's and OME's TIFF
    files have a spacing.

    Args:
        path: the file.
        role: a palette image has the colours of its palette as an 'image', its indices as 'labels'; by default its
            content decides.

    Raises:
        ReadError: if the file is damaged, or contains neither grey levels nor colours.
    """
    decoded = (read_tiff if _format(path) == "tiff" else read_pillow)(path, role)
    rows, channels = decoded.pixels, decoded.channels
    # From [.., y, x] to [x, y, ..]; pages become the last axis.
    spatial = range(rows.ndim - 1, 0 if channels else -1, -1)
    array = rows.transpose([0, *spatial] if channels else [*spatial])
    if array.ndim - bool(channels) not in (2, 3):
        raise ReadError(f"{path} has shape {rows.shape}; expected an image or a stack of pages")
    metadata = Metadata(source=str(path))
    spacing = decoded.spacing_mm[: array.ndim - bool(channels)]
    affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
    return Volume(array, affine, channels, metadata, decoded.findings, spacing_known=bool(spacing))


def _format(path: Path) -> str:
    found = format_of(path)
    return "" if found is None else found.name


def write_raster(volume: Volume, path: Path) -> None:
    """Write a 2D image as PNG (8 or 16-bit grey, 8-bit colour), or anything as TIFF (a page per slice).

    Raises:
        WriteError: if the disk is full, permission is missing, the format cannot store the values, or it is only
            read (JPEG, which alters values, BMP and GIF).
    """
    if _format(path) == "tiff":
        _write_tiff(volume, path)
        return
    if _format(path) != "png":
        reason = "JPEG alters the values" if _format(path) == "jpeg" else "this format is only read"
        raise WriteError(f"cannot write {path}: {reason}; write .png instead")
    if volume.dims != 2:
        raise WriteError(f"cannot write {path}: a PNG contains one 2D image, found {volume!r}; write .nii.gz instead")
    from PIL import Image

    pixels = _picture_values(volume, path)
    rows = pixels.transpose(2, 1, 0) if volume.channels else pixels.T
    image = Image.fromarray(np.ascontiguousarray(rows))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _picture_values(volume: Volume, path: Path) -> Array:
    array = volume.array
    if volume.channels == 1:
        array = array[0]
    if volume.channels not in (0, 1, 3):
        raise WriteError(f"cannot write {path}: a PNG has 1 or 3 channels, found {volume.channels}; write .tif instead")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iu":
        raise WriteError(
            f"cannot write {path}: a PNG stores integers, found {array.dtype}; window the image first or write .tif"
        )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    top = 255 if volume.channels == 3 else 65535
    if low < 0 or high > top:
        raise WriteError(
            f"cannot write {path}: values {low} to {high} do not fit into a PNG (0 to {top}); window the image "
            "first or write .tif"
        )
    return array.astype(np.uint8 if array.dtype == np.uint8 or high < 256 else np.uint16)


def _write_tiff(volume: Volume, path: Path) -> None:
    import tifffile

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    colour = volume.channels == 3 and volume.dims == 2 and array.dtype.kind == "u"
    if volume.channels == 1:
        array = array[0]
    elif volume.channels and not colour:
        raise WriteError(f"cannot write {path}: {volume.channels} channels of {array.dtype}; write .nii.gz instead")
    with atomic_path(path) as temporary:
        try:
            tifffile.imwrite(
                temporary,
                np.ascontiguousarray(array.T),
                photometric="rgb" if colour else "minisblack",
                compression="zlib",
                metadata=None,
                software=False,
            )
        except ValueError as error:
            raise WriteError(f"cannot write {path}: {error}") from None
