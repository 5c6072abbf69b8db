"""Files from scanners and public data sets, and made-up ones like them, compared with their twins in another format."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.config import DataConfig
from medseg.datasets.cases import find_cases
from medseg.errors import GeometryError
from medseg.geometry import reorient
from medseg.io import read
from medseg.io.images import read_image
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.studies.sources import find_studies


def test_chest_ct_is_the_same_from_dicom_and_nrrd(data_folder):
    dicom, nrrd = read(data_folder / "lung_ct_cip/ct-64Dicom"), read(data_folder / "lung_ct_cip/ct-64.nrrd")
    np.testing.assert_array_equal(dicom.array, nrrd.array)
    np.testing.assert_allclose(dicom.affine, nrrd.affine, atol=1e-3)
    assert dicom.same_geometry(nrrd, tolerance_mm=1e-2)
    assert (dicom.array.dtype, dicom.metadata.modality, dicom.orientation) == (np.int16, "CT", "LPS")


def test_a_head_in_six_axis_orders_is_one_head(data_folder):
    volumes = [reorient(read(p)) for p in sorted((data_folder / "nifti_edge").glob("space_*.nii.gz"))]
    assert len(volumes) == 6
    for other in volumes[1:]:
        np.testing.assert_array_equal(other.array, volumes[0].array)
        assert other.same_geometry(volumes[0])


def test_nifti_variants_are_read(data_folder):
    folder = data_folder / "nifti_edge"
    big = read(folder / "anatomical.nii")
    assert (big.shape, big.array.dtype, big.orientation) == ((33, 41, 25), np.int16, "LAS")
    assert big.array.dtype.isnative
    assert read(folder / "example_nifti2.nii.gz").array.shape == (2, 32, 20, 12)
    assert read(folder / "example4d.nii.gz").channels == 2
    assert np.unique(read(folder / "standard.nii.gz").array).size > 1


def test_a_mask_stored_with_a_tiny_slope_is_zero_and_one(data_folder):
    path = data_folder / "tumor_brats2013/brats_2013_pat0001_1/brainmask.nii.gz"
    labels = read_label_map([LabelSource(path)], None)
    assert labels.array.dtype == np.uint8
    assert np.unique(labels.array).tolist() == [0, 1]
    # A brain takes about an eighth to a third of this field of view; 1.0 to 2.0 litres.
    assert 1.0e6 < labels.array.sum() * np.prod(labels.spacing_mm) < 2.0e6


def test_uncompressed_mr_equals_its_ground_truth(data_folder):
    folder = data_folder / "dicom_compressed"
    truth = reorient(read(folder / "001_ground_truth.nii.gz"))
    volume = reorient(read(folder / "anatomical"))
    np.testing.assert_array_equal(volume.array, truth.array)
    assert volume.same_geometry(truth)


def test_four_codecs_agree_voxel_by_voxel_and_with_itk(data_folder):
    # These four hold one image, but not the pixels of the ground truth beside them (the fifth, uncompressed, does).
    import SimpleITK as sitk

    folder = data_folder / "dicom_compressed"
    kinds = ("compressed_rle", "compressed_j2k", "compressed_jpeg", "compressed_jpegls")
    first, *others = (read(folder / kind) for kind in kinds)
    for other in others:
        np.testing.assert_array_equal(other.array, first.array)
        assert other.same_geometry(first)
    assert first.same_geometry(read(folder / "anatomical"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "compressed_rle")))
    np.testing.assert_array_equal(first.array, sitk.GetArrayFromImage(reader.Execute()).T)


def test_jpeg_2000_ct_lies_on_the_grid_of_its_segmentation(data_folder):
    ct = read(data_folder / "ct_totalseg/example_ct_dicom")
    labels = read(data_folder / "ct_totalseg/example_seg_dicom.nii.gz")
    assert reorient(ct).same_geometry(reorient(labels))
    assert ct.array.dtype == np.int16
    # Inside segmented organs are soft tissues and bone, outside mostly air and table.
    inside = reorient(ct).array[reorient(labels).array > 0]
    assert -100 < np.median(inside) < 200


def test_oblique_mr_equals_itk(data_folder):
    import SimpleITK as sitk

    for name in ("dicom_mr_t1post", "dicom_mr_hcrop"):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(data_folder / name)))
        image = reader.Execute()
        volume = read(data_folder / name)
        np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
        corner = np.array(volume.shape) - 1
        x, y, z = image.TransformIndexToPhysicalPoint([int(c) for c in corner])
        np.testing.assert_allclose((volume.affine @ (*corner, 1))[:3], (-x, -y, z), atol=2e-3)
        assert volume.metadata.modality == "MR"


def test_an_enhanced_multi_frame_ct_equals_its_single_frame_twin(data_folder):
    frames, slices = (read(data_folder / "dicom_seg/24x38x3" / name) for name in ("multiframe", "image"))
    np.testing.assert_array_equal(frames.array, slices.array)
    assert frames.same_geometry(slices)


def test_irregular_series_are_refused_or_reported(data_folder):
    tilted = read(data_folder / "dicom_bad/gantrytilting")
    assert [f.kind for f in tilted.findings] == ["gantry_tilt"]
    assert "14.0 degrees" in tilted.findings[0].message
    with pytest.raises(GeometryError, match=r"1 slice.* missing"):
        read(data_folder / "dicom_bad/sliceincrement")
    assert [f.kind for f in read(data_folder / "dicom_bad/slicecount").findings] == ["few_slices"]


def test_studies_with_equal_uids_are_kept_apart(data_folder):
    names = [s.case for s in find_studies(data_folder / "dicom_compressed")]
    assert {"compressed_rle", "compressed_j2k", "anatomical"} <= set(names)


def test_hippocampus_cases_are_found_and_fit(data_folder):
    dataset = find_cases(DataConfig(root=data_folder / "hippocampus", labels={"anterior": 1, "posterior": 2}))
    assert len(dataset.cases) == 60
    for case in dataset.cases[:5]:
        labels = read_label_map(case.labels, None)
        assert read_image(case.images).same_geometry(labels.with_array(labels.array))
        assert np.unique(labels.array).tolist() == [0, 1, 2]


def test_soft_lung_masks_in_colour_files_become_one_label(data_folder):
    config = DataConfig(root=data_folder / "lung2d_lungsegdb", labels={"lung": 1}, label_threshold=127)
    dataset = find_cases(config)
    assert len(dataset.cases) == 12
    labels = read_label_map(dataset.cases[0].labels, config.label_threshold)
    assert np.unique(labels.array).tolist() == [0, 1]
    assert not labels.spacing_known
