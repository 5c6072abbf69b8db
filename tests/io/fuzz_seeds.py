"""Undamaged inputs of every kind, for `fuzzing.py` to damage.

A new kind of input is one line in `ENTRIES`: a name, what writes a seed into an empty folder, and the reader.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# The phantoms of tests/io/dicom, also where this file is run by itself.
sys.path.insert(0, str(Path(__file__).parent / "dicom"))
from dicom_phantom_codecs import SYNTAXES
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, write_study


@dataclass(frozen=True)
class Entry:
    """A kind of input: `make(folder)` writes a seed and returns what `read` is given."""

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]


def volume(shape: tuple[int, ...] = (9, 8, 7), dtype: str = "i2", channels: int = 0) -> Any:
    from medseg.volume import Volume

    array = (np.arange(np.prod(shape)) % 97).reshape(shape).astype(dtype)
    return Volume(array, np.array([[0.9, 0, 0, 5], [0, -1.1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]]), channels)


def read(path: Path) -> Any:
    from medseg.io import read as read_any

    return read_any(path)


def written(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from medseg.io import write

        write(volume(**options), folder / name)
        return folder / name

    return make


def nibabel_image(kind: str, name: str, code: str = "<") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import nibabel as nib

        make_image = getattr(nib, kind)
        header = make_image.header_class(endianness=code)
        header.set_data_dtype(np.dtype(f"{code}i2"))
        nib.save(make_image(volume().array, np.diag([1.0, 2, 3, 1]), header), folder / name)
        return folder / name

    return make


def simpleitk_image(name: str, compressed: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import SimpleITK as sitk

        sitk.WriteImage(sitk.GetImageFromArray(volume().array.T), str(folder / name), useCompression=compressed)
        return folder / name

    return make


def picture(name: str, mode: str = "L", **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 200, (23, 31)).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name, **options)
        return folder / name

    return make


def tiff(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import tifffile

        pages = np.arange(3 * 20 * 17, dtype=np.uint16).reshape(3, 20, 17)
        tifffile.imwrite(folder / name, pages, **options)
        return folder / name

    return make


def zipped(folder: Path) -> Path:
    written("ct.nii.gz")(folder)
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.write(folder / "ct.nii.gz", "study/ct.nii.gz")
        out.writestr("study/readme.txt", "nothing to see " * 20)
    (folder / "ct.nii.gz").unlink()
    return folder / "study.zip"


def decathlon(folder: Path) -> Path:
    from medseg.io import write

    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
        for case in ("a", "b"):
            write(volume((3, 4, 5), "u1"), folder / name / f"{case}.nii.gz")
    content = {
        "labels": {"0": "background", "1": "lung", "2": "tumour"},
        "modality": {"0": "CT"},
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "ab"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    return folder


def listed(folder: Path) -> Path:
    from medseg.io import write

    lines = ["case,image,label,group,split"]
    for case in ("a", "b"):
        for what in ("image", "label"):
            write(volume((3, 4, 5), "u1"), folder / f"{case}_{what}.nii.gz")
        lines.append(f"{case},{case}_image.nii.gz,{case}_label.nii.gz:1,patient {case},train")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    return folder


def read_dataset(folder: Path) -> Any:
    from medseg.config import DataConfig
    from medseg.datasets.cases import find_cases
    from medseg.io.images import read_image
    from medseg.io.label_maps import read_label_map

    # A list of cases names its labels in the config, dataset.json in itself.
    labels = {"lung": 1} if (folder / "cases.csv").exists() else None
    case = find_cases(DataConfig(root=folder, labels=labels)).cases[0]
    return read_image(case.images), read_label_map(case.labels)


def dicom_series(folder: Path, slices: int = 4) -> Path:
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    root = "1.2.826.0.1.3680043.8.498.9"
    for k in range(slices):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{root}.{k + 10}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{root}.1", f"{root}.2", f"{root}.3"
        data.PatientID, data.PatientName, data.Modality = "p1", "Doe^Jane", "CT"
        data.ImageType, data.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], k + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2.0 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness, data.Rows, data.Columns = [1.0, 1.0], 2.0, 8, 9
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = np.arange(72, dtype=np.uint16).tobytes()
        dcmwrite(folder / f"IM{k:03d}.dcm", data, enforce_file_format=True)
    return folder


def dicom_slice(folder: Path) -> Path:
    return dicom_series(folder, 1) / "IM000.dcm"


def phantom(syntax: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        eight = {"stored": "uint8", "bits": 8, "intercepts": 0.0, "offset": 150.0, "origin": (0.0, 0.0, 0.0)}
        depth = eight if syntax == "JPEG baseline" else {"stored": "uint16", "bits": 12}
        write_study(folder, Phantom(shape=(21, 18, 4), syntax=syntax, **depth))
        return folder

    return make


def enhanced(syntax: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_enhanced(folder / "enhanced.dcm", Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax=syntax))
        return folder

    return make


ENTRIES = (
    Entry("nifti", written("a.nii"), read),
    Entry("nifti-gz", written("a.nii.gz"), read),
    Entry("nifti-4d", written("a.nii.gz", shape=(3, 5, 6, 4), channels=3), read),
    Entry("nifti2-big-endian", nibabel_image("Nifti2Image", "a.nii", ">"), read),
    Entry("nifti-pair", nibabel_image("Nifti1Pair", "a.hdr"), read),
    Entry("analyze", nibabel_image("AnalyzeImage", "a.hdr"), read),
    Entry("nrrd", written("a.nrrd"), read),
    Entry("nrrd-raw", simpleitk_image("a.nrrd", False), read),
    Entry("nrrd-detached", simpleitk_image("a.nhdr", True), read),
    Entry("mha", written("a.mha"), read),
    Entry("mha-raw", simpleitk_image("a.mha", False), read),
    Entry("mhd", simpleitk_image("a.mhd", True), read),
    Entry("png", picture("a.png"), read),
    Entry("png-palette", picture("a.png", "P"), read),
    Entry("jpeg", picture("a.jpg", "RGB"), read),
    Entry("tiff", tiff("a.tif", compression="zlib", predictor=True, photometric="minisblack"), read),
    Entry("tiff-packbits", picture("a.tif", "RGB", compression="packbits"), read),
    Entry("tiff-plain", tiff("a.tif", photometric="minisblack", metadata=None), read),
    Entry("tiff-lzw", picture("a.tif", "RGB", compression="tiff_lzw"), read),
    Entry("zip", zipped, read),
    Entry("dataset-json", decathlon, read_dataset),
    Entry("dataset-csv", listed, read_dataset),
    Entry("dicom-series", dicom_series, read),
    Entry("dicom-slice", dicom_slice, read),
    *(Entry(f"dicom-{syntax.lower().replace(' ', '-')}", phantom(syntax), read) for syntax in SYNTAXES),
    Entry("dicom-enhanced", enhanced("explicit little endian"), read),
    Entry("dicom-enhanced-rle", enhanced("RLE"), read),
    Entry("dicom-enhanced-jpeg-ls", enhanced("JPEG-LS lossless"), read),
)
