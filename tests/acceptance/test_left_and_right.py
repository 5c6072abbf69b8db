"""A trained left/right model, applied to the patient in every axis order, from NIfTI and from DICOM."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import medseg
from medseg.geometry import flip_lps_ras, reorient

ORDERS = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*axes)
]
LABELS = {"left_lung": [9, 10, 11], "right_lung": [12, 13, 14]}


def _center_x(labels: NDArray[np.integer], affine: NDArray[np.float64], values: list[int]) -> float:
    voxels = np.argwhere(np.isin(labels, values))
    return float((affine @ [*voxels.mean(axis=0), 1.0])[0])


@pytest.mark.slow
def test_left_is_on_the_patients_left_in_all_48_axis_orders(
    one_data_folder: Path, write_series: Callable[..., list[Path]], tmp_path: Path
) -> None:
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
        write_series(tmp_path / "dicom" / order, turned.array, flip_lps_ras(turned.affine))
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
