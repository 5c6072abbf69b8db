"""Frames of a phantom in every transfer syntax, coded without the codecs that a reader of DICOM uses (imagecodecs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax: its UID, and whether decoding gives back other values than were put in."""

    uid: str
    lossy: bool = False

    @property
    def encapsulated(self) -> bool:
        return self.uid.startswith("1.2.840.10008.1.2.4.") or self.uid.startswith("1.2.840.10008.1.2.5")


SYNTAXES = {
    "implicit little endian": Syntax("1.2.840.10008.1.2"),
    "explicit little endian": Syntax("1.2.840.10008.1.2.1"),
    "explicit big endian": Syntax("1.2.840.10008.1.2.2"),
    "deflated": Syntax("1.2.840.10008.1.2.1.99"),
    "RLE": Syntax("1.2.840.10008.1.2.5"),
    "JPEG baseline": Syntax("1.2.840.10008.1.2.4.50", lossy=True),
    "JPEG extended 12 bit": Syntax("1.2.840.10008.1.2.4.51", lossy=True),
    "JPEG lossless process 14": Syntax("1.2.840.10008.1.2.4.57"),
    "JPEG lossless SV1": Syntax("1.2.840.10008.1.2.4.70"),
    "JPEG-LS lossless": Syntax("1.2.840.10008.1.2.4.80"),
    "JPEG-LS near-lossless": Syntax("1.2.840.10008.1.2.4.81", lossy=True),
    "JPEG 2000 lossless": Syntax("1.2.840.10008.1.2.4.90"),
    "JPEG 2000 lossy": Syntax("1.2.840.10008.1.2.4.91", lossy=True),
    "HTJ2K lossless": Syntax("1.2.840.10008.1.2.4.201"),
    "HTJ2K lossless RPCL": Syntax("1.2.840.10008.1.2.4.202"),
}


def encode(frame: Frame, syntax: str) -> bytes:
    """One frame, `(rows, columns)` or `(rows, columns, 3)`, as the bytes of an encapsulated frame.

    JPEG and JPEG-LS know no sign: signed values go in as their two's complement, as DICOM has it (PS3.5 8.2).
    """
    plain = frame.view(frame.dtype.str.replace("i", "u")) if frame.dtype.kind == "i" else frame
    match syntax:
        case "RLE":
            planes = np.ascontiguousarray(np.moveaxis(plain, -1, 0)) if plain.ndim == 3 else plain
            return _rle(planes)
        case "JPEG baseline":
            return bytes(imagecodecs.jpeg8_encode(plain.astype(np.uint8), level=90))
        case "JPEG extended 12 bit":
            return bytes(imagecodecs.jpeg8_encode(plain, level=95, bitspersample=12))
        case "JPEG lossless process 14":
            return bytes(imagecodecs.jpeg8_encode(plain, lossless=True, predictor=5, bitspersample=8 * plain.itemsize))
        case "JPEG lossless SV1":
            return bytes(imagecodecs.jpeg8_encode(plain, lossless=True, predictor=1, bitspersample=8 * plain.itemsize))
        case "JPEG-LS lossless":
            return bytes(imagecodecs.jpegls_encode(plain))
        case "JPEG-LS near-lossless":
            return bytes(imagecodecs.jpegls_encode(plain, level=2))
        case "JPEG 2000 lossless":
            return bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True))
        case "JPEG 2000 lossy":
            return bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", level=70))
        case "HTJ2K lossless" | "HTJ2K lossless RPCL":
            return bytes(imagecodecs.htj2k_encode(frame, reversible=True))
    raise ValueError(f"{syntax} does not encapsulate frames")


def decode(encoded: bytes, syntax: str) -> Frame:
    """The values in an encoded frame: what a reader has to find, for lossy syntaxes too."""
    if syntax.startswith("JPEG-LS"):
        return np.asarray(imagecodecs.jpegls_decode(encoded))
    if syntax.startswith("JPEG 2000"):
        return np.asarray(imagecodecs.jpeg2k_decode(encoded))
    if syntax.startswith("HTJ2K"):
        return np.asarray(imagecodecs.htj2k_decode(encoded))
    if syntax.startswith("JPEG"):
        return np.asarray(imagecodecs.jpeg8_decode(encoded))
    raise ValueError(f"{syntax} has no lossy frames")


def _rle(planes: Frame) -> bytes:
    """PS3.5 annex G: a header of 16 counts, then each byte plane, most significant first, packed row by row."""
    planes = planes if planes.ndim == 3 else planes[None]
    size = planes.dtype.itemsize
    segments = []
    for plane in planes:
        octets = np.ascontiguousarray(plane).astype(plane.dtype.newbyteorder(">")).view(np.uint8)
        for byte in range(size):
            packed = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in octets[:, byte::size])
            segments.append(packed + b"\0" * (len(packed) % 2))
    offsets = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0] = len(segments)
    header[1 : 1 + len(segments)] = offsets
    return header.tobytes() + b"".join(segments)
