"""dcm2niix as a peer: on every DICOM image folder at hand and on regular phantoms, the same voxels in the same places.

Where it differs the test says why, and shows from the headers who is right. `-s` prints what was compared.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_cases_geometry import CORONAL, FEET_DOWN, FEET_FIRST, PRONE, SAGITTAL
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, euler, write_study

import medseg
from medseg.errors import MedsegError
from medseg.io.formats import has_dicom_magic

ALIKE = [
    "lung_ct_cip/ct-64Dicom",
    "ct_totalseg/example_ct_dicom",
    "dicom_mr_t1post",
    "dicom_mr_hcrop",
    "dicom_compressed/anatomical",
    "dicom_compressed/compressed_j2k",
    "dicom_compressed/compressed_jpeg",
    "dicom_compressed/compressed_jpegls",
    "dicom_compressed/compressed_rle",
    "dicom_bad/slicecount",
    "dicom_seg/24x38x3/image",
    "dicom_seg/24x38x3/multiframe",
    "dicom_seg/ct-3slice",
]
TILTED, GAP = "dicom_bad/gantrytilting", "dicom_bad/sliceincrement"
PLAIN = Phantom()
OBLIQUE = euler(12.0, -17.0, 23.0)
TWELVE = Phantom(shape=(21, 18, 6), stored="uint16", bits=12)
PHANTOMS = {
    "plain": PLAIN,
    "coronal": PLAIN.but(turn=CORONAL),
    "sagittal": PLAIN.but(turn=SAGITTAL),
    "oblique": PLAIN.but(turn=OBLIQUE),
    "negative normal": PLAIN.but(turn=FEET_DOWN),
    "HFP": PLAIN.but(turn=PRONE, tags={"PatientPosition": "HFP"}),
    "FFS": PLAIN.but(turn=FEET_FIRST, tags={"PatientPosition": "FFS"}),
    "anisotropic": PLAIN.but(spacing=(0.5, 1.9, 7.0)),
    "fractional slope": PLAIN.but(slopes=0.25, intercepts=-13.25),
    "12 bits": TWELVE,
    "8 bits": PLAIN.but(stored="uint8", bits=8, intercepts=0.0, offset=100.0, origin=(0.0, 0.0, 0.0)),
    "implicit little endian": PLAIN.but(syntax="implicit little endian"),
    "explicit big endian": PLAIN.but(syntax="explicit big endian"),
    "RLE": TWELVE.but(syntax="RLE"),
    "JPEG lossless SV1": TWELVE.but(syntax="JPEG lossless SV1"),
    "JPEG-LS lossless": TWELVE.but(syntax="JPEG-LS lossless"),
    "JPEG 2000 lossless": TWELVE.but(syntax="JPEG 2000 lossless"),
    "MR": PLAIN.but(modality="MR", slopes=None, stored="uint16", offset=700.0),
}
ENHANCED = {
    "shared groups": PLAIN,
    "oblique": PLAIN.but(turn=OBLIQUE),
    "JPEG 2000": TWELVE.but(syntax="JPEG 2000 lossless"),
}
# Of these the peer takes the step from the first two slices, we from the first and the last; steps vary by 1 um.
ROUNDED_STEPS = {"lung_ct_cip/ct-64Dicom": 0.03}


@pytest.fixture(scope="session")
def dcm2niix() -> str:
    """Path of the binary, from its Python package."""
    module = pytest.importorskip("dcm2niix", reason="the package dcm2niix, a peer to compare with, is not installed")
    if not Path(module.bin).is_file():
        pytest.skip("the package dcm2niix brings no binary on this machine")
    return str(module.bin)


@pytest.fixture
def convert(dcm2niix, tmp_path):
    """convert(folder) -> {file name without suffix: image}; the name is the SeriesInstanceUID and dcm2niix's suffix."""

    def run(folder: Path) -> dict[str, Any]:
        out = tmp_path / "peer"
        out.mkdir()
        call = [dcm2niix, "-z", "n", "-b", "n", "-f", "%j", "-o", str(out), str(folder)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
        images = {path.stem: nibabel.load(path) for path in sorted(out.glob("*.nii"))}
        assert images, f"dcm2niix wrote nothing: {done.stdout}"
        return images

    return run


def _canonical(image: Any) -> tuple[np.ndarray, np.ndarray]:
    moved = nibabel.as_closest_canonical(image)
    return np.asarray(moved.get_fdata()), moved.affine


def compare(volume: Any, peer: Any) -> tuple[float, float]:
    """Both in RAS order: the largest distance between two corners in mm, and between two voxel values."""
    ours, our_affine = _canonical(nibabel.Nifti1Image(np.asarray(volume.array, np.float64), volume.affine))
    theirs, their_affine = _canonical(peer)
    assert ours.shape == theirs.shape
    size = np.array(ours.shape) - 1
    corners = np.array(np.meshgrid(*[(0, n) for n in size], [1])).reshape(4, -1)
    corners[3] = 1
    apart = np.linalg.norm(((our_affine - their_affine) @ corners)[:3], axis=0).max()
    return float(apart), float(np.abs(ours - theirs).max())


def show(name: str, volume: Any, apart: float, differ: float) -> None:
    print(f"\n{name}: {volume!r}: corners {apart:.2g} mm apart, values differ by {differ:.2g}")  # noqa: T201


def header_positions(folder: Path) -> np.ndarray:
    """ImagePositionPatient of every file, in order along the normal."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    row, column = np.reshape(np.array(headers[0].ImageOrientationPatient, float), (2, 3))
    places = np.array([header.ImagePositionPatient for header in headers], float)
    return places[np.argsort(places @ np.cross(row, column))]


def test_every_dicom_folder_is_compared(data_folder):
    folders = {
        str(path.parent.relative_to(data_folder))
        for path in data_folder.rglob("*")
        if path.is_file() and has_dicom_magic(path)
    }
    # Segmentations are labels, not images: they have tests of their own.
    segmentations = {name for name in folders if name.endswith("/seg")} | {"dicom_seg"}
    assert folders - segmentations == {*ALIKE, TILTED, GAP}


@pytest.mark.parametrize("name", ALIKE)
def test_studies_lie_where_dcm2niix_puts_them(name, data_folder, convert):
    images = convert(data_folder / name)
    volumes = medseg.read_all(data_folder / name)
    assert len(images) == len(volumes) == 1
    apart, differ = compare(volumes[0], next(iter(images.values())))
    show(name, volumes[0], apart, differ)
    assert differ == 0
    if name not in ROUNDED_STEPS:
        assert apart <= 1e-3
        return
    assert apart <= ROUNDED_STEPS[name]
    places = header_positions(data_folder / name)
    ours = np.array([volumes[0].affine @ [0, 0, k, 1] for k in range(len(places))])[:, :3]
    assert np.linalg.norm(ours - places * [-1, -1, 1], axis=1).max() <= 1e-3


@pytest.mark.parametrize("name", PHANTOMS)
def test_regular_phantoms_lie_where_dcm2niix_puts_them(name, convert, tmp_path):
    phantom = PHANTOMS[name]
    write_study(tmp_path / "study", phantom)
    peer = next(iter(convert(tmp_path / "study").values()))
    volume = medseg.read(tmp_path / "study")
    apart, differ = compare(volume, peer)
    show(name, volume, apart, differ)
    assert apart <= 1e-3
    assert differ <= 1e-3


@pytest.mark.parametrize("name", ENHANCED)
def test_enhanced_phantoms_lie_where_dcm2niix_puts_them(name, convert, tmp_path):
    write_enhanced(tmp_path / "study" / "IM0000.dcm", ENHANCED[name], in_order=True)
    peer = next(iter(convert(tmp_path / "study").values()))
    apart, differ = compare(medseg.read(tmp_path / "study"), peer)
    assert apart <= 1e-3
    assert differ <= 1e-3


def test_two_series_are_the_two_files_of_dcm2niix(convert, tmp_path):
    other = PLAIN.but(series=2, turn=euler(5.0, 6.0, 7.0), offset=1300.0, shape=(8, 5, 4))
    write_study(tmp_path / "study", PLAIN, other)
    images, volumes = convert(tmp_path / "study"), medseg.read_all(tmp_path / "study")
    assert {v.metadata.series_instance_uid for v in volumes} == set(images)
    for volume in volumes:
        apart, differ = compare(volume, images[volume.metadata.series_instance_uid])
        assert apart <= 1e-3
        assert differ <= 1e-3


def test_with_a_tilted_gantry_ours_follows_the_headers_and_dcm2niix_does_not(data_folder, convert):
    """Its main output has the same voxels, but steps of 5 mm x cos(14 degrees); its `_Tilt_1` resamples them."""
    folder = data_folder / TILTED
    volume = medseg.read(folder)
    images = convert(folder)
    main = next(image for name, image in images.items() if "_Tilt" not in name)
    assert any(name.endswith("_Tilt_1") for name in images)
    apart, differ = compare(volume, main)
    show(TILTED, volume, apart, differ)
    assert differ == 0
    assert apart > 0.4
    places = header_positions(folder)
    ours = np.array([volume.affine @ [0, 0, k, 1] for k in range(len(places))])[:, :3]
    assert np.linalg.norm(ours - places * [-1, -1, 1], axis=1).max() <= 1e-3
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    np.testing.assert_allclose(steps, 5.0, atol=1e-4)
    assert np.linalg.norm(main.affine[:3, 2]) == pytest.approx(5.0 * np.cos(np.radians(14.0)), abs=1e-3)


def test_a_tilted_phantom_is_right_with_us_and_unsheared_with_dcm2niix(convert, tmp_path):
    phantom = PLAIN.but(turn=euler(x=-15.0), tilt_deg=-15.0, tags={"GantryDetectorTilt": 15})
    write_study(tmp_path / "study", phantom)
    images = convert(tmp_path / "study")
    volume = medseg.read(tmp_path / "study")
    assert phantom.worst(volume) <= 0.501
    main = next(image for name, image in images.items() if "_Tilt" not in name)
    apart, differ = compare(volume, main)
    assert differ <= 1e-3
    assert apart > 1


def test_over_a_missing_slice_dcm2niix_writes_two_grids_and_we_refuse(data_folder, convert):
    """Slices at 0, 5, 10 and 20 mm. Its main output says 5 mm between all, its `_Eq_1` has 6 slices 4 mm apart.

    With `allow` we keep the four, with `resample` the fifth is interpolated between its neighbours; both are flagged.
    """
    folder = data_folder / GAP
    with pytest.raises(MedsegError, match=r"IM-0001-0009"):
        medseg.read(folder)
    images = convert(folder)
    main = next(image for name, image in images.items() if "_Eq" not in name)
    even = next(image for name, image in images.items() if name.endswith("_Eq_1"))
    assert even.shape[2] == 6
    theirs = _canonical(main)[0]
    kept, filled = (medseg.read(folder, irregular=policy) for policy in ("allow", "resample"))
    for volume in (kept, filled):
        assert "missing_slices" in {finding.kind for finding in volume.findings}
    np.testing.assert_array_equal(_voxels(kept), theirs)
    np.testing.assert_array_equal(_voxels(filled)[..., [0, 1, 2, 4]], theirs)
    between = (theirs[..., 2] + theirs[..., 3]) / 2
    assert np.abs(_voxels(filled)[..., 3] - between).max() <= 0.5
    assert filled.spacing_mm[2] == pytest.approx(5.0, abs=1e-4)


def _voxels(volume: Any) -> np.ndarray:
    return _canonical(nibabel.Nifti1Image(np.asarray(volume.array, np.float64), volume.affine))[0]
