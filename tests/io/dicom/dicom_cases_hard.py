"""Battery cases beyond the usual list: what sloppy exports, long stacks and odd scanners do to a study."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pydicom
from dicom_battery import Case
from dicom_cases_geometry import changed, mixed, one
from dicom_cases_several import several, twice
from dicom_phantom_codecs import encode
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, Truth, euler, slice_of, write_study
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

PLAIN = Phantom()
MR = Phantom(modality="MR", slopes=None, stored="uint16", offset=700.0)
SIX = 6
THIN = 120


def _over_sub_folders(folder: Path, files: list[Path]) -> None:
    for n, file in enumerate(files):
        target = folder / f"{n // 3:02d}"
        target.mkdir(exist_ok=True)
        shutil.move(file, target / file.name)


def _renamed_folder(folder: Path, files: list[Path]) -> None:
    target = folder / "Studie größer, 2"
    target.mkdir()
    for file in files:
        shutil.move(file, target / f"Bild {file.name}")


def _two_folders_same_uids(folder: Path) -> list[Truth]:
    first, second = PLAIN, PLAIN.but(offset=1300.0)
    write_study(folder / "before", first)
    files = write_study(folder / "after", second)
    for k, file in enumerate(files):
        data = pydicom.dcmread(file)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = slice_of(first, k).SOPInstanceUID
        data.save_as(file)
    return [first.truth(), second.truth()]


def _sideways(data: Dataset, k: int) -> None:
    if k == 3:
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x + 4, y, z]


def _radial(folder: Path) -> list[Truth]:
    write_study(folder, *RADIAL)
    return [phantom.truth() for phantom in RADIAL]


def _all_in_one_place(folder: Path) -> list[Truth]:
    slices = [PLAIN.but(shape=(9, 7, 1), offset=1000.0 + 40 * n, numbers=(n + 1,)) for n in range(3)]
    write_study(folder, *slices)
    return [p.truth() for p in slices]


def _echoes_and_times(folder: Path) -> list[Truth]:
    volumes = [
        MR.but(
            offset=700.0 + 200 * time + 90 * echo,
            tags={"EchoTime": str(4.6 * (echo + 1)), "TemporalPositionIdentifier": time + 1},
        )
        for time, echo in itertools.product((0, 1), (0, 1))
    ]
    write_study(folder, *volumes)
    return [v.truth() for v in volumes]


def _put(data: Dataset, keyword: str, values: list[str]) -> None:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    data[tag] = DataElement(tag, "DS", values, validation_mode=pydicom.config.IGNORE)


def _position_in_words(folder: Path) -> list[Truth]:
    marked = PLAIN.but(change=lambda data, k: _put(data, "ImagePositionPatient", ["7654321", "0", str(k)]))
    files = write_study(folder, marked)
    files[2].write_bytes(files[2].read_bytes().replace(b"7654321", b"to left"))
    return []


def spoiled(name: str, keyword: str, values: list[str], every: bool = False) -> Case:
    """One slice, or every slice, with an impossible geometry element."""

    def change(data: Dataset, k: int) -> None:
        if every or k == 2:
            _put(data, keyword, values)

    return mixed(name, PLAIN.but(change=change))


def _as_unknown(data: Dataset, k: int) -> None:
    position = "\\".join(f"{v:g}" for v in PLAIN.positions[k]).encode()
    tag = pydicom.datadict.tag_for_keyword("ImagePositionPatient")
    data[tag] = DataElement(tag, "UN", position + b" " * (len(position) % 2))


def _stream_of_another_size(folder: Path) -> list[Truth]:
    phantom = Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax="JPEG-LS lossless")
    files = write_study(folder, phantom)
    data = pydicom.dcmread(files[2])
    pixels = np.zeros((data.Columns, data.Rows), np.uint16) + 700
    data.PixelData = encapsulate([encode(pixels, "JPEG-LS lossless")])
    data["PixelData"].is_undefined_length = True
    data.save_as(files[2])
    return []


def _mosaic(folder: Path) -> list[Truth]:
    """A Siemens mosaic: slices tiled in one image, whose position is that of no slice."""
    phantom = PLAIN.but(shape=(18, 14, 1), modality="MR", tags={"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]})
    write_study(folder, phantom)
    return []


def _frames_by_dimension_only(folder: Path) -> list[Truth]:
    """Two b-values of an enhanced MR: no time index, told apart by MRDiffusionSequence and the dimension indices."""
    pair = MR, MR.but(offset=1000.0)
    path = write_enhanced(folder / "IM0000.dcm", *pair)
    data = pydicom.dcmread(path)
    for group in data.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        diffusion = Dataset()
        diffusion.DiffusionBValue = 1000.0 * (content.TemporalPositionIndex - 1)
        diffusion.DiffusionDirectionality = "ISOTROPIC"
        group.MRDiffusionSequence = Sequence([diffusion])
        del content.TemporalPositionIndex
    pointer = data.DimensionIndexSequence[2]
    pointer.DimensionIndexPointer = pydicom.datadict.tag_for_keyword("DiffusionBValue")
    pointer.FunctionalGroupPointer = pydicom.datadict.tag_for_keyword("MRDiffusionSequence")
    data.save_as(path)
    return [p.truth() for p in pair]


def _frames_nothing_tells_apart(folder: Path) -> list[Truth]:
    path = write_enhanced(folder / "IM0000.dcm", PLAIN, PLAIN.but(offset=1300.0))
    data = pydicom.dcmread(path)
    for group in data.PerFrameFunctionalGroupsSequence:
        content = group.FrameContentSequence[0]
        content.TemporalPositionIndex, content.DimensionIndexValues = 1, [1, content.InStackPositionNumber, 1]
    data.save_as(path)
    return []


def _no_rescale_above(data: Dataset, k: int) -> None:
    if k >= 3:
        del data.RescaleSlope, data.RescaleIntercept


EVERY_OTHER = tuple(2.5 * k for k in range(4)) + tuple(7.5 + 5.0 * k for k in range(1, 4))
THIN_STACK = Phantom(shape=(4, 5, THIN), spacing=(0.8, 1.1, 0.5), offset=800.0)
THIN_GAP = THIN_STACK.but(shape=(4, 5, THIN - 1), depths=tuple(0.5 * k for k in range(THIN) if k != 71))
JITTER = tuple(2.5 * k + (0.004 if k % 2 else 0.0) for k in range(SIX))
RADIAL = [PLAIN.but(shape=(9, 7, 1), turn=euler(y=30.0 * n), offset=1000.0) for n in range(4)]

CASES = [
    changed("one series over two sub-folders", _over_sub_folders),
    changed("names with spaces and umlauts", _renamed_folder),
    Case("two folders with the same UIDs, other pixels", _two_folders_same_uids, "either"),
    mixed("one slice shifted sideways", PLAIN.but(change=_sideways)),
    Case("radial slices", _radial, "either"),
    Case("three images in one place", _all_in_one_place, "either"),
    mixed("two volumes, nothing tells them apart", PLAIN.but(numbers=(1,) * SIX),
          PLAIN.but(numbers=(1,) * SIX, offset=1300.0)),
    Case("two echoes at two time points", _echoes_and_times, "several"),
    several("three time points", *(MR.but(offset=700.0 + 200 * n, tags={
        "TemporalPositionIdentifier": n + 1}) for n in range(3)), findings=("time_points",), says=("3 ",)),
    twice("two time points, one position each", PLAIN.but(shape=(9, 7, 1)),
          lambda n, k: {"TemporalPositionIdentifier": n + 1}),
    one("120 thin slices", THIN_STACK),
    mixed("one of 120 thin slices missing", THIN_GAP, says=("missing",)),
    mixed("spacing doubles half-way", PLAIN.but(shape=(9, 7, 7), depths=EVERY_OTHER)),
    Case("positions jitter by 4 um", one("", PLAIN.but(depths=JITTER)).build),
    spoiled("position is not a number", "ImagePositionPatient", ["nan", "0", "0"]),
    spoiled("position has two values", "ImagePositionPatient", ["0", "0"]),
    Case("position in words", _position_in_words, "refused"),
    spoiled("orientation of parallel vectors", "ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"], every=True),
    spoiled("orientation of zeros", "ImageOrientationPatient", ["0"] * 6, every=True),
    spoiled("pixel spacing of zero", "PixelSpacing", ["0", "0"], every=True),
    spoiled("negative pixel spacing", "PixelSpacing", ["-1.1", "0.8"], every=True),
    Case("slope of zero", one("", PLAIN.but(
        change=lambda data, k: setattr(data, "RescaleSlope", "0"))).build, "either"),
    Case("positions under VR UN", one("", PLAIN.but(change=_as_unknown)).build, "either"),
    Case("rescale missing on some slices", one("", PLAIN.but(
        intercepts=(-1024.0,) * 3 + (0.0,) * 3, change=_no_rescale_above)).build, "either"),
    one("old group lengths", PLAIN.but(change=lambda data, k: data.add_new(0x00280000, "UL", 300))),
    one("character sets", PLAIN.but(tags={"SpecificCharacterSet": "ISO_IR 100", "SeriesDescription": "größer"})),
    Case("JPEG-LS stream of another size than the header says", _stream_of_another_size, "refused"),
    Case("mosaic", _mosaic, "refused"),
    Case("enhanced: two b-values, no time index", _frames_by_dimension_only, "several"),
    Case("enhanced: frames that nothing tells apart", _frames_nothing_tells_apart, "refused"),
]  # fmt: skip
