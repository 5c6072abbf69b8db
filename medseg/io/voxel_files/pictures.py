"""Images read with Pillow: PNG, JPEG, and the TIFF files that only libtiff reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.library_errors import refuse_own_fault
from medseg.io.voxel_files.streams import check_promise
from medseg.volume import Finding

__all__ = ["Decoded", "check_decoded_size", "damaged_picture", "read_pillow"]

Array = NDArray[Any]
# Rows first: `[.., y, x]`, channels (0 for none) before them; and the findings.
Decoded = tuple[Array, int, tuple[Finding, ...]]
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


def read_pillow(path: Path) -> Decoded:
    """The pixels of an image file, rows first; several pages of one size are stacked.

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
            several = opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1
            count = getattr(opened, "n_frames", 1) if several else 1
            check_decoded_size(path, math.prod(opened.size) * len(opened.getbands()) * count)
            pages = [_pixels_of(page) for page in (ImageSequence.Iterator(opened) if several else [opened])]
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
    colour = pages[0].ndim == 3
    pixels = np.stack(pages) if several else pages[0]
    return (np.moveaxis(pixels, -1, 0), pixels.shape[-1], findings) if colour else (pixels, 0, findings)


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
