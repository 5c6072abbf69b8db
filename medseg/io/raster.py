"""PNG, JPEG and TIFF as `[i = x, j = y]`: no place in the patient, so the affine is the identity.

Palette images keep their indices, which is how label maps are often stored; alpha is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError, WriteError
from medseg.io.atomic import atomic_path
from medseg.volume import Finding, Metadata, Volume

__all__ = ["read_raster", "write_raster"]

Array = NDArray[Any]


def read_raster(path: Path) -> Volume:
    """A picture, `(I, J)` or `(3, I, J)` for colour; TIFF files of many pages give `(I, J, K)`.

    8, 16 and 32-bit values are kept, the orientation that a camera wrote (EXIF) is applied.

    Raises:
        ReadError: damaged file, or a layout that is neither grey levels nor colours.
    """
    is_tiff = path.suffix.lower() in (".tif", ".tiff")
    rows, channels, findings = _read_tiff(path) if is_tiff else _read_pillow(path)
    # From [.., y, x] to [x, y, ..]; pages become the last axis.
    spatial = range(rows.ndim - 1, 0 if channels else -1, -1)
    array = rows.transpose([0, *spatial] if channels else [*spatial])
    if array.ndim - bool(channels) not in (2, 3):
        raise ReadError(f"{path} has shape {rows.shape}; expected a picture or a stack of pages")
    metadata = Metadata(source=str(path))
    return Volume(array, np.eye(4), channels, metadata, findings, spacing_known=False)


def _read_pillow(path: Path) -> tuple[Array, int, tuple[Finding, ...]]:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    findings: tuple[Finding, ...] = ()
    try:
        with Image.open(path) as opened:
            if opened.format == "PNG" and opened.mode in ("RGB", "RGBA") and _png_bits(path) == 16:
                text = f"{path} has 16 bits per colour, of which 8 are kept; save it as TIFF to keep all"
                findings = (Finding("bit_depth", text, (str(path),)),)
            several = opened.format == "TIFF" and getattr(opened, "n_frames", 1) > 1
            pages = [_pixels_of(page) for page in (ImageSequence.Iterator(opened) if several else [opened])]
    except FileNotFoundError:
        raise ReadError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise ReadError(f"{path} is not a picture that can be opened; check what it is") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ReadError(f"{path} is damaged or cannot be opened ({error})") from None
    if len({page.shape for page in pages}) > 1:
        raise ReadError(f"{path} holds pages of different sizes; split it")
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


def _read_tiff(path: Path) -> tuple[Array, int, tuple[Finding, ...]]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise ReadError(f"{path} holds no picture")
            if len(tiff.series) > 1:
                sizes = ", ".join(str(s.shape) for s in tiff.series[:4])
                raise ReadError(f"{path} holds {len(tiff.series)} pictures of different kinds ({sizes}); split it")
            first: Any = tiff.pages[0]
            if first.tags.get("Orientation", None) is not None and int(first.tags["Orientation"].value) != 1:
                return _read_pillow(path)
            pixels = np.asarray(tiff.series[0].asarray())
            axes = str(tiff.series[0].axes)
            white_is_zero = int(first.photometric) == 0
    except FileNotFoundError:
        raise ReadError(f"{path} does not exist") from None
    except ReadError:
        raise
    except tifffile.TiffFileError as error:
        raise ReadError(f"{path} is damaged or cannot be opened ({error})") from None
    except (ValueError, ImportError, KeyError):
        # Compressions that tifffile reads only with an extra package are read by Pillow's libtiff.
        return _read_pillow(path)
    except (OSError, IndexError, TypeError, RuntimeError) as error:
        raise ReadError(f"{path} is damaged or cannot be opened ({error})") from None
    if pixels.dtype == bool:
        pixels = (pixels != white_is_zero).astype(np.uint8)
    elif white_is_zero and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if "S" in axes:
        pixels = np.moveaxis(pixels, axes.index("S"), 0)
        # The fourth sample is alpha; grey with alpha has two.
        pixels = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1]
        return (pixels[0], 0, ()) if pixels.shape[0] == 1 else (pixels, pixels.shape[0], ())
    if "C" in axes:
        pixels = np.moveaxis(pixels, axes.index("C"), 0)
        return pixels, pixels.shape[0], ()
    return pixels, 0, ()


def write_raster(volume: Volume, path: Path) -> None:
    """Write a 2D image as PNG (8 or 16-bit grey, 8-bit colour), or anything as TIFF (a page per slice).

    Raises:
        WriteError: disk full, no permission, values that the format does not hold, or JPEG, which alters values.
    """
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        _write_tiff(volume, path)
        return
    if suffix != ".png":
        raise WriteError(f"cannot write {path}: JPEG alters the values; write .png instead")
    if volume.dims != 2:
        raise WriteError(f"cannot write {path}: a PNG holds one 2D image, found {volume!r}; write .nii.gz instead")
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
        raise WriteError(
            f"cannot write {path}: a PNG holds 1 or 3 channels, found {volume.channels}; write .tif instead"
        )
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iu":
        raise WriteError(
            f"cannot write {path}: a PNG holds integers, found {array.dtype}; window the image first or write .tif"
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
