"""Overlapping segments and ROIs of other programs become objects with all their voxels, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_studies import SHAPE, draw_seg, mask, write_images
from made_segmentations import write_segmentation

from medseg.commands.convert import ConvertOptions, convert
from medseg.errors import WriteError
from medseg.io.dicom.objects import read_object
from medseg.io.dicom.overlaps import Overlaps

NAMES = ("Liver", "Spleen", "Heart")  # Heart overlaps the other two.


def each_mask(path: Path, study: Path) -> dict[str, np.ndarray]:
    """Name -> mask of every segment or ROI, each read by itself."""
    _, names = read_object(path, study)
    return {name: read_object(path, study, values={name: 1})[0].array == 1 for name in names}


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
@pytest.mark.parametrize("through", ["", "dicom-seg", "rtstruct"])
def test_overlapping_labels_keep_all_their_voxels_from_object_to_object(tmp_path, kind, through):
    draw_seg(write_images(tmp_path / "study", 1), tmp_path / "source.dcm", *NAMES)
    source = tmp_path / "source.dcm"
    if through:
        convert(source, tmp_path / "between.dcm", ConvertOptions(through, reference=tmp_path / "study"))
        source = tmp_path / "between.dcm"
    done = convert(source, tmp_path / "out.dcm", ConvertOptions(kind, reference=tmp_path / "study"))
    found = each_mask(tmp_path / "out.dcm", tmp_path / "study")
    assert set(found) == set(NAMES) == set(done.classes)
    for name in NAMES:
        np.testing.assert_array_equal(found[name], mask(name))
    if not through:
        (finding,) = [finding for finding in done.findings if finding.kind == "overlap"]
        assert "all of each is kept" in finding.message
    if kind == "dicom-seg":
        assert pydicom.dcmread(tmp_path / "out.dcm").get("SegmentsOverlap", "UNDEFINED") != "NO"


def test_regions_and_equal_and_empty_segments_survive(tmp_path):
    files = write_images(tmp_path / "study", 1)
    whole, core = mask("Liver"), mask("Liver") & (np.arange(SHAPE[0])[:, None, None] > 5)
    masks = {"Liver": whole, "Spleen": core, "Heart": core, "Kidney": np.zeros(SHAPE, bool)}
    write_segmentation(files, list(masks.values()), list(masks), tmp_path / "source.dcm")
    options = ConvertOptions("dicom-seg", reference=tmp_path / "study")
    convert(tmp_path / "source.dcm", tmp_path / "out.dcm", options)
    found = each_mask(tmp_path / "out.dcm", tmp_path / "study")
    assert {name: int(each.sum()) for name, each in found.items()} == {name: int(m.sum()) for name, m in masks.items()}


def test_a_label_map_of_an_object_with_overlaps_keeps_the_last_one_and_says_so(tmp_path):
    draw_seg(write_images(tmp_path / "study", 1), tmp_path / "source.dcm", *NAMES)
    done = convert(tmp_path / "source.dcm", tmp_path / "out.nii.gz", ConvertOptions(reference=tmp_path / "study"))
    assert done.classes == {"Liver": 1, "Spleen": 2, "Heart": 3}
    assert any("so the last named is kept" in finding.message for finding in done.findings)


def test_more_overlaps_than_an_object_can_describe_are_refused_with_what_to_do(tmp_path):
    files = write_images(tmp_path / "study", 1)
    masks = []
    for n in range(16):
        # Every pair of neighbours overlaps, and none contains another.
        masks.append(np.zeros(SHAPE, bool))
        masks[-1][n : n + 3, 2:8, 2:5] = True
    write_segmentation(files, masks, ["Liver"] * 16, tmp_path / "source.dcm")
    with pytest.raises(WriteError, match=r"16 labels of .* overlap in more ways.*fewer of them to each object"):
        convert(
            tmp_path / "source.dcm", tmp_path / "out.dcm", ConvertOptions("dicom-seg", reference=tmp_path / "study")
        )
    assert not (tmp_path / "out.dcm").exists()


def test_combinations_get_values_that_no_label_has():
    overlaps = Overlaps((2, 5, 1))
    array = np.zeros(6, np.uint16)
    array[:3] = overlaps.painted(array[:3], 5)
    array[2:5] = overlaps.painted(array[2:5], 2)
    assert array.tolist() == [5, 5, 3, 2, 2, 0] and overlaps.held(3) == (2, 5)
    assert overlaps.regions(np.unique(array)) == {2: (2, 3), 5: (3, 5), 1: (1,)}
