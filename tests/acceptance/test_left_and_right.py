"""A trained left/right model, applied to the patient in every axis order, from NIfTI and from DICOM."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import medseg
from medseg.geometry import flip_lps_ras, reorient
from medseg.volume import Volume

ORDERS = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*axes)
]
LABELS = {"left_lung": [9, 10, 11], "right_lung": [12, 13, 14]}


def _write_dicom(volume: Volume, folder: Path) -> None:
    """The volume as a CT series whose columns, rows and slices run along its axes i, j, k."""
    folder.mkdir(parents=True)
    lps = flip_lps_ras(volume.affine)
    directions = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    study, series, frame = (generate_uid(entropy_srcs=[folder.name, kind]) for kind in ("study", "series", "frame"))
    for k in range(volume.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[folder.name, str(k)])
        image = Dataset()
        image.file_meta = meta
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.PatientName, image.PatientID, image.Modality = "Test^One", "1", "CT"
        image.ImageType, image.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1
        image.ImagePositionPatient = [f"{value:.9g}" for value in (lps @ [0, 0, k, 1])[:3]]
        image.ImageOrientationPatient = [f"{value:.9g}" for value in (*directions[:, 0], *directions[:, 1])]
        image.PixelSpacing = [f"{volume.spacing_mm[1]:.9g}", f"{volume.spacing_mm[0]:.9g}"]
        image.Rows, image.Columns = volume.shape[1], volume.shape[0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleIntercept, image.RescaleSlope = "0", "1"
        image.PixelData = np.ascontiguousarray(volume.array[:, :, k].T).astype("<i2").tobytes()
        image.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


def _center_x(labels: NDArray[np.integer], affine: NDArray[np.float64], values: list[int]) -> float:
    voxels = np.argwhere(np.isin(labels, values))
    return float((affine @ [*voxels.mean(axis=0), 1.0])[0])


@pytest.mark.slow
def test_left_is_on_the_patients_left_in_all_48_axis_orders(one_data_folder: Path, tmp_path: Path) -> None:
    ct = medseg.read(one_data_folder / "lung_ct_cip" / "ct-64.nrrd")
    regions = medseg.read(one_data_folder / "lung_ct_cip" / "lm-64.nrrd")
    medseg.write(ct, tmp_path / "data" / "images" / "chest.nii.gz")
    lungs = regions.with_array((regions.array & 255).astype(np.uint8))
    medseg.write(lungs, tmp_path / "data" / "labels" / "chest.nii.gz")
    (tmp_path / "config.yaml").write_text("data: {modality: CT}\nprediction: {mirror: false, overlap: 0.25}\n")
    overrides = {
        "data.root": str(tmp_path / "data"),
        "data.labels": LABELS,
        "output": str(tmp_path / "run"),
        "plan.patch_size": [48, 48, 48],
        "net.channels": [8, 16, 32, 64],
        "training.batch_size": 2,
        "training.max_iterations": 150,
        "training.learning_rate": 0.005,
        "training.ema_decay": 0.95,
    }
    model = medseg.load_model(medseg.train(tmp_path / "config.yaml", overrides=overrides).bundle, device="cpu")
    reference = reorient(model.predict(ct), "RAS")
    truth = reorient(lungs, "RAS").array
    for values in LABELS.values():
        both = np.isin(reference.array, values), np.isin(truth, values)
        assert 2 * (both[0] & both[1]).sum() / (both[0].sum() + both[1].sum()) > 0.85
    foreground = np.count_nonzero(reference.array)
    for order in ORDERS:
        turned = reorient(ct, order)
        medseg.write(turned, tmp_path / "nifti" / f"{order}.nii.gz")
        _write_dicom(turned, tmp_path / "dicom" / order)
        from_nifti = model.predict(medseg.read(tmp_path / "nifti" / f"{order}.nii.gz"))
        from_dicom = model.predict(medseg.read(tmp_path / "dicom" / order))
        assert from_nifti.orientation == order
        for labels in (from_nifti, from_dicom):
            left, right = (_center_x(labels.array, labels.affine, values) for values in LABELS.values())
            assert left < right - 50, order
            back = reorient(labels, "RAS").array
            assert np.count_nonzero(back != reference.array) <= 0.005 * foreground, order
        # The same network grid: not one voxel differs.
        assert np.array_equal(reorient(from_nifti, "RAS").array, reference.array), order
