"""Written RT Structure Sets are valid for dciodvfy; plastimatch, rt-utils and dcmrtstruct2nii fill them, holes kept.

What is not installed is skipped: `apt-get install plastimatch`, `pip install rt-utils dcmrtstruct2nii`.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings

import numpy as np
import pydicom
import pytest
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom
from seg_cases import BRATS, MODEL, SCHEME, SHAPE, TURNS, a_label_map, volume_on

from medseg.geometry import flip_lps_ras
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.series import find_series

STUDY = {"StudyDate": "20240229", "StudyTime": "101112", "StudyID": "S1"}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("kind", ["plain", "regions", "empty", "tilted", "one slice", "multi-frame"])
def test_dciodvfy_has_nothing_to_say(written, tmp_path, kind):
    """The conformance checker of David Clunie's dicom3tools."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    array = a_label_map(values=(2, 1, 4)) if kind == "regions" else a_label_map()
    if kind == "multi-frame":
        file = write_enhanced(tmp_path / "study" / "enhanced.dcm", Phantom(shape=SHAPE))
        data = pydicom.dcmread(file)
        for keyword, value in STUDY.items():
            setattr(data, keyword, value)
        data.save_as(file)
        grid = grid_of(find_series(tmp_path / "study")[0])
        write_rtstruct(volume_on(grid, array), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
        path = tmp_path / "rt.dcm"
    else:
        if kind == "one slice":
            array = array[:, :, 2:3]
        scheme = BRATS if kind == "regions" else SCHEME
        path, _ = written(array * (kind != "empty"), scheme, tilt_deg=15.0 * (kind == "tilted"), tags=STUDY)
    said = subprocess.run([program, path], capture_output=True, text=True, check=False)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.strip() != "RTStructureSet"] == []


def a_body_with_a_hole(shape=(96, 96, 6)):
    """A label 1 with a label 7 in it, and a hole in that."""
    i, j, k = np.indices(shape)
    distance = np.hypot((i - 40) / 30, (j - 50 - k) / 20)
    return ((distance < 1) * 1 + (distance < 0.8) * 6 - (distance < 0.4) * 7).astype(np.uint8)


@pytest.mark.parametrize("order", [[], ["--xor-contours"]], ids=["by default", "by exclusive or"])
@pytest.mark.parametrize("turn", ["rotation 0", "oblique"])
def test_plastimatch_finds_the_same_voxels(written, tmp_path, turn, order):
    """A C++ program from radiotherapy; by default it fills holes that are contours of their own."""
    program = shutil.which("plastimatch")
    if program is None:
        pytest.skip("plastimatch is not installed (Debian: apt-get install plastimatch)")
    import SimpleITK

    array = a_body_with_a_hole((96, 80, 6))
    path, grid = written(array, turn=TURNS[turn])
    order = ["--input", path, "--output-prefix", tmp_path / "out", "--prefix-format", "nrrd", *order]
    subprocess.run([program, "convert", *order, "--referenced-ct", tmp_path / "study"], check=True, capture_output=True)
    for name, value in (("left_lung", 1), ("lung nodule", 7)):
        image = SimpleITK.ReadImage(str(tmp_path / "out" / f"{name}.nrrd"))
        np.testing.assert_allclose(image.GetOrigin(), flip_lps_ras(grid.affine)[:3, 3], atol=1e-4)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T > 0, array == value)


def test_rt_utils_finds_the_same_voxels(written, tmp_path):
    """rt-utils rounds corners to whole voxels and paints the outline in; it needs square pixels to find the place."""
    rt_utils = pytest.importorskip("rt_utils", reason="rt-utils is not installed")
    array = a_body_with_a_hole()
    path, _ = written(array, spacing=(0.9, 0.9, 2.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rt_utils.RTStructBuilder.create_from(str(tmp_path / "study"), str(path))
        assert found.get_roi_names() == ["left_lung", "lung nodule", "Ödem"]
        masks = {value: found.get_roi_mask_by_name(n) for n, value in (("left_lung", 1), ("lung nodule", 7))}
    for value, mask in masks.items():
        np.testing.assert_array_equal(mask, (array == value).transpose(1, 0, 2))


def test_dcmrtstruct2nii_keeps_the_hole(written, tmp_path, monkeypatch):
    """A converter to NIfTI that fills by scikit-image, and keeps inner contours only by exclusive or."""
    program = pytest.importorskip("dcmrtstruct2nii", reason="dcmrtstruct2nii is not installed")
    # The name that it uses went with pydicom 3.
    monkeypatch.setattr(pydicom, "read_file", pydicom.dcmread, raising=False)
    array = a_body_with_a_hole()
    path, _ = written(array, spacing=(0.9, 0.9, 2.5))
    program.dcmrtstruct2nii(
        str(path), str(tmp_path / "study"), str(tmp_path / "out"), gzip=False, convert_original_dicom=False
    )
    import SimpleITK

    for name, value in (("left_lung", 1), ("lung-nodule", 7)):
        (file,) = (tmp_path / "out").glob(f"mask_{name}*.nii*")
        mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).T > 0
        np.testing.assert_array_equal(mask, array == value)
