"""Written series are valid for dciodvfy, and real series and NIfTI files come back from DICOM unchanged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from series_volumes import OBLIQUE, as_read, counted, grid, placed

from medseg.io import read
from medseg.io.dicom.writing.series import write_dicom_series
from medseg.volume import Metadata, Volume

# What the checker says of valid objects, and why it stays.
EXPLAINED = (
    "needed to build DICOMDIR",  # study date, time and ID of a patient who is not known: type 2, empty
    "Retired Person Name form",  # ANONYMOUS is no family name with a caret
    "not present in standard DICOM IOD",  # geometry in Secondary Capture, slope in MR: a Standard Extended SOP Class
    "Standard Extended SOP Class",
    "only permitted to be empty when actually unknown",  # Laterality: it is unknown
    "Non-identity Modality LUT Module",  # how everybody stores floating-point MR; readers apply it
)


def dciodvfy(path: Path) -> list[str]:
    result = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not any(text in line for text in EXPLAINED)]


needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is missing"
)


@needs_dciodvfy
@pytest.mark.parametrize("modality", ["CT", "MR", "PT", ""])
@pytest.mark.parametrize("kind", ["integers", "floats", "2D", "colour", "picture"])
def test_dciodvfy_finds_no_error(tmp_path, modality, kind):
    array = {"integers": counted(), "floats": counted() / 7, "2D": counted((5, 4)), "picture": counted((5, 4))}
    array["colour"] = counted((3, 5, 4, 3), np.uint8)
    volume = Volume(
        array[kind],
        placed(OBLIQUE),
        3 * (kind == "colour"),
        Metadata(modality=modality if kind != "picture" else ""),
        spacing_known=kind != "picture",
    )
    write_dicom_series(volume, tmp_path / "out", description="test")
    assert dciodvfy(tmp_path / "out" / "00001.dcm") == []


@needs_dciodvfy
@pytest.mark.parametrize("folder", ["dicom_mr_t1post", "dicom_mr_hcrop", "lung_ct_cip/ct-64Dicom"])
def test_series_derived_from_real_ones_are_valid_and_equal(real_data, tmp_path, folder):
    volume, reference = read(real_data / folder), grid(real_data / folder)
    assert write_dicom_series(volume, tmp_path / "out", reference=reference) == ()
    back = read(tmp_path / "out")
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)
    assert dciodvfy(tmp_path / "out" / "00001.dcm") == []


def test_a_nifti_goes_to_dicom_and_back(data_folder, tmp_path):
    volume = read(data_folder / "nifti_edge" / "anatomical.nii")
    write_dicom_series(volume, tmp_path / "out")
    array, affine = as_read(volume)
    back = read(tmp_path / "out")
    np.testing.assert_allclose(back.array, array, atol=1e-3)
    np.testing.assert_allclose(back.affine, affine, atol=1e-3)
