"""The synthetic studies: the same each time, like CT where it matters, and not to be solved by a threshold."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage

from medseg.geometry import reorient
from medseg.phantoms import CASES, LUNG, STUDY_SEED, TUMOUR, make_phantom, samples_folder, write_samples
from medseg.volume import Volume

SEEDS = [*range(1, CASES + 1), STUDY_SEED]


@pytest.fixture(scope="module")
def phantoms() -> dict[int, tuple[Volume, Volume]]:
    return {seed: make_phantom(seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def read_nifti(path: Path) -> Volume:
    image = nib.load(path)
    return Volume(np.asarray(image.dataobj), image.affine)


def test_the_same_seed_gives_the_same_phantom(phantoms: dict[int, tuple[Volume, Volume]]) -> None:
    image, labels = make_phantom(3)
    assert_array_equal(image.array, phantoms[3][0].array)
    assert_array_equal(labels.array, phantoms[3][1].array)
    assert_array_equal(image.affine, phantoms[3][0].affine)
    assert not np.array_equal(image.affine, phantoms[4][0].affine)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_phantom_has_two_lungs_and_a_tumour_worth_finding(
    phantoms: dict[int, tuple[Volume, Volume]], seed: int
) -> None:
    image, labels = phantoms[seed]
    assert image.array.dtype == np.int16 and labels.array.dtype == np.uint8
    assert image.orientation == "LPS" and image.same_geometry(labels)
    assert (labels.array == TUMOUR).sum() >= 150
    lungs, _ = ndimage.label(np.isin(labels.array, (LUNG, TUMOUR)))
    sizes = np.sort(np.bincount(lungs.ravel())[1:])[::-1]
    assert sizes[1] > 3000 and sizes[2:].sum() < 0.01 * sizes[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_hounsfield_units_look_like_ct(phantoms: dict[int, tuple[Volume, Volume]], seed: int) -> None:
    image, labels = phantoms[seed]
    assert image.array.min() >= -1024 and 300 < image.array.max() < 1500
    inner_tumour = ndimage.binary_erosion(labels.array == TUMOUR)
    assert -20 < np.median(image.array[inner_tumour]) < 80
    inner_lung = ndimage.binary_erosion(labels.array == LUNG, iterations=2)
    assert -900 < np.median(image.array[inner_lung]) < -780
    assert (image.array[inner_lung] > -300).any()  # vessels, as bright as the tumour


def test_the_left_lung_is_the_smaller_one(phantoms: dict[int, tuple[Volume, Volume]]) -> None:
    _, labels = phantoms[STUDY_SEED]
    lung = np.isin(labels.array, (LUNG, TUMOUR))
    half = lung.shape[0] // 2
    assert lung[half:].sum() < lung[:half].sum()  # axis i runs to the patient's left


@pytest.mark.parametrize(("label", "asked"), [(LUNG, 0.95), (TUMOUR, 0.7)])
def test_no_threshold_solves_a_phantom(phantoms: dict[int, tuple[Volume, Volume]], label: int, asked: float) -> None:
    image, labels = phantoms[STUDY_SEED]
    truth = labels.array == label
    edges = range(-1024, 420, 12)
    single = max(max(dice(image.array > t, truth), dice(image.array <= t, truth)) for t in edges)
    bands = max(dice((image.array > a) & (image.array <= b), truth) for a in edges[::2] for b in edges[::2] if b > a)
    assert single < asked - 0.5
    assert bands < asked - 0.1


def test_writing_again_gives_the_files_in_the_repository(written: Path) -> None:
    ours = {p.relative_to(written) for p in written.rglob("*") if p.is_file()}
    packed = {p.relative_to(samples_folder()) for p in samples_folder().rglob("*") if p.is_file()}
    assert packed - ours == {Path("README.md")} and not ours - packed
    for name in sorted(ours):
        if name.suffixes[-2:] == [".nii", ".gz"]:
            new, old = read_nifti(written / name), read_nifti(samples_folder() / name)
            assert_array_equal(new.array, old.array)
            assert_allclose(new.affine, old.affine)
        else:
            assert (written / name).read_bytes() == (samples_folder() / name).read_bytes(), name


def test_the_samples_stay_small() -> None:
    assert sum(p.stat().st_size for p in samples_folder().rglob("*") if p.is_file()) < 3_000_000


def test_nifti_samples_lie_where_the_phantoms_lie(phantoms: dict[int, tuple[Volume, Volume]]) -> None:
    for seed in (1, 2):
        image = read_nifti(samples_folder() / "chest" / "images" / f"phantom_{seed:02d}.nii.gz")
        assert image.orientation == ("LPS" if seed % 2 else "RAS")
        back = reorient(image, "LPS")
        assert_array_equal(back.array, phantoms[seed][0].array)
        assert_allclose(back.affine, phantoms[seed][0].affine, atol=1e-4)


def test_the_study_can_be_put_together_from_its_positions(phantoms: dict[int, tuple[Volume, Volume]]) -> None:
    image, labels = phantoms[STUDY_SEED]
    slices = [pydicom.dcmread(p) for p in sorted((samples_folder() / "study").iterdir())]
    assert len({s.SOPInstanceUID for s in slices}) == len(slices) == image.shape[2]
    assert len({(s.StudyInstanceUID, s.SeriesInstanceUID, s.FrameOfReferenceUID) for s in slices}) == 1
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert heights != sorted(heights)  # neither file names nor InstanceNumber tell the order
    slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
    array = np.stack([s.pixel_array.T.astype(int) + int(s.RescaleIntercept) for s in slices], axis=-1)
    assert_array_equal(array, image.array)
    reference = read_nifti(samples_folder() / "study_reference" / "study.nii.gz")
    assert_array_equal(reference.array, labels.array)


def test_medseg_reads_the_study_on_the_grid_of_its_reference(phantoms: dict[int, tuple[Volume, Volume]]) -> None:
    import medseg

    volume = medseg.read(samples_folder() / "study")
    assert_array_equal(volume.array, phantoms[STUDY_SEED][0].array)
    reference = medseg.read(samples_folder() / "study_reference" / "study.nii.gz")
    assert volume.same_geometry(reference, tolerance_mm=1e-3)


def test_slices_and_masks_are_png_pairs_of_one_size() -> None:
    folder = samples_folder() / "slice"
    names = sorted(p.name for p in (folder / "images").iterdir())
    assert names == sorted(p.name for p in (folder / "masks").iterdir()) and len(names) == 6
    for name in names:
        with Image.open(folder / "images" / name) as image, Image.open(folder / "masks" / name) as mask:
            assert image.size == mask.size and image.mode == mask.mode == "L"
            assert set(np.unique(np.asarray(mask))) == {0, LUNG, TUMOUR}
