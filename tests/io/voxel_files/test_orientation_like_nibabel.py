"""Files that leave their position or spacing open are read as nibabel reads them, and say so."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from medseg.io import read

ARRAY = np.random.default_rng(3).integers(0, 200, (5, 6, 7)).astype(np.int16)
MOVED = np.array([[0.0, -2, 0.1, 20], [1.5, 0, 0, -30], [0.2, 0, 3, 5], [0, 0, 0, 1]])


def kinds(volume):
    return [finding.kind for finding in volume.findings]


def without_codes(path, zooms, shape=ARRAY.shape, unit="mm"):
    image = nib.Nifti1Image(np.zeros(shape, np.int16), None)
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units(unit)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, path)
    return path


def patched(path, at, value):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(value)] = value
    path.write_bytes(raw)


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 1), (5, 6), (5, 6, 7, 2)])
def test_nifti_without_codes_lies_where_nibabel_puts_it(tmp_path, shape):
    path = without_codes(tmp_path / "a.nii", (2.0, 3.0, 4.0, 1.0)[: len(shape)], shape)
    volume = read(path)
    np.testing.assert_allclose(volume.affine, nib.load(path).affine, atol=1e-5)
    assert kinds(volume) == ["no_orientation"]
    assert "left, anterior, superior" in volume.findings[0].message


@pytest.mark.parametrize("origin", [(0, 0, 0), (2, 4, 3), (300, 2, 2), (-3, 5, 5)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_analyze_lies_where_nibabel_puts_it(tmp_path, origin, order):
    header = nib.Spm99AnalyzeHeader(endianness=order)
    header.set_data_dtype(np.dtype(order + "i2"))
    nib.save(nib.Spm99AnalyzeImage(ARRAY, None, header), tmp_path / "a.img")
    patched(tmp_path / "a.hdr", 253, np.array(origin, f"{order}i2").tobytes())
    patched(tmp_path / "a.hdr", 80, np.array((2, 3, 4), f"{order}f4").tobytes())
    (tmp_path / "a.mat").unlink(missing_ok=True)
    volume = read(tmp_path / "a.hdr")
    np.testing.assert_allclose(volume.affine, nib.load(tmp_path / "a.hdr").affine, atol=1e-5)
    assert kinds(volume) == ["no_orientation"]


@pytest.mark.parametrize("content", [{"M": MOVED}, {"mat": MOVED}, {"M": np.eye(4), "mat": MOVED}])
def test_the_mat_of_spm_beside_analyze_is_its_position(tmp_path, content):
    nib.save(nib.Spm99AnalyzeImage(ARRAY, np.eye(4)), tmp_path / "a.img")
    savemat(tmp_path / "a.mat", content, format="4")
    volume = read(tmp_path / "a.img")
    np.testing.assert_allclose(volume.affine, nib.load(tmp_path / "a.img").affine, atol=1e-5)
    np.testing.assert_array_equal(volume.array, ARRAY)
    assert kinds(volume) == ["spm_mat"]


def test_a_mat_of_another_program_is_not_taken_for_spms(tmp_path):
    nib.save(nib.AnalyzeImage(ARRAY, np.eye(4)), tmp_path / "a.img")
    (tmp_path / "a.mat").write_text("1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n")
    volume = read(tmp_path / "a.img")
    assert kinds(volume) == ["no_orientation"]
    assert "a.mat beside it is none of SPM's" in volume.findings[0].message


def test_the_mat_of_spm_beside_nifti_is_named_and_not_used(tmp_path):
    nib.save(nib.Nifti1Image(ARRAY, MOVED), tmp_path / "a.nii.gz")
    savemat(tmp_path / "a.mat", {"mat": np.eye(4)})
    volume = read(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(volume.affine, MOVED, atol=1e-5)
    assert kinds(volume) == ["spm_mat"]


def test_a_nifti_without_spacing_says_that_it_is_assumed(tmp_path):
    path = without_codes(tmp_path / "a.nii", (1, 1, 1))
    patched(path, 80, bytes(12))
    volume = read(path)
    assert not volume.spacing_known
    assert kinds(volume) == ["no_spacing"]


def test_an_analyze_axis_without_spacing_says_that_it_is_assumed(tmp_path):
    nib.save(nib.AnalyzeImage(ARRAY, np.diag([2.0, 3, 4, 1])), tmp_path / "a.img")
    patched(tmp_path / "a.hdr", 88, bytes(4))
    volume = read(tmp_path / "a.img")
    assert volume.spacing_mm == (2, 3, 1)
    assert kinds(volume) == ["no_spacing", "no_orientation"]
    assert "pixdim[3]" in volume.findings[0].message


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_that_begin_at_byte_0_begin_after_the_header(tmp_path, kind):
    nib.save(kind(ARRAY, MOVED), tmp_path / "a.nii")
    patched(tmp_path / "a.nii", *((108, bytes(4)) if kind is nib.Nifti1Image else (168, bytes(8))))
    volume = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array, ARRAY)
    assert kinds(volume) == ["vox_offset"]
