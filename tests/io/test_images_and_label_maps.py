"""Reading the image and the label map of a case."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medseg.errors import DatasetError, GeometryError, ReadError
from medseg.io import write
from medseg.io.images import read_image
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.volume import Volume


def save(path, array, affine=None):
    write(Volume(np.asarray(array), np.eye(4) if affine is None else affine), path)
    return path


def cube(value, dtype=np.uint8):
    array = np.zeros((3, 4, 5), dtype)
    array[1, 2, 3] = value
    return array


def test_channels_are_stacked_in_order(tmp_path):
    volume = read_image([save(tmp_path / f"{n}.nii.gz", cube(n, t)) for n, t in ((1, np.int16), (2, np.float32))])
    assert volume.array.shape == (2, 3, 4, 5)
    assert volume.array[:, 1, 2, 3].tolist() == [1, 2]
    assert volume.array.dtype == np.float32


def test_one_image_has_one_channel_and_keeps_int16(tmp_path):
    volume = read_image([save(tmp_path / "a.nii.gz", cube(-500, np.int16))])
    assert (volume.channels, volume.array.dtype) == (1, np.int16)


def test_a_colour_picture_has_three_channels(tmp_path):
    Image.new("RGB", (7, 4), (1, 2, 3)).save(tmp_path / "a.png")
    volume = read_image([tmp_path / "a.png"])
    assert volume.array.shape == (3, 7, 4)
    assert volume.array[:, 0, 0].tolist() == [1, 2, 3]


def test_a_dicom_folder_can_be_an_image(small_series):
    assert read_image([small_series()]).metadata.modality == "CT"


def test_channels_of_two_patients_are_refused(small_series):
    folders = [small_series("a", PatientID="1"), small_series("b", PatientID="2")]
    with pytest.raises(GeometryError, match="patient_id"):
        read_image(folders)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused_by_file(tmp_path, bad):
    with pytest.raises(ReadError, match=r"a\.nii\.gz contains 1 NaN or infinite"):
        read_image([save(tmp_path / "a.nii.gz", cube(bad, np.float32))])


def test_channels_on_two_grids_are_refused_naming_both(tmp_path):
    paths = [save(tmp_path / "a.nii.gz", cube(1)), save(tmp_path / "b.nii.gz", cube(1), np.diag([1, 1, 3, 1]))]
    with pytest.raises(GeometryError, match=r"a\.nii\.gz.*b\.nii\.gz"):
        read_image(paths)


@pytest.mark.parametrize(("value", "dtype"), [(7, np.uint8), (300, np.uint16), (70000, np.uint32)])
def test_whole_floats_become_the_smallest_integers(tmp_path, value, dtype):
    labels = read_label_map([LabelSource(save(tmp_path / "a.nii.gz", cube(value, np.float32)))], None)
    assert labels.array.dtype == dtype
    assert labels.array[1, 2, 3] == value
    assert labels.channels == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(2.0**24, "16777216 in single precision"), (0.4, "0.4.*label_threshold"), (-2, "-2"), (np.nan, "NaN")],
)
def test_values_that_are_no_labels_are_refused(tmp_path, value, words):
    with pytest.raises(DatasetError, match=rf"a\.nii\.gz.*{words}"):
        read_label_map([LabelSource(save(tmp_path / "a.nii.gz", cube(value, np.float32)))], None)


def test_soft_masks_are_cut_at_the_threshold(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "a.png")
    labels = read_label_map([LabelSource(tmp_path / "a.png")], 127)
    assert labels.array[:, 0].tolist() == [0, 0, 1, 1]


def test_grey_masks_saved_as_colour_are_labels_and_true_colours_are_not(tmp_path):
    Image.new("RGB", (3, 4), (2, 2, 2)).save(tmp_path / "a.png")
    Image.new("RGB", (3, 4), (2, 0, 2)).save(tmp_path / "b.png")
    assert read_label_map([LabelSource(tmp_path / "a.png")], None).array.max() == 2
    with pytest.raises(DatasetError, match="different channels"):
        read_label_map([LabelSource(tmp_path / "b.png")], None)


def test_one_mask_per_structure_is_painted_in_the_order_given(tmp_path):
    first, second = np.zeros((3, 4, 5), np.uint8), np.zeros((3, 4, 5), np.uint8)
    first[:2], second[1:] = 255, 1
    paths = save(tmp_path / "a.nii.gz", first), save(tmp_path / "b.nii.gz", second)
    labels = read_label_map([LabelSource(paths[0], 5), LabelSource(paths[1], 300)], None)
    assert labels.array[:, 0, 0].tolist() == [5, 300, 300]
    labels = read_label_map([LabelSource(paths[1], 300), LabelSource(paths[0], 5)], None)
    assert labels.array[:, 0, 0].tolist() == [5, 5, 300]


def test_value_and_threshold_go_together(tmp_path):
    path = save(tmp_path / "a.nii.gz", cube(100) + 100)
    labels = read_label_map([LabelSource(path, 4)], 127)
    assert labels.array.sum() == 4


def test_masks_on_two_grids_are_refused(tmp_path):
    paths = [save(tmp_path / "a.nii.gz", cube(1)), save(tmp_path / "b.nii.gz", cube(1), np.diag([1, 1, 3, 1]))]
    with pytest.raises(GeometryError, match=r"a\.nii\.gz.*b\.nii\.gz"):
        read_label_map([LabelSource(p, 1) for p in paths], None)


def test_a_threshold_for_0_255_leaves_a_two_level_mask_as_it_is(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8) * 255).convert("1").save(path)
    assert read_label_map([LabelSource(path)], threshold=127).array.sum() == 3
    save(tmp_path / "mask.nii.gz", np.array([[0, 1], [1, 1]], np.uint8))
    assert read_label_map([LabelSource(tmp_path / "mask.nii.gz")], threshold=127).array.sum() == 3
