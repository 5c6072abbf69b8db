"""Battery cases: colour, as `(3, I, J[, K])` RGB, flagged (PS3.3 C.7.6.3.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from dicom_battery import Case
from dicom_phantom_codecs import encode
from dicom_phantoms import Phantom, Truth, save, slice_of
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

SLICES = 3
SCALAR = Phantom(
    shape=(18, 16, SLICES),
    spacing=(0.8, 1.1, 2.5),
    stored="uint8",
    bits=8,
    slopes=None,
    offset=60.0,
    origin=(0.0, 0.0, 0.0),
    tags={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"},
)
Array = Any


def rgb(k: int) -> Array:
    """Slice k, `(rows, columns, 3)` uint8: red rises as the phantom, green falls, blue rises half as fast."""
    red = np.rint(SCALAR.values(k))
    return np.stack([red, 255 - red, np.rint(red / 2)], axis=-1).astype(np.uint8)


def ybr_full(colour: Array) -> Array:
    """PS3.3 C.7.6.3.1.2: YBR_FULL from RGB, rounded."""
    r, g, b = np.moveaxis(colour.astype(float), -1, 0)
    y = 0.2990 * r + 0.5870 * g + 0.1140 * b
    cb = -0.1687 * r - 0.3313 * g + 0.5000 * b + 128
    cr = 0.5000 * r - 0.4187 * g - 0.0813 * b + 128
    return np.clip(np.rint(np.stack([y, cb, cr], axis=-1)), 0, 255).astype(np.uint8)


def rgb_of(ybr: Array) -> Array:
    """The way back."""
    y, cb, cr = np.moveaxis(ybr.astype(float), -1, 0)
    cb, cr = cb - 128, cr - 128
    return np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1), 0, 255)


def ybr_422(colour: Array) -> tuple[bytes, Array]:
    """Two columns share their chroma, stored Y0 Y1 Cb Cr; and the colours that leaves."""
    ybr = ybr_full(colour)
    ybr[:, 1::2, 1:] = ybr[:, 0::2, 1:]
    stored = np.stack([ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], axis=-1)
    return stored.tobytes(), rgb_of(ybr)


def colour(
    name: str,
    photometric: str,
    stored: Callable[[Array], tuple[bytes, Array]],
    planar: int = 0,
    syntax: str = "explicit little endian",
    tolerance: float = 0.5,
    findings: tuple[str, ...] = ("colour",),
    outcome: Literal["read", "either"] = "read",
    change: Callable[[Dataset], None] = lambda data: None,
) -> Case:
    """Three slices; `stored(rgb)` gives the bytes of a frame and the colours a reader has to find in it."""

    def build(folder: Path) -> list[Truth]:
        expected = []
        for k in range(SLICES):
            data = slice_of(SCALAR, k)
            pixels, seen = stored(rgb(k))
            data.SamplesPerPixel, data.PhotometricInterpretation = 3, photometric
            data.PlanarConfiguration = planar
            data.PixelData = pixels
            expected.append(seen)
            change(data)
            if syntax == "explicit little endian":
                save(data, folder / f"IM{k:04d}.dcm")
            else:
                _save_encoded(data, folder / f"IM{k:04d}.dcm", syntax)
        array = np.stack(expected, axis=-1).transpose(2, 1, 0, 3)
        return [Truth(array, SCALAR.affine, tolerance, channels=3)]

    return Case(f"colour: {name}", build, outcome, findings)


def _save_encoded(data: Dataset, path: Path, uid: str) -> None:
    import pydicom

    data.PixelData = encapsulate([data.PixelData])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = uid
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def _jpeg(image: Array) -> tuple[bytes, Array]:
    encoded = imagecodecs.jpeg8_encode(image, level=95, subsampling="422")
    return encoded, imagecodecs.jpeg8_decode(encoded)


def _j2k(image: Array) -> tuple[bytes, Array]:
    return imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True, mct=True), image


def _jpegls(image: Array) -> tuple[bytes, Array]:
    return imagecodecs.jpegls_encode(image), image


def _jpeg_rgb(image: Array) -> tuple[bytes, Array]:
    encoded = imagecodecs.jpeg8_encode(image, level=95, colorspace="RGB", outcolorspace="RGB")
    return encoded, imagecodecs.jpeg8_decode(encoded, colorspace="RGB", outcolorspace="RGB")


def _jpeg_lossless(image: Array) -> tuple[bytes, Array]:
    return imagecodecs.jpeg8_encode(image, lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB"), image


def _j2k_lossy(image: Array) -> tuple[bytes, Array]:
    encoded = imagecodecs.jpeg2k_encode(image, codecformat="j2k", level=45, mct=True)
    return encoded, imagecodecs.jpeg2k_decode(encoded)


def _palette(data: Dataset) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "PALETTE COLOR"
    del data.PlanarConfiguration
    for n, name in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        entries = {0: np.arange(256), 1: 255 - np.arange(256), 2: np.rint(np.arange(256) / 2)}[n]
        setattr(data, f"{name}PaletteColorLookupTableData", (entries.astype("<u2") * 257).tobytes())


CASES = [
    colour("RGB", "RGB", lambda image: (image.tobytes(), image)),
    colour("RGB, planes apart", "RGB", lambda image: (np.moveaxis(image, -1, 0).tobytes(), image), planar=1),
    colour("YBR_FULL", "YBR_FULL", lambda image: (ybr_full(image).tobytes(), rgb_of(ybr_full(image))), tolerance=1.0),
    colour("YBR_FULL, planes apart", "YBR_FULL", lambda image: (
        np.moveaxis(ybr_full(image), -1, 0).tobytes(), rgb_of(ybr_full(image))), planar=1, tolerance=1.0),
    colour("YBR_FULL_422", "YBR_FULL_422", ybr_422, tolerance=1.0),
    colour("JPEG baseline", "YBR_FULL_422", _jpeg, syntax="1.2.840.10008.1.2.4.50", tolerance=2.0,
           findings=("colour", "lossy")),
    colour("JPEG 2000, YBR_RCT", "YBR_RCT", _j2k, syntax="1.2.840.10008.1.2.4.90"),
    colour("JPEG-LS", "RGB", _jpegls, syntax="1.2.840.10008.1.2.4.80"),
    colour("RLE", "RGB", lambda image: (encode(image, "RLE"), image), planar=1, syntax="1.2.840.10008.1.2.5"),
    colour("JPEG baseline, stream in RGB", "RGB", _jpeg_rgb, syntax="1.2.840.10008.1.2.4.50",
           tolerance=2.0, findings=("colour", "lossy")),
    colour("JPEG baseline, header says RGB, stream is YBR", "RGB", _jpeg, syntax="1.2.840.10008.1.2.4.50",
           tolerance=2.0, outcome="either"),
    colour("JPEG lossless SV1", "RGB", _jpeg_lossless, syntax="1.2.840.10008.1.2.4.70"),
    colour("JPEG 2000 lossy, YBR_ICT", "YBR_ICT", _j2k_lossy, syntax="1.2.840.10008.1.2.4.91", tolerance=2.0,
           findings=("colour", "lossy")),
    colour("palette", "", lambda image: (image[..., 0].tobytes(), image), outcome="either", change=_palette),
]  # fmt: skip
