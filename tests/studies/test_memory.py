from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from inference_bundles import make_info, make_plan

import medseg
from medseg.io.dicom.writing.series import write_dicom_series
from medseg.studies.memory import memory_of_case
from medseg.studies.sources import Source, find_studies
from medseg.volume import Volume


def test_a_case_takes_image_mask_input_and_the_open_logits_not_all_of_them(tmp_path):
    path = tmp_path / "ct.nii.gz"
    medseg.write(Volume(np.zeros((60, 40, 90), np.int16), np.diag([1.0, 1, 1, 1])), path)
    source, info = Source("ct", (path,)), make_info(make_plan(patch_size=(24, 24, 24)))
    voxels = 60 * 40 * 90
    whole = voxels * (2 + 2) + 4 * voxels * (1 + 3)
    assert memory_of_case(source, info, whole_logits=1) == whole
    assert memory_of_case(source, info, whole_logits=3) == whole + 4 * voxels * 2 * 3
    # 25 rows of a cube of that volume: its edge is 60.
    assert memory_of_case(source, info) == pytest.approx(voxels * 4 + 4 * voxels + 4 * 3 * 25 * 60**2)


@pytest.mark.parametrize("pixel", [1e300, 1e-300, 0.0, -1.0])
def test_an_impossible_spacing_counts_as_none(tmp_path, pixel):
    write_dicom_series(Volume(np.zeros((9, 7, 6), np.int16), np.eye(4)), tmp_path / "study")
    (source,) = find_studies(tmp_path / "study")
    slices = tuple(replace(s, pixel_spacing=(pixel, pixel)) for s in source.series.slices)
    source = replace(source, series=replace(source.series, slices=slices))
    voxels = 9 * 7 * 6
    assert memory_of_case(source, make_info(make_plan()), whole_logits=1) == voxels * (2 + 2) + 4 * voxels * (1 + 3)
