"""Images read with Pillow: PNG, JPEG, BMP, GIF, and the TIFF files that only libtiff reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.library_errors import refuse_own_fault
from medseg.io.voxel_files.streams import check_promise
from medseg.volume import Finding

__all__ = ["Decoded", "Role", "check_decoded_size", "damaged_picture", "read_pillow", "through_palette"]

Array = NDArray[Any]
# What a picture is read as, which decides what a palette means; '' leaves that to its content.
Role = Literal["", "image", "labels"]
# A label map has few values, and the neighbour of a pixel mostly has the same.
_FEWEST_COLOURS, _ALIKE = 16, 0.5


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture.

    Args:
        pixels: rows first, `[.., y, x]`, with channels before them if `channels` is not 0.
        channels: number of channels, 0 for none.
        findings: irregularities of the file.
        spacing_mm: along x, y and the pages; () if the file does not say it.
    """

    pixels: Array
    channels: int = 0
    findings: tuple[Finding, ...] = ()
    spacing_mm: tuple[float, ...] = ()


# No image codec expands a byte to more than deflate's 1032.
_MOST_FROM_A_BYTE = 2000


def check_decoded_size(path: Path, size: int) -> None:
    """Refuse an image whose header claims more bytes than its file can contain or the memory can take.

    Raises:
        ReadError: if the header is damaged, or the file is a decompression bomb.
    """
    there = path.stat().st_size
    if size > there * _MOST_FROM_A_BYTE + (1 << 20):
        raise ReadError(
            f"{path} is damaged: its header promises {size} bytes of pixels, more than its {there} bytes can contain"
        )
    check_promise(path, size, "bzip2")


def read_pillow(path: Path, role: Role = "") -> Decoded:
    """The pixels of an image file, rows first; several pages of one size are stacked.

    Args:
        path: the file.
        role: what a palette means: colours in an 'image', values in 'labels'.

    Raises:
        ReadError: if the file is damaged, or contains neither grey levels nor colours.
    """
    from PIL import Image, ImageSequence, UnidentifiedImageError

    findings: tuple[Finding, ...] = ()
    try:
        with Image.open(path) as opened:
            if opened.format == "PNG" and opened.mode in ("RGB", "RGBA") and _png_bits(path) == 16:
                text = f"{path} has 16 bits per colour, of which 8 are kept; save it as TIFF to keep all"
                findings = (Finding("bit_depth", text, (str(path),)),)
            if opened.format == "GIF" and getattr(opened, "n_frames", 1) > 1:
                raise ReadError(
                    f"{path} is an animation of {getattr(opened, 'n_frames', 1)} frames; save them as files"
                )
            several = opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1
            count = getattr(opened, "n_frames", 1) if several else 1
            check_decoded_size(path, math.prod(opened.size) * len(opened.getbands()) * count)
            pages, palettes = [], []
            for page in ImageSequence.Iterator(opened) if several else [opened]:
                pages.append(_pixels_of(page))
                palettes.append(_palette_of(page))
    except FileNotFoundError:
        raise ReadError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise ReadError(f"{path} is not an image that can be opened; check what it is") from None
    except ReadError:
        raise
    except Exception as error:
        refuse_own_fault(error)
        # Pillow lets exceptions of its parsers through: struct.error, TypeError, ZeroDivisionError, ...
        raise damaged_picture(path, error) from None
    if len({page.shape for page in pages}) > 1:
        raise ReadError(f"{path} has pages of different sizes; split it")
    pixels = np.stack(pages) if several else pages[0]
    if pages[0].ndim == 3:
        return Decoded(np.moveaxis(pixels, -1, 0), pixels.shape[-1], findings)
    palette = palettes[0]
    if palette is not None and all(other is not None and np.array_equal(palette, other) for other in palettes):
        return through_palette(pixels, palette, role, path)
    return Decoded(pixels, 0, findings)


def through_palette(indices: Array, palette: Array, role: Role, path: Path) -> Decoded:
    """The picture that indices into a palette stand for: colours, grey levels, or the indices where they are labels.

    Args:
        indices: `[.., y, x]`, unsigned integers.
        palette: `(colours, 3)` uint8.
        role: see `read_pillow`.
        path: for findings.
    """
    used = np.unique(indices)
    if role == "labels" or int(used[-1]) >= len(palette) or (role == "" and not _is_photograph(indices, used)):
        return Decoded(indices)
    if (palette[used] == palette[used][:, :1]).all():
        text = f"{path} is a palette image, read as the grey levels of its palette"
        return Decoded(palette[:, 0][indices], 0, (Finding("palette", text, (str(path),)),))
    text = f"{path} is a palette image, read as red, green and blue channels"
    return Decoded(np.moveaxis(palette[indices], -1, 0), 3, (Finding("palette", text, (str(path),)),))


def _is_photograph(indices: Array, used: Array) -> bool:
    """Whether a palette image without a role is a photograph: many colours, and neighbours that mostly differ."""
    if len(used) <= _FEWEST_COLOURS:
        return False
    left, right = indices[..., :-1], indices[..., 1:]
    # A frame of one colour is in both.
    inside = (left != right) | (left != np.bincount(indices.reshape(-1)).argmax())
    alike, pairs = int(np.count_nonzero((left == right) & inside)), int(np.count_nonzero(inside))
    return alike < _ALIKE * pairs


def _palette_of(opened: Any) -> Array | None:
    if opened.mode not in ("P", "PA"):
        return None
    colours = np.zeros((256, 3), np.uint8)
    found = np.array(opened.convert("P").getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(found)] = found
    return colours


def _pixels_of(opened: Any) -> Array:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(opened)
    if image.mode in ("LA", "La", "PA"):
        image = image.getchannel(0)
    elif image.mode not in ("1", "L", "P", "I", "F", "RGB") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8)
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))


def _png_bits(path: Path) -> int:
    # IHDR is the first chunk; its bit depth is byte 24 of the file (PNG specification, 11.2.2).
    with path.open("rb") as file:
        return file.read(25)[24]


def damaged_picture(path: Path, error: BaseException) -> ReadError:
    """One line about an image that a library could not open."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ReadError(f"{path} is damaged or cannot be opened ({reason})")
