"""Battery cases: what pixels mean (rescale, sign, padding, colour), how they are coded, and what lies around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_battery import Case
from dicom_cases_geometry import OBLIQUE, changed, mixed, one
from dicom_phantom_codecs import SYNTAXES
from dicom_phantom_companions import icon, private_block, strip_preamble
from dicom_phantoms import Phantom, Truth, write_study
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

PLAIN = Phantom()
TWELVE = Phantom(shape=(21, 18, 4), stored="uint16", bits=12)
SIGNED = Phantom(shape=(21, 18, 4), offset=-40.0)
EIGHT = Phantom(stored="uint8", bits=8, intercepts=0.0, offset=100.0, origin=(0.0, 0.0, 0.0))
BYTES = Phantom(shape=(21, 18, 4), stored="uint8", bits=8, intercepts=0.0, offset=150.0, origin=(0.0, 0.0, 0.0))
SIGNED_12 = Phantom(stored="int16", bits=12, offset=-40.0, intercepts=0.0)
FIRST, LARGEST = 10, 3000


def lookup_table(data: Dataset, k: int) -> None:
    """A Modality LUT that turns values round: entry i is 3000 - i, the first entry belongs to stored value 10."""
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [LARGEST + 1, FIRST, 16], "US"
    item.add_new("LUTData", "OW", np.arange(LARGEST, -1, -1, dtype="<u2").tobytes())
    data.ModalityLUTSequence = Sequence([item])


def padded(name: str, phantom: Phantom, padding: int, tag: dict[str, Any], vr: str = "") -> Case:
    """Two corners of every slice hold PixelPaddingValue."""
    where = np.ones(phantom.shape, bool)
    where[:3, :2] = where[-2:, -1:] = False

    def change(data: Dataset, k: int) -> None:
        pixels = np.frombuffer(data.PixelData, phantom.stored).reshape(data.Rows, data.Columns).copy()
        pixels[~where[..., k].T] = padding
        data.PixelData = pixels.tobytes()
        if vr:
            data["PixelPaddingValue"].VR = vr

    def build(folder: Path) -> list[Truth]:
        write_study(folder, phantom.but(change=change, tags=tag))
        truth = phantom.truth()
        return [Truth(truth.array, truth.affine, where=where)]

    return Case(name, build, findings=("padding",))


def in_upper_bits(data: Dataset, k: int) -> None:
    """ACR-NEMA allowed HighBit 15 for 12 bits: values lie in the upper bits, something else below."""
    pixels = np.frombuffer(data.PixelData, np.uint16)
    data.PixelData = ((pixels << 4) | (np.arange(pixels.size, dtype=np.uint16) & 15)).tobytes()
    data.HighBit = 15


def compressed(syntax: str, base: Phantom, name: str = "") -> Case:
    """A series in one transfer syntax; what is lossy equals a peer's decoder and is flagged."""
    tags = {"LossyImageCompression": "01"} if SYNTAXES[syntax].lossy else {}
    findings = ("lossy",) if SYNTAXES[syntax].lossy else ()
    return one(f"{syntax}{name}", base.but(syntax=syntax, tags=tags), *findings)


def fragmented(syntax: str, fragments: int, offset_table: bool) -> Case:
    table = "with" if offset_table else "without"
    name = f"{syntax}, {fragments} fragments a frame, {table} offset table"
    return one(name, TWELVE.but(syntax=syntax, fragments=fragments, offset_table=offset_table))


def unprefaced(with_meta: bool) -> Callable[[Path, list[Path]], None]:
    def change(folder: Path, files: list[Path]) -> None:
        for file in files:
            strip_preamble(file, with_meta)

    return change


def _suffixless(folder: Path, files: list[Path]) -> None:
    for n, file in enumerate(sorted(files)):
        file.rename(folder / f"{n}")


def _trailing(data: Dataset, k: int) -> None:
    data.PixelData += bytes(10)


def _short_pixels(data: Dataset, k: int) -> None:
    if k == 2:
        data.PixelData = data.PixelData[:-4]


def _no_pixels(data: Dataset, k: int) -> None:
    if k == 2:
        del data.PixelData


def _lossy_history(folder: Path) -> list[Truth]:
    write_study(folder, PLAIN.but(tags={"LossyImageCompression": "01"}))
    return [PLAIN.truth()]


def _one_slice_wrongly_signed(folder: Path) -> list[Truth]:
    unsigned = PLAIN.but(stored="uint16", shape=(9, 7, 3), depths=(7.5, 10.0, 12.5), intercepts=-1024.0)
    write_study(folder, PLAIN.but(shape=(9, 7, 3)), unsigned)
    return [PLAIN.truth()]


def _mixed_syntaxes(folder: Path) -> list[Truth]:
    lower = TWELVE.but(shape=(21, 18, 2), syntax="JPEG-LS lossless")
    write_study(folder, lower, TWELVE.but(shape=(21, 18, 2), depths=(5.0, 7.5), syntax="RLE"))
    return [TWELVE.truth()]


PET = PLAIN.but(slopes=tuple(0.15 * (k + 1) for k in range(6)), intercepts=0.0, modality="PT", tags={
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Units": "BQML"})  # fmt: skip

CASES = [
    one("MONOCHROME1", PLAIN.but(tags={"PhotometricInterpretation": "MONOCHROME1"}), "monochrome1"),
    one("per-slice slope", PET),
    one("per-slice intercept", PLAIN.but(intercepts=tuple(-1024.0 + 8 * k for k in range(6)))),
    one("fractional slope and intercept", PLAIN.but(slopes=0.7317, intercepts=-13.25)),
    one("negative slope", PLAIN.but(slopes=-1.0, intercepts=5000.0)),
    one("no rescale", PLAIN.but(slopes=None, modality="MR")),
    one("Modality LUT sequence", PLAIN.but(slopes=None, stored="uint16", change=lookup_table,
                                           stored_of=lambda value: FIRST + LARGEST - value)),
    one("large slope and values beyond int16", PLAIN.but(slopes=1.0, intercepts=0.0, offset=50000.0, stored="uint16")),
    padded("padding, signed", PLAIN, -2000, {"PixelPaddingValue": -2000}),
    padded("padding, unsigned", PLAIN.but(stored="uint16"), 0, {"PixelPaddingValue": 0}),
    padded("padding, signed value under an unsigned VR", PLAIN, -2000, {"PixelPaddingValue": 63536}, "US"),
    padded("padding, range limit", PLAIN, -1990, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980}),
    one("12 bits in 16, rubbish above", PLAIN.but(stored="uint16", bits=12, rubbish=True)),
    one("signed 12 bits without sign extension", SIGNED_12.but(change=lambda data, k: setattr(
        data, "PixelData", (np.frombuffer(data.PixelData, np.uint16) & 0x0FFF).tobytes()))),
    one("signed 12 bits, rubbish above", SIGNED_12.but(rubbish=True)),
    one("8 bits, odd number of pixels", EIGHT),
    one("8 bits, signed", EIGHT.but(stored="int8", offset=0.0)),
    one("32 bits", PLAIN.but(stored="int32", bits=32, offset=100000.0, intercepts=0.0)),
    one("32 bits, unsigned, 20 stored", PLAIN.but(stored="uint32", bits=20, offset=100000.0, intercepts=0.0)),
    Case("signedness differs between slices", _one_slice_wrongly_signed, "either"),
    Case("values in the upper 12 bits (HighBit 15)", one("", PLAIN.but(
        stored="uint16", bits=12, change=in_upper_bits)).build, "either"),
    Case("lossy once, stored uncompressed", _lossy_history, findings=("lossy",)),
    *(compressed(syntax, BYTES if syntax == "JPEG baseline" else TWELVE) for syntax in SYNTAXES),
    *(compressed(syntax, SIGNED, ", signed") for syntax in SYNTAXES if not SYNTAXES[syntax].lossy),
    *(compressed(syntax, BYTES, ", 8 bits") for syntax in SYNTAXES if "12 bit" not in syntax and "base" not in syntax),
    one("explicit big endian, 32 bits", PLAIN.but(stored="int32", bits=32, syntax="explicit big endian")),
    one("RLE, 12 bits, rubbish above", PLAIN.but(stored="uint16", bits=12, rubbish=True, syntax="RLE")),
    Case("JPEG-LS and RLE in one series", _mixed_syntaxes),
    *(fragmented(syntax, count, table) for syntax in ("JPEG 2000 lossless", "JPEG-LS lossless", "JPEG lossless SV1")
      for count, table in ((3, True), (3, False), (1, False))),
    one("private sequences of undefined length", OBLIQUE.but(change=private_block)),
    one("private sequences, implicit little endian", OBLIQUE.but(
        change=private_block, syntax="implicit little endian")),
    one("icon image before the pixels", PLAIN.but(change=icon)),
    one("icon image before compressed pixels", TWELVE.but(change=icon, syntax="JPEG-LS lossless")),
    one("NumberOfFrames 1", PLAIN.but(tags={"NumberOfFrames": 1})),
    one("trailing bytes after the pixels", PLAIN.but(change=_trailing)),
    changed("no preamble", unprefaced(with_meta=True)),
    changed("no preamble and no meta information", unprefaced(with_meta=False)),
    changed("file names without suffix", _suffixless),
    mixed("pixel data too short", PLAIN.but(change=_short_pixels)),
    mixed("a slice without pixels", PLAIN.but(change=_no_pixels)),
]  # fmt: skip
