"""Made-up inputs under the paths of the real data, so that a rule is tested where the real data is absent.

All of it is drawn and written by code; there is no patient in it. What a test compares with (label maps, NIfTI and NRRD
copies) is written by nibabel, SimpleITK and highdicom, not by medseg. The inputs are as small as the tests allow; what
only the variety of real scanners and patients can show stays with the tests that use `real_data`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_segmentations
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from dicom_phantoms import Phantom, euler, save, slice_of, write_study
from PIL import Image, ImageFilter

from medseg.phantoms import samples_folder

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Identifying text of every kind that de-identification has to remove, and a private element.
PERSON = {
    "PatientBirthDate": "19610417",
    "PatientSex": "F",
    "StudyID": "ST-3301",
    "OtherPatientIDs": "OTHER-5512",
    "AccessionNumber": "ACC-90210",
    "InstitutionName": "Nowhere General Hospital",
    "ReferringPhysicianName": "Referrer^Rosa",
    "OperatorsName": "Operator^Olaf",
    "StationName": "SCANNER-07",
    "DeviceSerialNumber": "SN-445566",
    "StudyDate": "20190305",
    "SeriesDate": "20190305",
    "StudyTime": "101742.123",
}
SAGITTAL = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
MR = Phantom(modality="MR", slopes=None, stored="uint16", bits=12, offset=1500.0, tags=PERSON)


def make(folder: Path) -> Path:
    """Write all inputs (about 8 MB, 3 seconds) and return `folder`."""
    for part in (_chest, _magnetic_resonance, _codecs, _irregular, _headers, _brain, _hippocampus, _pictures):
        part(folder)
    made_segmentations.make(folder / "dicom_seg", PERSON)
    return folder


def _with_private_element(data: Any, k: int) -> None:
    data.private_block(0x0029, "MADE UP", create=True).add_new(0x10, "LO", f"private text of slice {k}")


def _nifti(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def _nrrd(array: np.ndarray, affine_ras: np.ndarray, path: Path) -> None:
    """`array` is `[i, j, k]`, its axes along the columns of an affine without shear."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = RAS @ affine_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))


def _series(array: np.ndarray, affine_ras: np.ndarray, folder: Path, syntax: str = "explicit little endian") -> None:
    """A CT series of stored values `[i, j, k]` on a grid whose axes lie along the patient's, in LPS order."""
    lps = RAS @ affine_ras
    spacing = tuple(np.linalg.norm(lps[:3, :3], axis=0))
    phantom = Phantom(shape=array.shape, spacing=spacing, origin=tuple(lps[:3, 3]), intercepts=0.0, tags=PERSON)
    phantom = phantom.but(gradient=(0, 0, 0), offset=0.0, change=_with_private_element)
    for k in range(array.shape[2]):
        data = slice_of(phantom, k)
        data.PixelData = np.ascontiguousarray(array[:, :, k].T, "<i2").tobytes()
        save(data, folder / f"{k:04d}.dcm", syntax)


def _chest(folder: Path) -> None:
    """One CT as DICOM and NRRD with lungs and their thirds, and one in JPEG 2000 with a label map in another order."""
    sample = samples_folder() / "chest"
    image, labels = (nib.load(sample / kind / "phantom_01.nii.gz") for kind in ("images", "labels"))
    scan, affine = np.asarray(image.dataobj), image.affine
    place = folder / "lung_ct_cip"
    lungs = np.asarray(labels.dataobj) > 0
    i, _, k = np.indices(lungs.shape)
    third = np.digitize(k, np.quantile(k[lungs], (1 / 3, 2 / 3)))
    # LPS: the patient's left has the larger i; 9 to 11 are thirds of the left lung, 12 to 14 of the right.
    side = np.where(i > i[lungs].mean(), 9, 12)
    for name, array in (("ct-64", scan), ("wholeLung-64", lungs.astype(np.uint8))):
        _nrrd(array, affine, place / f"{name}.nrrd")
    _nrrd(np.where(lungs, side + third, 0).astype(np.uint16), affine, place / "lm-64.nrrd")
    _series(scan, affine, place / "ct-64Dicom")

    place = folder / "ct_totalseg"
    middle = scan[:, :, 10:20]
    affine = affine @ np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 10], [0, 0, 0, 1]])
    _series(middle, affine, place / "example_ct_dicom", "JPEG 2000 lossless")
    turned = affine @ np.array([[-1.0, 0, 0, middle.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    tissue = np.where((middle > -50) & (middle < 300), 5, 0).astype(np.uint8)
    _nifti(tissue[::-1], turned, place / "example_seg_dicom.nii.gz")


def _magnetic_resonance(folder: Path) -> None:
    oblique = MR.but(turn=euler(12.0, -17.0, 23.0), spacing=(0.7, 0.7, 6.5), change=_with_private_element)
    write_study(folder / "dicom_mr_t1post", oblique.but(shape=(150, 172, 14), gradient=(3.0, -2.0, 4.0)))
    write_study(folder / "dicom_mr_hcrop", MR.but(shape=(35, 51, 12), spacing=(1.0, 1.0, 1.0), series=2))


def _codecs(folder: Path) -> None:
    """One image, uncompressed and in four transfer syntaxes, under one set of UIDs, and its NIfTI twin."""
    folder = folder / "dicom_compressed"
    image = MR.but(shape=(28, 24, 4), turn=SAGITTAL, change=_with_private_element)
    names = {"j2k": "JPEG 2000 lossless", "jpeg": "JPEG lossless SV1", "jpegls": "JPEG-LS lossless", "rle": "RLE"}
    write_study(folder / "anatomical", image)
    for name, syntax in names.items():
        write_study(folder / f"compressed_{name}", image.but(syntax=syntax))
    array = np.stack([image.stored_values(k).T for k in range(4)], axis=-1)
    _nifti(array, image.affine, folder / "001_ground_truth.nii.gz")


def _irregular(folder: Path) -> None:
    """A tilted gantry (14 degrees, as wide as a real one), slices at 0, 5, 10 and 20 mm, and two slices only."""
    folder = folder / "dicom_bad"
    tilted = Phantom(shape=(512, 512, 4), spacing=(0.41796875, 0.41796875, 5.0), turn=euler(x=-14.0), tilt_deg=-14.0)
    write_study(folder / "gantrytilting", tilted.but(tags={"GantryDetectorTilt": 14}))
    # Two micrometres short, as a scanner that computes in float32 writes it.
    gap = Phantom(shape=(18, 16, 4), spacing=(1.0, 1.0, 5.0), depths=(0.0, 5.0, 9.999998, 20.0))
    gap = gap.but(numbers=(7, 8, 9, 10), tags={"SliceThickness": None})
    for k in range(4):
        save(slice_of(gap, k), folder / "sliceincrement" / f"IM-0001-{7 + k:04d}-0001.dcm")
    write_study(folder / "slicecount", MR.but(shape=(18, 16, 2), turn=SAGITTAL, change=_with_private_element))


def _headers(folder: Path) -> None:
    """NIfTI in six axis orders, NIfTI-2, 4D, and big-endian."""
    folder = folder / "nifti_edge"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    affine = np.array([[2.0, 0, 0, -30], [0, 1.5, 0, -50], [0, 0, 1.0, -20], [0, 0, 0, 1]])
    head = nib.Nifti1Image(rng.integers(0, 900, (17, 21, 13)).astype(np.int16), affine)
    for order in ("ASR", "LAS", "LPS", "PIR", "RAS", "SLA"):
        change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(order))
        nib.save(head.as_reoriented(change), folder / f"space_{order}.nii.gz")
    _nifti(rng.random((20, 16, 10)).astype(np.float32), affine, folder / "standard.nii.gz")
    _nifti(rng.integers(0, 900, (32, 20, 12, 2)).astype(np.int16), affine, folder / "example4d.nii.gz")
    two = nib.Nifti2Image(rng.integers(0, 900, (32, 20, 12, 2)).astype(np.int16), affine)
    nib.save(two, folder / "example_nifti2.nii.gz")
    big = nib.Nifti1Header(endianness=">")
    big.set_data_dtype(">i2")
    values = rng.integers(0, 900, (33, 41, 25)).astype(">i2")
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine, big), folder / "anatomical.nii")


def _brain(folder: Path) -> None:
    """Standardized FLAIR and T1c, tumour classes, and a brain mask stored as int32 with a tiny slope and intercept."""
    folder = folder / "tumor_brats2013" / "brats_2013_pat0001_1"
    shape, affine = (60, 60, 39), np.diag([-4.0, -4.0, 4.0, 1.0])
    middle = (np.array(shape) - 1) / 2
    apart = np.moveaxis(np.indices(shape), 0, -1) - middle
    brain = np.linalg.norm(apart / (17, 20, 16), axis=-1) < 1
    tumour = np.linalg.norm(apart - (6, 4, 2), axis=-1)
    classes = np.digitize(tumour, (2, 3.5, 5, 7))
    rng = np.random.default_rng(5)
    for name, bright in (("Flair", 3.0), ("T1c", 1.5)):
        values = np.where(brain, rng.normal(0, 0.3, shape) + bright * (tumour < 7), -1.0)
        _nifti(values.astype(np.float32), affine, folder / f"{name}_subtrMeanDivStd.nii.gz")
    _nifti(np.array([4, 1, 3, 2, 0], np.uint8)[classes], affine, folder / "OTMultiClass.nii.gz")
    # Where a slope is set, nibabel stores the values as they are.
    mask = nib.Nifti1Image(np.where(brain, 2**31 - 1, -(2**31)).astype(np.int32), affine)
    mask.header.set_slope_inter(1 / (2**32 - 1), 0.5)
    nib.save(mask, folder / "brainmask.nii.gz")


def _hippocampus(folder: Path) -> None:
    """60 crops of about 35 x 50 x 35 mm in which a bright organ has a front and a rear part."""
    folder = folder / "hippocampus"
    for number in range(1, 61):
        rng = np.random.default_rng([number, 17])
        shape = (35, 51, 35) if number == 1 else tuple(rng.integers((32, 46, 32), (39, 55, 39)))
        apart = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2 - rng.uniform(-1, 1, 3)
        inside = np.linalg.norm(apart / (6, 13, 6), axis=-1) < 1
        labels = np.where(inside, np.where(apart[..., 1] > 2, 1, 2), 0).astype(np.uint8)
        image = rng.normal(60, 12, shape) + 70 * inside
        for kind, array in (("images", image.clip(0, 255).astype(np.uint8)), ("labels", labels)):
            _nifti(array, np.eye(4), folder / kind / f"hippocampus_{number:03d}.nii.gz")


def _pictures(folder: Path) -> None:
    """Lungs as grey pictures with anti-aliased masks in colour files; a retina with a mask of one bit per pixel."""
    rng = np.random.default_rng(11)
    for number in range(12):
        lungs = np.zeros((256, 256), np.uint8)
        for middle in (70, 186):
            x, y = np.meshgrid(*[np.arange(256)] * 2)
            lungs[np.hypot((x - middle) / 40, (y - 120 - number) / 70) < 1] = 255
        soft = Image.fromarray(lungs).filter(ImageFilter.GaussianBlur(1))
        grey = np.clip(rng.normal(160, 10, lungs.shape) - 110 * (lungs > 0), 0, 255).astype(np.uint8)
        for kind, picture in (("images", Image.fromarray(grey)), ("masks", soft.convert("RGB"))):
            place = folder / "lung2d_lungsegdb" / kind
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"lung_{number:02d}.png")
    place = folder / "vessel2d_chasedb1"
    place.mkdir(parents=True)
    sample = samples_folder() / "retina"
    size = (640, 640)
    photograph = Image.open(sample / "images" / "phantom_01.png").resize(size, Image.Resampling.BICUBIC)
    photograph.save(place / "Image_01L.jpg", quality=95)
    vessels = Image.open(sample / "labels" / "phantom_01.png").point(lambda value: 255 * value)
    smooth = vessels.resize(size, Image.Resampling.BICUBIC)
    smooth.point(lambda value: 255 * (value > 127)).convert("1").save(place / "Image_01L_1stHO.png")
