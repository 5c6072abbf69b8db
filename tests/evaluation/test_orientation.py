"""Masks whose voxels lie on the reference's grid, stored with other axes first or in other directions."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.evaluation import evaluate
from medseg.evaluation.pairs import Pair
from medseg.evaluation.reading import read_pair
from medseg.geometry import Reorientation

# Oblique, so that no axis is along one of the patient's, with three spacings.
_ANGLE = np.deg2rad(40)
_TURN = np.array([[np.cos(_ANGLE), -np.sin(_ANGLE), 0], [np.sin(_ANGLE), np.cos(_ANGLE), 0], [0, 0, 1]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = _TURN @ np.diag([0.7, 0.8, 3.0])
AFFINE[:3, 3] = (-31.0, 12.5, 80.0)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def truth() -> np.ndarray:
    array = np.zeros((12, 10, 8), np.uint8)
    array[2:7, 3:5, 1:6] = 1
    array[8:11, 5:9, 2:4] = 2
    return array


def test_masks_of_one_place_are_scored_in_any_order_and_direction_of_axes(tmp_path: Path) -> None:
    ref = save(tmp_path / "ref.nii.gz", truth(), AFFINE)
    for n, (axes, flips) in enumerate(product(permutations(range(3)), product((False, True), repeat=3))):
        move = Reorientation(axes, flips)
        pred = save(tmp_path / f"pred{n}.nii.gz", move.apply(truth()), move.move_affine(AFFINE, truth().shape))
        found, _ = read_pair(Pair("c", pred, ref, "c"))
        assert np.array_equal(found.array, truth())


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSL"])
def test_a_prediction_in_another_orientation_has_a_dice_of_one_without_resampling(tmp_path: Path, axes: str) -> None:
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    move = Reorientation.between(affine, axes)
    save(tmp_path / "ref" / "c.nii.gz", truth(), affine)
    save(tmp_path / "pred" / "c.nii.gz", move.apply(truth()), move.move_affine(affine, truth().shape))
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels={"a": 1, "b": 2})
    assert result.summary.labels["a"]["dice"].mean == 1.0


def test_a_mask_that_is_shifted_by_half_a_voxel_is_still_refused(tmp_path: Path) -> None:
    ref = save(tmp_path / "ref.nii.gz", truth(), AFFINE)
    move = Reorientation((1, 0, 2), (True, False, True))
    affine = move.move_affine(AFFINE, truth().shape)
    affine[:3, 3] += affine[:3, 0] / 2
    pred = save(tmp_path / "pred.nii.gz", move.apply(truth()), affine)
    with pytest.raises(GeometryError, match="resample-prediction"):
        read_pair(Pair("c", pred, ref, "c"))


def test_a_field_of_view_and_a_second_reference_are_turned_too(tmp_path: Path) -> None:
    move = Reorientation((2, 0, 1), (False, True, False))
    affine = move.move_affine(AFFINE, truth().shape)
    save(tmp_path / "ref" / "c.nii.gz", truth(), AFFINE)
    save(tmp_path / "pred" / "c.nii.gz", truth(), AFFINE)
    for name in ("second", "fov"):
        save(tmp_path / name / "c.nii.gz", move.apply(np.maximum(truth(), name == "fov")).astype(np.uint8), affine)
    result = evaluate(
        tmp_path / "pred",
        tmp_path / "ref",
        labels={"a": 1, "b": 2},
        fov=tmp_path / "fov",
        second_reference=tmp_path / "second",
    )
    assert result.summary.labels["a"]["dice"].mean == 1.0
