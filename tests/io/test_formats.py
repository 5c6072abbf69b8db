"""What a file's name says about it: each kind is decided in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.io.formats import (
    has_voxels_elsewhere,
    is_annotation_file,
    is_image_file,
    is_probability_file,
    may_be_dicom,
)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("a.nii", {is_image_file}),
        ("A.NII.GZ", {is_image_file}),
        ("a.tiff", {is_image_file}),
        ("a.mhd", {is_image_file, has_voxels_elsewhere}),
        ("a.NHDR", {is_image_file, has_voxels_elsewhere}),
        ("a.hdr", {is_image_file, has_voxels_elsewhere}),
        ("a.hdr.gz", {is_image_file, has_voxels_elsewhere}),
        ("a.json", {is_annotation_file}),
        ("a.XML", {is_annotation_file}),
        ("a.csv", set()),
        ("a.zip", set()),
        ("a.npz", {is_probability_file, may_be_dicom}),
        ("a.dcm", {may_be_dicom}),
        ("IM0001", {may_be_dicom}),
        ("1.2.840.7", {may_be_dicom}),
        # No header lies beside it.
        ("a.img", {may_be_dicom}),
    ],
)
def test_the_kinds_that_a_name_leaves_open(name, kinds):
    every = (is_image_file, is_annotation_file, is_probability_file, may_be_dicom, has_voxels_elsewhere)
    assert {each for each in every if each(Path(name))} == kinds
