from __future__ import annotations

import numpy as np
import pytest

from medseg.config import PostprocessConfig
from medseg.errors import ConfigError, GeometryError
from medseg.inference.postprocess import fill_holes, keep_components, postprocess
from medseg.labels import LabelScheme
from medseg.volume import Volume

PLAIN = LabelScheme.from_mapping({"lung": 1, "tumour": 2})
BRATS = LabelScheme.from_mapping({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]})


def _row(*values: int) -> Volume:
    """A volume of one row; voxels of 10 x 10 x 10 mm are 1 ml."""
    return Volume(np.array(values, dtype=np.uint8).reshape(-1, 1, 1), np.diag([10.0, 10.0, 10.0, 1.0]))


def _done(mask: Volume, scheme: LabelScheme, **rules: object) -> list[int]:
    return postprocess(mask, scheme, PostprocessConfig.model_validate(rules)).array.ravel().tolist()


def test_without_rules_the_mask_is_the_same_object() -> None:
    mask = _row(1, 0, 1)
    assert postprocess(mask, PLAIN, PostprocessConfig()) is mask


def test_the_largest_component_of_one_label_stays_and_other_labels_are_left_alone() -> None:
    assert _done(_row(1, 0, 1, 1, 0, 2, 0, 2), PLAIN, keep_components={"lung": 1}) == [0, 0, 1, 1, 0, 2, 0, 2]


def test_two_lungs_stay_where_two_components_are_wanted() -> None:
    assert _done(_row(1, 1, 0, 1, 0, 1, 1), PLAIN, keep_components={"lung": 2}) == [1, 1, 0, 0, 0, 1, 1]


def test_a_smaller_component_in_the_middle_of_the_image_goes_before_a_larger_one_at_its_border() -> None:
    mask = _row(0, 2, 2, 2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1)
    expected = [0] * 9 + [2] + [0] * 7 + [1, 1]
    assert _done(mask, PLAIN, keep_central={"tumour": 1}) == expected
    assert _done(mask, PLAIN, keep_central={"tumour": 2}) == mask.array.ravel().tolist()


def test_of_components_equally_near_to_the_middle_the_larger_one_stays_whatever_the_direction_of_the_axes() -> None:
    mask = np.zeros((20, 20, 10), dtype=np.uint8)
    mask[8, 8:10, 4] = 2
    mask[11, 10:12, 5] = mask[11, 10, 4] = 2
    rules = PostprocessConfig(keep_central={"tumour": 1})
    found = postprocess(Volume(mask, np.eye(4)), PLAIN, rules).array
    assert found.sum() == 2 * 3 and found[11, 11, 5] == 2
    turned = postprocess(Volume(np.ascontiguousarray(mask[::-1].transpose(2, 0, 1)), np.eye(4)), PLAIN, rules).array
    assert np.array_equal(turned.transpose(1, 2, 0)[::-1], found)


def test_of_equally_large_components_the_first_stays() -> None:
    assert _done(_row(1, 0, 1), PLAIN, keep_components={"lung": 1}) == [1, 0, 0]


def test_a_component_of_exactly_the_least_volume_stays() -> None:
    assert _done(_row(2, 0, 2, 2, 0, 2, 2, 2), PLAIN, minimum_volume_ml={"tumour": 2}) == [0, 0, 2, 2, 0, 2, 2, 2]


def test_a_tumour_that_lies_beside_no_lung_is_removed() -> None:
    assert _done(_row(2, 0, 1, 2, 2, 0, 2), PLAIN, inside={"tumour": "lung"}) == [0, 0, 1, 2, 2, 0, 0]


def test_components_hang_together_over_corners() -> None:
    mask = Volume(np.eye(3, dtype=np.uint8)[..., None], np.eye(4))
    assert postprocess(mask, PLAIN, PostprocessConfig(keep_components={"lung": 1})).array.sum() == 3


def test_a_hole_takes_in_background_and_never_another_label() -> None:
    array = np.ones((5, 5, 1), dtype=np.uint8)
    array[1:4, 1:4] = [[[0], [0], [0]], [[0], [2], [0]], [[0], [0], [0]]]
    mask = Volume(np.concatenate([np.ones_like(array), array, np.ones_like(array)], axis=2), np.eye(4))
    filled = postprocess(mask, PLAIN, PostprocessConfig(fill_holes=("lung",))).array
    assert filled[2, 2, 1] == 2 and (filled == 1).sum() == filled.size - 1


def test_a_hole_that_is_open_at_the_image_border_is_not_filled() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1]], dtype=bool)
    assert not fill_holes(mask)[1, 1]


def test_a_region_that_is_removed_leaves_the_regions_around_it() -> None:
    # ET (4) of a single voxel goes, TC and WT stay there: 1 is in both and not in ET.
    assert _done(_row(2, 4, 2, 4, 4), BRATS, keep_components={"ET": 1}) == [2, 1, 2, 4, 4]


def test_a_whole_tumour_that_is_removed_takes_its_core_along() -> None:
    assert _done(_row(4, 0, 2, 1, 2), BRATS, keep_components={"WT": 1}) == [0, 0, 2, 1, 2]


def test_a_hole_in_the_core_becomes_core_where_the_whole_tumour_was() -> None:
    array = np.full((3, 3, 3), 1, dtype=np.uint8)
    array[1, 1, 1] = 2
    mask = Volume(array, np.eye(4))
    assert postprocess(mask, BRATS, PostprocessConfig(fill_holes=("TC",))).array[1, 1, 1] == 1


def test_a_hole_is_not_filled_where_that_would_take_another_region_away() -> None:
    crossing = LabelScheme.from_mapping({"A": [1, 3], "B": [2, 3]})
    array = np.full((3, 3, 3), 1, dtype=np.uint8)
    array[1, 1, 1] = 2
    mask = Volume(array, np.eye(4))
    # Painting A over B would take B away there, so the hole stays.
    assert postprocess(mask, crossing, PostprocessConfig(fill_holes=("A",))).array[1, 1, 1] == 2


def test_an_unknown_label_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"keep_components names 'liver'; the labels are lung, tumour"):
        postprocess(_row(1), PLAIN, PostprocessConfig(keep_components={"liver": 1}))


def test_a_least_volume_is_refused_where_there_is_no_spacing() -> None:
    mask = Volume(np.ones((2, 2), dtype=np.uint8), np.eye(4), spacing_known=False)
    with pytest.raises(GeometryError, match="spacing"):
        postprocess(mask, PLAIN, PostprocessConfig(minimum_volume_ml={"lung": 1}))


def test_a_mask_without_the_label_is_left_as_it_is() -> None:
    assert _done(_row(0, 2), PLAIN, keep_components={"lung": 1}, fill_holes=["lung"]) == [0, 2]


def test_components_can_be_limited_by_size_and_number_at_once() -> None:
    mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], dtype=bool)
    assert keep_components(mask, 2, 1).tolist() == [False] * 5 + [True] * 3
    assert not keep_components(mask, 9).any()


def test_a_voxel_that_a_region_loses_keeps_the_regions_around_it_under_a_spare_value() -> None:
    scheme = LabelScheme.from_mapping({"pen": [1], "core": [2], "whole": [1, 2]}).written
    array = np.array([[3, 1, 3, 2, 2, 0, 1, 0]], dtype=np.uint8)
    mask = Volume(array, np.eye(4), spacing_known=False)
    rules = PostprocessConfig(keep_components={"pen": 1})
    assert postprocess(mask, scheme, rules).array.tolist() == [[3, 1, 3, 2, 2, 0, 3, 0]]


def test_a_voxel_that_one_of_two_crossing_regions_loses_stays_in_the_other() -> None:
    scheme = LabelScheme.from_mapping({"a": [1, 2], "b": [2, 3]}).written
    mask = Volume(np.array([[1, 1, 0, 2, 3]], dtype=np.uint8), np.eye(4), spacing_known=False)
    rules = PostprocessConfig(keep_components={"a": 1})
    assert postprocess(mask, scheme, rules).array.tolist() == [[1, 1, 0, 3, 3]]
