"""Channels that are files or series of their own: brought to one grid, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference_bundles import make_info, make_plan, threshold_weights
from scipy import ndimage
from scipy.spatial.transform import Rotation
from selection_studies import write_series

import medseg
from medseg.config import SelectRule
from medseg.errors import GeometryError, ReadError
from medseg.inference import save_bundle
from medseg.preparation.interpolate import averaged_for
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.preparation.plan_fields import ImagePlan
from medseg.studies import PredictOptions, predict_studies
from medseg.studies.channels import read_channels
from medseg.studies.registration import register_rigid
from medseg.studies.selection import select_series
from medseg.studies.sources import Source, find_studies
from medseg.volume import Volume

NAMES = ("FLAIR", "T1c")


def two_channels() -> Plan:
    return make_plan(
        in_channels=2,
        spacing_mm=None,
        normalization=(ChannelPlan(kind="clip", low=-1e6, high=1e6, mean=0.0, std=1.0),) * 2,
        select=tuple(SelectRule(name=name) for name in NAMES),
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    info = make_info(two_channels(), "inference_nets:build_threshold", {"spot": 1})
    return save_bundle(tmp_path / "model", info, {0: threshold_weights(2, 0.5)})


def study(folder: Path, flair: dict[str, Any] | None = None, t1c: dict[str, Any] | None = None) -> Source:
    write_series(folder, 1, **{"Modality": "MR", "SeriesDescription": "FLAIR", **(flair or {})})
    write_series(folder, 2, **{"Modality": "MR", "SeriesDescription": "T1 post", "value": 500, **(t1c or {})})
    (source,) = find_studies(folder)
    return select_series(source, two_channels())


def read(source: Source, **options: Any) -> Volume:
    return read_channels(source, NAMES, **options)


def ramp(shape: tuple[int, int, int], k_spacing: float = 1.0, k_origin: float = 0.0) -> np.ndarray:
    """Ten times the depth in mm: linear, so linear resampling is exact."""
    depth = k_origin + k_spacing * np.arange(shape[2])
    return np.broadcast_to(np.round(10 * depth).astype(np.int16), shape).copy()


def test_channels_on_one_grid_are_stacked_as_they_are(tmp_path):
    volume = read(study(tmp_path / "p"))
    assert (volume.channels, volume.shape, volume.array.dtype) == (2, (6, 5, 12), np.int16)
    assert volume.array[0].max() < 500 <= volume.array[1].min() + 1
    assert volume.findings == ()


def test_a_channel_on_another_grid_is_resampled_to_the_reference(tmp_path):
    source = study(
        tmp_path / "p",
        {"array": ramp((6, 5, 12))[..., ::-1]},
        {"array": ramp((6, 5, 9), 2.0, -1.0), "spacing": 2.0, "origin": (0, 0, -1.0)},
    )
    volume = read(source)
    assert volume.shape == (6, 5, 12) and volume.findings == ()
    np.testing.assert_allclose(volume.array[1], ramp((6, 5, 12)), atol=1e-4)
    other = read(source, reference=1)
    assert other.shape == (6, 5, 9)


def thin_and_thick(folder: Path, thin: np.ndarray) -> Source:
    """FLAIR in slices of 1 mm, T1c in slices of 3 mm that each cover three of them."""
    thick = np.arange(thin.size // 3, dtype=np.int16).reshape(6, 5, -1)
    return study(folder, {"array": thin, "origin": (0, 0, -1.0)}, {"array": thick, "spacing": 3.0})


@pytest.mark.parametrize(("prefilter", "tolerance"), [("area", 1e-3), ("gaussian", 60)])
def test_a_channel_on_a_coarser_reference_is_averaged_as_the_plan_says(tmp_path, prefilter, tolerance):
    thin = np.random.default_rng(0).integers(0, 1000, (6, 5, 36)).astype(np.int16)
    source = thin_and_thick(tmp_path / "p", thin)
    mean = thin.reshape(6, 5, 12, 3).mean(axis=-1)
    found = read(source, reference=1, image=ImagePlan(prefilter=prefilter)).array[0]
    assert found.shape == (6, 5, 12) and np.abs(found - mean).mean() < tolerance
    # Plans of earlier releases do not average.
    np.testing.assert_array_equal(read(source, reference=1).array[0], thin[..., 1::3])


@pytest.mark.parametrize("prefilter", ["none", "area"])
def test_prediction_averages_a_channel_on_a_coarser_reference_by_the_plan(tmp_path, prefilter):
    select = (SelectRule(name=NAMES[0]), SelectRule(name=NAMES[1], reference=True))
    plan = two_channels().model_copy(update={"select": select, "image": ImagePlan(prefilter=prefilter)})
    info = make_info(plan, "inference_nets:build_threshold", {"spot": 1})
    bundle = save_bundle(tmp_path / "model", info, {0: threshold_weights(2, 0.5)})
    thin = np.zeros((6, 5, 36), np.int16)
    thin[..., 1::3] = 1
    thin_and_thick(tmp_path / "in" / "p1", thin)
    (row,) = predict_studies(bundle, [tmp_path / "in" / "p1"], tmp_path / "out").rows
    mask = medseg.read(tmp_path / "out" / f"{row.case}.nii.gz").array
    # A third of each thick voxel is 1: its middle slice alone says 1, the mean 1/3.
    assert (row.error, mask.shape, mask.mean()) == ("", (6, 5, 12), float(prefilter == "none"))


def test_a_turned_grid_of_equal_voxels_averages_nothing_and_a_coarser_one_along_the_axis_that_loses_voxels():
    plan = ImagePlan(prefilter="area")
    fine = Volume(np.random.default_rng(0).random((1, 12, 12, 12)), np.eye(4), 1)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    assert averaged_for(fine, Volume(np.zeros((12, 12, 12)), turned), plan) is fine
    # Axis k of this grid is axis i of the volume.
    swapped = np.eye(4)[[2, 1, 0, 3]] @ np.diag([1.4, 1, 3, 1])
    found = averaged_for(fine, Volume(np.zeros((8, 12, 4)), swapped), plan)
    np.testing.assert_allclose(found.array[0], fine.array[0].reshape(4, 3, 12, 12).mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.affine @ [0, 0, 0, 1], [1, 0, 0, 1])


def test_where_a_channel_does_not_reach_it_has_its_minimum_and_the_case_is_flagged(tmp_path):
    source = study(
        tmp_path / "p", {"array": ramp((6, 5, 12))}, {"array": ramp((6, 5, 10)) + np.int16(7), "origin": (0, 0, 0)}
    )
    volume = read(source)
    # Of the reference's slices above its mean, 6 to 11, two are missing.
    (finding,) = volume.findings
    assert finding.kind == "channel_partly_missing" and "T1c does not cover 33%" in finding.message
    assert (volume.array[1, ..., 10:] == 7).all()


def test_places_that_hardly_overlap_are_refused(tmp_path):
    source = study(tmp_path / "p", {}, {"origin": (0, 0, 100.0)})
    with pytest.raises(GeometryError, match=r"T1c covers only 0% .*--register"):
        read(source)


def test_other_frames_of_reference_are_refused(tmp_path):
    source = study(tmp_path / "p", {}, {"FrameOfReferenceUID": "1.2.3"})
    with pytest.raises(GeometryError, match=r"FLAIR and T1c are in different frames of reference.*--register"):
        read(source)


def test_the_same_voxels_twice_are_refused(tmp_path):
    array = np.arange(6 * 5 * 12, dtype=np.int16).reshape(6, 5, 12)
    with pytest.raises(ReadError, match="FLAIR and T1c have the same voxels"):
        read(study(tmp_path / "p", {"array": array}, {"array": array}))


def test_midnight_is_flagged_and_another_day_is_refused_without_telling_the_date(tmp_path):
    late = read(study(tmp_path / "p", {"AcquisitionDate": "20201231"}, {"AcquisitionDate": "20210101"}))
    assert [f.kind for f in late.findings] == ["channel_dates_differ"]
    assert "2020" not in late.findings[0].message
    apart = study(tmp_path / "q", {"AcquisitionDate": "20201231"}, {"StudyDate": "20210103"})
    with pytest.raises(ReadError, match="3 days apart"):
        read(apart)


def test_other_patients_are_refused(tmp_path):
    volumes = []
    for number, patient in ((1, "a"), (2, "b")):
        write_series(tmp_path / patient, number, PatientID=patient, value=number)
        volumes += find_studies(tmp_path / patient)
    paths = tuple(p for v in volumes for p in v.paths)
    with pytest.raises(ReadError, match="different patients"):
        read(Source("x", paths, volumes[0].series, channels=tuple(volumes)))


# Registration


def head(size: tuple[int, int, int] = (48, 56, 40)) -> np.ndarray:
    """A skull with ventricles and a lesion; no symmetry."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij")).astype(float)
    middle = (np.array(size) - 1) / 2

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        scaled = [(grid[a] - middle[a] - centre[a]) / radii[a] for a in range(3)]
        return np.asarray(sum(s**2 for s in scaled) < 1)

    image = np.zeros(size)
    image[ball((0, 0, 0), (18, 22, 15))] = 100
    image[ball((0, 0, 0), (16, 20, 13))] = 60
    image[ball((4, 5, 2), (4, 6, 5))] = 10
    image[ball((-7, -6, -3), (5, 3, 4))] = 90
    return np.asarray(ndimage.gaussian_filter(image, 0.8))


@pytest.mark.parametrize(
    ("shift_mm", "degrees"), [((3.0, -2.0, 4.0), (0, 0, 0)), ((5.0, 1.5, -2.5), (4, -3, 6)), ((0, 0, 0), (0, 0, 0))]
)
def test_a_known_rigid_motion_is_recovered_to_less_than_half_a_voxel(shift_mm, degrees):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = head()
    # Another contrast: what is bright becomes dark.
    other = np.where(image > 5, 130 - image, image)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    centre = (affine @ [*((n - 1) / 2 for n in image.shape), 1])[:3]
    motion[:3, 3] = centre - motion[:3, :3] @ centre + shift_mm
    fixed, moving = Volume(image, affine), Volume(other, motion @ affine)
    found = register_rigid(fixed, moving)
    corners = np.array(np.meshgrid(*[(8, n - 9) for n in image.shape])).reshape(3, -1)
    apart = (found.volume.affine - affine) @ np.vstack([corners, np.ones(8)])
    assert np.linalg.norm(apart[:3], axis=0).max() < 0.5
    assert found.shift_mm == pytest.approx(np.linalg.norm(shift_mm), abs=0.3)
    again = register_rigid(fixed, moving)
    np.testing.assert_array_equal(again.volume.affine, found.volume.affine)


def test_images_without_anything_in_common_are_not_registered() -> None:
    rng = np.random.default_rng(0)
    noise = Volume(rng.normal(size=(40, 40, 40)), np.eye(4))
    with pytest.raises(GeometryError, match="registration"):
        register_rigid(noise, Volume(rng.normal(size=(40, 40, 40)), np.eye(4)))


def test_sheared_grids_and_single_slices_are_not_registered() -> None:
    sheared = np.eye(4)
    sheared[1, 2] = 0.5
    straight = Volume(head(), np.eye(4))
    with pytest.raises(GeometryError, match="sheared"):
        register_rigid(straight, Volume(head(), sheared))
    with pytest.raises(GeometryError, match="3D"):
        register_rigid(straight, Volume(np.zeros((4, 4)), np.eye(4)))


# The command


def test_a_study_that_moved_between_series_needs_register_and_is_then_flagged(bundle, tmp_path):
    image = head().astype(np.int16)
    tags = {"array": (130 - image).astype(np.int16), "origin": (2, 3, -2), "FrameOfReferenceUID": "1.2.3"}
    study(tmp_path / "in" / "p1", {"array": image}, tags)
    result = predict_studies(bundle, [tmp_path / "in" / "p1"], tmp_path / "out")
    assert result.rows[0].state == "failed" and "--register" in result.rows[0].error
    result = predict_studies(bundle, [tmp_path / "in" / "p1"], tmp_path / "out", PredictOptions(register=True))
    (row,) = result.rows
    assert (row.state, row.error) == ("needs_review", "")
    assert any("T1c was registered to FLAIR: 4.1 mm" in text for text in row.findings)
    assert medseg.read(tmp_path / "out" / f"{row.case}.nii.gz").shape == image.shape


def test_a_dry_run_tells_the_series_of_each_case_and_why(bundle, tmp_path):
    study(tmp_path / "in" / "p1")
    write_series(tmp_path / "in" / "p2", 3, StudyInstanceUID="1.5", Modality="MR", SeriesDescription="FLAIR")
    result = predict_studies(bundle, [tmp_path / "in"], tmp_path / "out", PredictOptions(dry_run=True))
    assert not (tmp_path / "out").exists()
    assert "would do p1: FLAIR: " in result.text() and "of 2 series the only one that fits" in result.text()
    assert "would be refused: the model needs 2 channels (FLAIR, T1c)" in result.text()
    assert json.loads(result.to_json())["reasons"]["p1"].startswith("FLAIR: ")


def test_brats_files_go_through_the_whole_prediction(data_folder, bundle, tmp_path):
    folder = data_folder / "tumor_brats2013"
    result = predict_studies(bundle, [folder / "brats_2013_pat0001_1"], tmp_path / "out")
    (row,) = result.rows
    assert (row.case, row.state, row.error) == ("brats_2013_pat0001_1", "done", "")
    assert row.series_reason == (
        "files named by channel: Flair_subtrMeanDivStd.nii.gz, T1c_subtrMeanDivStd.nii.gz; left out: "
        "OTMultiClass.nii.gz, brainmask.nii.gz"
    )
    flair = medseg.read(folder / "brats_2013_pat0001_1" / "Flair_subtrMeanDivStd.nii.gz")
    mask = medseg.read(tmp_path / "out" / "brats_2013_pat0001_1.nii.gz")
    assert mask.same_geometry(flair)
    # The bundle's network marks channel 0 above a half: FLAIR has to be first.
    np.testing.assert_array_equal(mask.array, flair.array > 0.5)
