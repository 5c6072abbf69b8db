"""Every irregular study of the battery is read right or refused, never silently wrong.

`pytest tests/io/dicom/test_dicom_battery.py -m slow -s -k table` prints, per case: right | refused: reason | WRONG.
"""

from __future__ import annotations

import re

import dicom_cases_colour
import dicom_cases_geometry
import dicom_cases_hard
import dicom_cases_moments
import dicom_cases_pixels
import dicom_cases_several
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_battery import judge, table
from dicom_phantoms import PATIENT_ID, Phantom, euler, slice_of, write_study

import medseg
from medseg.errors import MedsegError

CASES = [
    *dicom_cases_geometry.CASES,
    *dicom_cases_pixels.CASES,
    *dicom_cases_several.CASES,
    *dicom_cases_colour.CASES,
    *dicom_cases_hard.CASES,
    *dicom_cases_moments.CASES,
]
PLAIN = Phantom()
GAPS = {
    "one missing": PLAIN.but(shape=(9, 7, 5), depths=(0.0, 2.5, 7.5, 10.0, 12.5)),
    "two neighbours missing": PLAIN.but(shape=(9, 7, 4), depths=(0.0, 2.5, 10.0, 12.5)),
    "two apart missing": PLAIN.but(shape=(9, 7, 6), depths=(0.0, 2.5, 7.5, 10.0, 15.0, 17.5)),
    "one missing, oblique": PLAIN.but(
        shape=(9, 7, 5), depths=(0.0, 2.5, 5.0, 10.0, 12.5), turn=euler(12.0, -17.0, 23.0)
    ),
    "one missing, tilted": PLAIN.but(shape=(9, 7, 5), depths=(0.0, 2.5, 5.0, 10.0, 12.5), tilt_deg=15.0),
    "one missing, slopes by slice": PLAIN.but(
        shape=(9, 7, 5), depths=(0.0, 2.5, 7.5, 10.0, 12.5), slopes=(0.3, 0.4, 0.5, 0.6, 0.7), intercepts=0.0
    ),
}
UNEVEN = PLAIN.but(depths=(0.0, 2.5, 5.0, 8.6, 11.0, 13.4))
NEVER = {
    "differing duplicate": (PLAIN, PLAIN.but(shape=(9, 7, 1), depths=(5.0,), offset=1040.0)),
    "another size": (
        PLAIN.but(shape=(9, 7, 5), depths=(0.0, 2.5, 5.0, 10.0, 12.5)),
        PLAIN.but(shape=(11, 9, 1), depths=(7.5,)),
    ),
    "no positions": (PLAIN.but(tags={"ImagePositionPatient": None}),),
    "two patients": (PLAIN.but(shape=(9, 7, 3)), PLAIN.but(shape=(9, 7, 3), depths=(7.5, 10.0, 12.5), patient=2)),
}


def test_cases_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_read_right_or_refused(case, tmp_path):
    verdict = judge(case, tmp_path)
    assert verdict.fault == "", f"{verdict.answer}: {verdict.detail}"


@pytest.mark.slow
def test_table_of_the_battery(tmp_path):
    verdicts = [judge(case, tmp_path / str(number)) for number, case in enumerate(CASES)]
    print("\n" + table(verdicts))  # noqa: T201
    assert [v.name for v in verdicts if v.answer in ("WRONG", "CRASH")] == []


@pytest.mark.parametrize("gap", GAPS)
def test_missing_slices_are_interpolated_on_request(gap, tmp_path):
    phantom = GAPS[gap]
    write_study(tmp_path, phantom)
    volume = medseg.read(tmp_path, irregular="resample")
    assert volume.shape == (9, 7, round(phantom.depths[-1] / 2.5) + 1)
    assert phantom.worst(volume) <= 1.001
    np.testing.assert_allclose(volume.affine[:3, 3], phantom.affine[:3, 3], atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, :2], phantom.affine[:3, :2], atol=1e-4)
    assert "missing_slices" in {finding.kind for finding in volume.findings}
    assert ("gantry_tilt" in {finding.kind for finding in volume.findings}) == (phantom.tilt_deg != 0)


def test_uneven_slices_are_interpolated_on_request(tmp_path):
    write_study(tmp_path, UNEVEN)
    volume = medseg.read(tmp_path, irregular="resample")
    assert UNEVEN.worst(volume) <= 1.001
    assert "uneven_spacing" in {finding.kind for finding in volume.findings}
    first, step, count = volume.affine[:3, 3], volume.affine[:3, 2], volume.shape[2]
    np.testing.assert_allclose(first, UNEVEN.affine[:3, 3], atol=1e-4)
    last = np.array([-1, -1, 1]) * UNEVEN.positions[-1]
    assert np.linalg.norm(first + step * (count - 1) - last) <= np.linalg.norm(step) / 2 + 1e-4


@pytest.mark.parametrize(("phantom", "kind"), [(GAPS["one missing"], "missing_slices"), (UNEVEN, "uneven_spacing")])
def test_irregular_slices_are_kept_as_they_are_on_request(phantom, kind, tmp_path):
    write_study(tmp_path, phantom)
    volume = medseg.read(tmp_path, irregular="allow")
    assert phantom.truth().faults(volume) == ""
    finding = next(finding for finding in volume.findings if finding.kind == kind)
    assert any("IM0" in name for name in finding.files), "the finding names no file"


@pytest.mark.parametrize("kind", ["resample", "allow"])
@pytest.mark.parametrize("study", NEVER)
def test_no_policy_lets_pass_what_is_no_volume(study, kind, tmp_path):
    write_study(tmp_path, *NEVER[study])
    with pytest.raises(MedsegError, match=r"IM0\d"):
        medseg.read(tmp_path, irregular=kind)


@pytest.mark.parametrize("kind", ["error", "resample", "allow"])
def test_policies_leave_a_regular_series_alone(kind, tmp_path):
    write_study(tmp_path, PLAIN)
    volume = medseg.read(tmp_path, irregular=kind)
    assert PLAIN.truth().faults(volume) == ""
    assert volume.findings == ()


def test_one_of_two_series_is_chosen_by_its_uid(tmp_path):
    other = PLAIN.but(series=2, offset=1300.0)
    write_study(tmp_path, PLAIN, other)
    chosen = medseg.read(tmp_path, series="1.2.826.0.1.3680043.8.498.3.2")
    assert other.truth().faults(chosen) == ""
    assert chosen.metadata.patient_id == f"{PATIENT_ID}-1"


@pytest.mark.parametrize("name", [case.name for case in CASES if case.outcome == "several"])
def test_what_a_refusal_names_can_be_chosen_by_that_name(name, tmp_path):
    truths = next(case for case in CASES if case.name == name).build(tmp_path)
    with pytest.raises(MedsegError) as refusal:
        medseg.read(tmp_path)
    names = re.findall(r"1\.2\.826[\d.]+(?:#\d+)?", str(refusal.value))
    assert len(set(names)) == len(truths)
    chosen = [medseg.read(tmp_path, series=uid) for uid in names]
    assert sorted(sum(not truth.faults(volume) for volume in chosen) for truth in truths) == [1] * len(truths)


@pytest.mark.parametrize("first", [-1.0, 1.0])
def test_nifti_of_either_handedness_keeps_each_voxel_in_its_place(first, tmp_path):
    phantom = PLAIN.but(turn=euler(12.0, -17.0, 23.0))
    affine = phantom.affine @ np.diag([first, 1.0, 1.0, 1.0])
    index = np.indices(phantom.shape).reshape(3, -1)
    lps = np.diag([-1.0, -1.0, 1.0]) @ (affine[:3, :3] @ index + affine[:3, 3:])
    array = np.rint(phantom.value_at(lps.T)).reshape(phantom.shape).astype(np.int16)
    assert np.sign(np.linalg.det(affine)) == first
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "volume.nii.gz")
    volume = medseg.read(tmp_path / "volume.nii.gz")
    assert phantom.worst(volume) <= 0.501
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


@pytest.mark.parametrize("phantom", [PLAIN, PLAIN.but(turn=euler(12.0, -17.0, 23.0), syntax="JPEG lossless SV1")])
def test_itk_reads_the_regular_phantoms_as_they_are_meant(phantom, tmp_path):
    """The examiner examined: an independent reader finds what `Phantom.truth` says."""
    write_study(tmp_path, phantom)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    np.testing.assert_allclose(np.diag([-1.0, -1.0, 1.0]) @ direction, phantom.affine[:3, :3], atol=1e-4)
    assert np.abs(sitk.GetArrayFromImage(image).T - phantom.truth().array).max() <= 0.501


def test_the_same_phantom_is_written_as_the_same_bytes(tmp_path):
    first, second = (write_study(tmp_path / name, PLAIN) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert slice_of(PLAIN, 0).SOPInstanceUID != slice_of(PLAIN, 1).SOPInstanceUID
