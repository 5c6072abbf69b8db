"""Any grid, shape, type and format: what is written is read back, by us and by nibabel and SimpleITK."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.io import read, write
from medseg.volume import Volume

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
DTYPES = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5))
CHANNELS = st.sampled_from([0, 2, 3])


def turned(angles, spacing, origin, mirrored):
    """A rotation about three axes times spacings, mirrored or not: any affine without shear."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    affine = np.eye(4)
    affine[:3, :3] = matrix * spacing * ([-1, 1, 1] if mirrored else 1)
    affine[:3, 3] = origin
    return affine


AFFINES = st.builds(
    turned,
    st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    st.tuples(*[st.floats(0.05, 9)] * 3),
    st.tuples(*[st.floats(-900, 900)] * 3),
    st.booleans(),
)
SHEARS = st.builds(
    lambda a, x, y: a @ np.array([[1, x, y, 0], [0, 1, x, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    AFFINES,
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
)


def volume_of(shape, dtype, channels, affine):
    rng = np.random.default_rng([*shape, channels])
    full = (channels, *shape) if channels else shape
    if dtype[0] == "f":
        array = rng.normal(0, 1e3, full).astype(dtype)
    else:
        info = np.iinfo(dtype)
        array = rng.integers(info.min, info.max, full, dtype=dtype, endpoint=True)
    return Volume(array, affine, channels)


def kept(volume, back):
    np.testing.assert_array_equal(back.array, volume.array)
    assert (back.array.dtype, back.channels) == (volume.array.dtype, volume.channels)
    # NIfTI keeps the affine in single precision, whose step at 900 mm is 6e-5 mm.
    np.testing.assert_allclose(back.affine, volume.affine, rtol=1e-5, atol=2e-4)
    assert [f.kind for f in back.findings] == []


@QUICK
@given(SHAPES, DTYPES, CHANNELS, AFFINES | SHEARS, st.sampled_from([".nii", ".nii.gz"]))
def test_nifti_keeps_voxels_and_any_affine_and_nibabel_agrees(shape, dtype, channels, affine, suffix):
    volume = volume_of(shape, dtype, channels, affine)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(volume, path)
        kept(volume, read(path))
        image = nib.load(path)
        theirs = np.asanyarray(image.dataobj)
        np.testing.assert_array_equal(np.moveaxis(theirs, -1, 0) if channels else theirs, volume.array)
        np.testing.assert_allclose(image.affine, affine, rtol=1e-5, atol=2e-4)


@QUICK
@given(SHAPES, DTYPES, CHANNELS, AFFINES, st.sampled_from([".nrrd", ".mha"]))
def test_nrrd_and_metaimage_keep_voxels_and_affine_and_itk_agrees(shape, dtype, channels, affine, suffix):
    volume = volume_of(shape, dtype, channels, affine)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(volume, path)
        kept(volume, read(path))
        image = sitk.ReadImage(str(path))
        theirs = sitk.GetArrayFromImage(image)
        theirs = np.moveaxis(theirs, -1, 0).transpose(0, 3, 2, 1) if channels else theirs.T
        np.testing.assert_array_equal(theirs, volume.array)
        corner = [n - 1 for n in shape]
        x, y, z = image.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose((affine @ (*corner, 1))[:3], (-x, -y, z), atol=1e-3)


@QUICK
@given(SHAPES, DTYPES, CHANNELS, AFFINES, st.sampled_from([".nrrd", ".mha", ".mhd", ".nhdr"]), st.booleans())
def test_what_itk_writes_is_read(shape, dtype, channels, affine, suffix, compressed):
    volume = volume_of(shape, dtype, channels, affine)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    array = volume.array.transpose(3, 2, 1, 0) if channels else volume.array.T
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=bool(channels))
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in lps[:3, 3]])
    image.SetDirection([float(d) for d in (lps[:3, :3] / spacing).ravel()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        sitk.WriteImage(image, str(path), useCompression=compressed)
        kept(volume, read(path))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(("dtype", "expected"), [("bool", "u1"), ("f2", "f4")])
def test_types_that_a_format_lacks_become_the_next_larger(tmp_path, suffix, dtype, expected):
    array = np.array([[[0, 1], [1, 1]]]).astype(dtype)
    write(Volume(array, np.eye(4)), tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    assert back.array.dtype == expected
    np.testing.assert_array_equal(back.array, array)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_large_64_bit_integers_are_kept(tmp_path, suffix, dtype):
    array = np.array([[[0, 2**40], [2**53 + 1, 5]]]).astype(dtype)
    write(Volume(array, np.eye(4)), tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}").array
    np.testing.assert_array_equal(back, array)
    assert back.dtype == dtype
