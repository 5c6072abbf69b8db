"""The synthetic samples on disk: `data_samples/` of the repository, which the package includes, too."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from medseg.config import packaged
from medseg.errors import ReadError
from medseg.geometry import flip_lps_ras, reorient
from medseg.phantoms.chest import TUMOUR, make_phantom
from medseg.phantoms.retina import make_retina
from medseg.volume import Volume
from medseg.windowing import window

__all__ = ["CASES", "STUDY_SEED", "sample_study", "samples_folder", "write_samples"]

STUDY_SEED = 100
CASES = 10
SLICES = 6
RETINAS = 6


def samples_folder() -> Path:
    """The folder of samples that comes with medseg: `chest/`, `study/`, `study_reference/`, `slice/`, `retina/`.

    Raises:
        ReadError: if this installation does not include them.
    """
    folder = packaged("data_samples")
    if folder is None:
        raise ReadError(
            "this installation does not include data_samples; write them with: python -m medseg.phantoms DIR"
        )
    return folder


def sample_study(folder: Path) -> tuple[Path, Path]:
    """The DICOM study of the samples and the folder with its reference mask, `study.nii.gz`.

    Args:
        folder: where both are drawn if this installation does not include the samples; not touched otherwise.

    Returns:
        The folder of the DICOM files, and the folder of the reference.
    """
    root = packaged("data_samples")
    if root is None:
        root = folder
        _write_study_and_reference(root)
    return root / "study", root / "study_reference"


def write_samples(folder: Path) -> None:
    """Write the training set, the held-out DICOM study with its reference, and the 2D slices.

    Args:
        folder: is made if missing; files of the same names are replaced.
    """
    from PIL import Image

    for part in (
        "chest/images",
        "chest/labels",
        "slice/images",
        "slice/masks",
        "retina/images",
        "retina/labels",
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for seed in range(1, CASES + 1):
        image, labels = make_phantom(seed)
        name = f"phantom_{seed:02d}"
        # Real folders mix axis orders; here every other case does.
        target = "LPS" if seed % 2 else "RAS"
        _write_nifti(reorient(image, target), folder / "chest" / "images" / f"{name}.nii.gz")
        _write_nifti(reorient(labels, target), folder / "chest" / "labels" / f"{name}.nii.gz")
        if seed <= RETINAS:
            picture, vessels = make_retina(seed)
            Image.fromarray(picture.transpose(1, 0, 2)).save(folder / f"retina/images/{name}.png", optimize=True)
            Image.fromarray(vessels.T).save(folder / f"retina/labels/{name}.png", optimize=True)
        if seed <= SLICES:
            sizes = (labels.array == TUMOUR).sum(axis=(0, 1))
            k = int(sizes.argmax())
            grey = np.round(255 * window(image.array[:, :, k], center=-200, width=1600)).astype(np.uint8)
            Image.fromarray(grey.T).save(folder / "slice" / "images" / f"{name}.png", optimize=True)
            Image.fromarray(labels.array[:, :, k].T).save(folder / "slice" / "masks" / f"{name}.png", optimize=True)
    _write_study_and_reference(folder)


def _write_study_and_reference(folder: Path) -> None:
    for part in ("study", "study_reference"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    image, labels = make_phantom(STUDY_SEED)
    _write_study(image, folder / "study")
    _write_nifti(labels, folder / "study_reference" / "study.nii.gz")


def _write_nifti(volume: Volume, path: Path) -> None:
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_data_dtype(volume.array.dtype)
    image = nib.Nifti1Image(np.asarray(volume.array), volume.affine, header)
    image.set_qform(volume.affine, code=1)
    image.set_sform(volume.affine, code=1)
    # No time stamp, so that the same phantom is the same file.
    path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


def _write_study(volume: Volume, folder: Path) -> None:
    """One CT series, a file per slice; names and InstanceNumber are shuffled, so that only positions give the order."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def uid(*what: object) -> UID:
        return generate_uid(entropy_srcs=["medseg phantom", *map(str, what)])

    lps = flip_lps_ras(volume.affine)
    count = volume.shape[2]
    numbers = np.random.default_rng(STUDY_SEED).permutation(count) + 1
    for k in range(count):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = uid(STUDY_SEED, "image", k)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = uid("implementation")
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SpecificCharacterSet = "ISO_IR 192"
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.SOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID = uid(STUDY_SEED, "study")
        slice_.SeriesInstanceUID = uid(STUDY_SEED, "series")
        slice_.FrameOfReferenceUID = uid(STUDY_SEED, "frame")
        slice_.PatientName, slice_.PatientID = "Phantom^One", "PHANTOM-1"
        slice_.PatientBirthDate, slice_.PatientSex, slice_.PatientPosition = "", "O", "HFS"
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20250101", "120000", "1", ""
        slice_.ReferringPhysicianName, slice_.PositionReferenceIndicator = "", ""
        slice_.Modality, slice_.Manufacturer, slice_.KVP, slice_.AcquisitionNumber = "CT", "medseg phantoms", "120", 1
        slice_.SeriesNumber, slice_.SeriesDescription = 1, "Synthetic chest"
        slice_.InstanceNumber = int(numbers[k])
        position = (lps @ [0, 0, k, 1])[:3]
        slice_.ImagePositionPatient = [f"{p:.6f}" for p in position]
        slice_.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        # DICOM gives the distance between rows first.
        slice_.PixelSpacing = [f"{volume.spacing_mm[1]:.8f}", f"{volume.spacing_mm[0]:.8f}"]
        slice_.SliceThickness = f"{volume.spacing_mm[2]:.8f}"
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.Rows, slice_.Columns = volume.shape[1], volume.shape[0]
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 12, 11, 0
        slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = "-1024", "1", "HU"
        slice_.WindowCenter, slice_.WindowWidth = "40", "400"
        stored = (volume.array[:, :, k].T.astype(np.int32) + 1024).astype("<u2")
        slice_.PixelData = stored.tobytes()
        slice_.save_as(folder / f"IM{numbers[k]:04d}.dcm", enforce_file_format=True)
