"""Whatever way a series lies in the patient and its files in the folder, every voxel is in its place."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, write_study
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import medseg
from medseg.errors import MedsegError

# Explaining a failure would read thousands of series more.
PHASES = [phase for phase in Phase if phase is not Phase.explain]
QUICK = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow], derandomize=True, phases=PHASES
)
angle = st.floats(-180.0, 180.0)
distance = st.floats(0.1, 12.0)
turns = st.one_of(
    # Any rotation, and the 24 that lie on the axes, whose ties are where orientation code goes wrong.
    st.tuples(angle, angle, angle).map(lambda a: Rotation.from_euler("xyz", a, degrees=True).as_matrix()),
    st.integers(0, 23).map(lambda n: np.rint(Rotation.create_group("O")[n].as_matrix())),
)
tilts = st.one_of(st.just(0.0), st.floats(5.0, 35.0), st.floats(-35.0, -5.0))
# Decimal strings round positions, so shears of less than this in total are read as none.
STRAIGHT_MM = 0.1


@st.composite
def phantoms(draw, tilt=tilts, fewest=2):
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(fewest, 9)))
    turn = draw(turns)
    tilt_deg = draw(tilt)
    between = st.floats(1.3, 12.0) if tilt_deg else distance
    spacing = draw(st.tuples(distance, distance, between))
    # Values stay within 16 bits: at most 9 x 12 mm along each axis, and the gradient adds up to 10 a millimetre.
    return Phantom(
        shape=shape,
        spacing=spacing,
        turn=turn,
        origin=draw(st.tuples(*[st.floats(-300.0, 300.0)] * 3)),
        tilt_deg=tilt_deg,
        numbers=tuple(draw(st.permutations(range(1, shape[2] + 1)))),
        offset=0.0,
        intercepts=float(draw(st.integers(-1024, 1024))),
        stored="int16",
    )


def kinds(volume):
    """Findings, but for the remark on series of two or three slices."""
    return {finding.kind for finding in volume.findings} - {"few_slices"}


def read_back(phantom, seed):
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder), phantom, seed=seed)
        return medseg.read(folder)


@QUICK
@given(phantoms(), st.integers(0, 10**6))
def test_every_voxel_lies_where_its_slice_says(phantom, seed):
    volume = read_back(phantom, seed)
    assert volume.shape == phantom.shape
    np.testing.assert_allclose(volume.affine, phantom.affine, rtol=0, atol=1e-4)
    # 9 decimals of a direction over 7 pixels and 10 units a millimetre: far below the rounding to integers.
    assert phantom.worst(volume) <= 0.501


@pytest.mark.slow
@settings(QUICK, max_examples=600)
@given(phantoms(), st.integers(0, 10**6), st.booleans())
def test_six_hundred_series_lie_where_their_slices_say(phantom, seed, multiframe):
    with tempfile.TemporaryDirectory() as folder:
        if multiframe:
            write_enhanced(Path(folder) / "IM0000.dcm", phantom, seed=seed)
        else:
            write_study(Path(folder), phantom, seed=seed)
        volume = medseg.read(folder)
    np.testing.assert_allclose(volume.affine, phantom.affine, rtol=0, atol=1e-4)
    assert phantom.worst(volume) <= 0.501


@QUICK
@given(phantoms(tilt=st.just(0.0)))
def test_the_order_of_files_and_numbers_changes_nothing(phantom):
    first, second = read_back(phantom, 1), read_back(phantom.but(numbers=(1,) * phantom.shape[2]), 2)
    np.testing.assert_array_equal(first.array, second.array)
    np.testing.assert_array_equal(first.affine, second.affine)


@QUICK
@given(phantoms(tilt=st.just(0.0)))
def test_a_series_along_the_normal_is_not_called_tilted(phantom):
    assert kinds(read_back(phantom, 0)) == set()


@QUICK
@given(phantoms(tilt=st.floats(5.0, 35.0)))
def test_a_tilted_gantry_is_named(phantom):
    assert kinds(read_back(phantom, 0)) == {"gantry_tilt"}


@QUICK
@given(phantoms(tilt=st.floats(0.0, 4.0)))
def test_a_slight_shear_is_kept_or_too_small_to_matter(phantom):
    volume = read_back(phantom, 0)
    apart = np.linalg.norm((volume.affine - phantom.affine)[:3, 2]) * (phantom.shape[2] - 1)
    assert apart <= (1e-4 if kinds(volume) else 1.01 * STRAIGHT_MM)


@QUICK
@given(phantoms(fewest=4), st.data())
def test_a_slice_that_is_missing_inside_is_never_read_over(phantom, data):
    gone = data.draw(st.integers(1, phantom.shape[2] - 2))
    kept = tuple(phantom.spacing[2] * k for k in range(phantom.shape[2]) if k != gone)
    holed = phantom.but(depths=kept, shape=(*phantom.shape[:2], len(kept)), numbers=None)
    with pytest.raises(MedsegError, match=r"IM0\d"):
        read_back(holed, 0)


@QUICK
@given(phantoms(fewest=4), st.data())
def test_a_missing_slice_is_interpolated_in_its_place(phantom, data):
    gone = data.draw(st.integers(1, phantom.shape[2] - 2))
    kept = tuple(phantom.spacing[2] * k for k in range(phantom.shape[2]) if k != gone)
    holed = phantom.but(depths=kept, shape=(*phantom.shape[:2], len(kept)), numbers=None)
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder), holed)
        volume = medseg.read(folder, irregular="resample")
    assert volume.shape == phantom.shape
    np.testing.assert_allclose(volume.affine, phantom.affine, rtol=0, atol=1e-4)
    assert phantom.worst(volume) <= 1.001


@QUICK
@given(phantoms(), st.integers(0, 10**6), st.booleans())
def test_frames_of_one_file_lie_where_their_groups_say(phantom, seed, per_frame):
    with tempfile.TemporaryDirectory() as folder:
        write_enhanced(Path(folder) / "IM0000.dcm", phantom, per_frame_geometry=per_frame, seed=seed)
        volume = medseg.read(folder)
    np.testing.assert_allclose(volume.affine, phantom.affine, rtol=0, atol=1e-4)
    assert phantom.worst(volume) <= 0.501


@QUICK
@given(phantoms(tilt=st.just(0.0)))
def test_positions_rounded_to_hundredths_as_scanners_do_cost_no_more_than_that(phantom):
    def rounded(data, k):
        data.ImagePositionPatient = [f"{v:.2f}" for v in phantom.positions[k]]

    if phantom.spacing[2] < 0.5:
        phantom = phantom.but(spacing=(*phantom.spacing[:2], 0.5))
    volume = read_back(phantom.but(change=rounded), 0)
    assert np.abs(volume.affine - phantom.affine).max() <= 0.0101
