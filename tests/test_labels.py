"""What the integers of a label map mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import ConfigError, DatasetError
from medseg.labels import LabelScheme, check_label_bounds

BRATS_2013 = {"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]}
BRATS_2023 = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}


def test_plain_labels_get_one_channel_each_and_one_for_the_background() -> None:
    scheme = LabelScheme.from_mapping({"background": 0, "liver": 1, "tumour": 7})
    assert scheme.names == ("liver", "tumour") and scheme.values == ((1,), (7,))
    assert scheme.out_channels == 3 and not scheme.is_regions
    assert scheme.channel_table().tolist() == [0, 1, 0, 0, 0, 0, 0, 2]
    assert scheme.painted == (1, 7)


def test_ignore_is_known_and_belongs_to_no_channel() -> None:
    scheme = LabelScheme.from_mapping({"liver": 1}, ignore=3)
    assert scheme.known_values == {0, 1, 3}
    assert scheme.channel_table().tolist() == [0, 1, 0, -1]


def test_regions_overlap_and_have_no_background_channel() -> None:
    scheme = LabelScheme.from_mapping(BRATS_2013)
    assert scheme.is_regions and scheme.out_channels == 3
    assert scheme.region_table().tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(("labels", "painted"), [(BRATS_2013, (2, 1, 4)), (BRATS_2023, (2, 1, 3))])
def test_brats_regions_are_painted_from_the_outside_in(labels: dict[str, list[int]], painted: tuple[int, ...]) -> None:
    assert LabelScheme.from_mapping(labels).painted == painted


def paint(scheme: LabelScheme, masks: np.ndarray) -> np.ndarray:
    result = np.zeros(masks.shape[1:], dtype=scheme.dtype)
    for mask, value in zip(masks, scheme.painted, strict=True):
        result[mask] = value
    return result


def test_a_background_given_as_a_list_makes_no_regions() -> None:
    assert not LabelScheme.from_mapping({"background": [0], "liver": 1}).is_regions


@given(st.data())
def test_nested_regions_read_back_as_they_were_painted(data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(1, 40), min_size=3, max_size=8, unique=True))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(values)), min_size=1, max_size=4)), reverse=True)
    scheme = LabelScheme.from_mapping({f"region {n}": values[:n] for n in cuts})
    depth = np.array(data.draw(st.lists(st.integers(0, len(cuts)), min_size=1, max_size=20)))
    masks = np.stack([depth > n for n in range(len(cuts))])
    painted = paint(scheme, masks)
    for name, mask in zip(scheme.names, masks, strict=True):
        assert (scheme.mask(painted, name) == mask).all()


@given(st.permutations([1, 2, 5, 300]), st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_plain_labels_read_back_as_they_were_painted(values: list[int], channels: list[int]) -> None:
    scheme = LabelScheme.from_mapping({f"label {v}": v for v in values})
    truth = np.array(channels)
    painted = paint(scheme, np.stack([truth == n for n in range(1, 5)]))
    assert (scheme.channel_table()[painted] == truth).all()
    assert painted.dtype == np.uint16


def test_two_regions_side_by_side_inside_a_third_read_back() -> None:
    scheme = LabelScheme.from_mapping({"kidney": [1, 2, 3], "tumour": [2], "cyst": [3]})
    masks = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    painted = paint(scheme, masks)
    assert painted.tolist() == [1, 2, 3, 0]


def test_a_region_without_a_value_of_its_own_is_refused() -> None:
    scheme = LabelScheme.from_mapping({"ET": [4], "TC": [1, 4], "WT": [1, 4]})
    with pytest.raises(ConfigError, match="larger regions first"):
        _ = scheme.painted


@pytest.mark.parametrize(
    ("labels", "ignore", "message"),
    [
        ({}, None, "names no label"),
        ({"background": 0}, None, "names no label"),
        ({"a": -1}, None, "positive integers"),
        ({"a": []}, None, "positive integers"),
        ({"a": [0, 1]}, None, "positive integers"),
        ({"a": 1, "b": 1}, None, "share a value"),
        ({"a": 1}, 1, "already a label"),
        ({"a": 1}, -1, "negative"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: dict[str, int], ignore: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelScheme.from_mapping(labels, ignore)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("left_lung", "right_lung"), ((0, 1),)),
        (("Lung R", "Lung L", "heart"), ((1, 0),)),
        (("kidney-left", "spleen", "kidney-right"), ((0, 2),)),
        (("hip.lt", "hip.rt"), ((0, 1),)),
        (("left_lung", "right_kidney"), ()),
        (("upright", "leftover"), ()),
        (("left_upper_lobe", "left_lower_lobe", "right_upper_lobe", "right_lower_lobe"), ((0, 2), (1, 3))),
        (("left", "right"), ((0, 1),)),
    ],
)
def test_pairs_of_left_and_right_are_found_by_name(names: tuple[str, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    scheme = LabelScheme.from_mapping({name: n for n, name in enumerate(names, start=1)})
    assert scheme.left_right_pairs == pairs
    assert scheme.left_right == {
        **{names[left]: "left" for left, _ in pairs},
        **{names[right]: "right" for _, right in pairs},
    }


def test_unknown_values_are_named_with_the_file_and_the_mend() -> None:
    scheme = LabelScheme.from_mapping({"liver": 1, "tumour": 2})
    scheme.check_values([0, 1, 2], "a.nii.gz")
    with pytest.raises(
        DatasetError, match=r"a\.nii\.gz contains label value\(s\) 3, 9 .*liver=1, tumour=2.*data\.ignore"
    ):
        scheme.check_values([0, 3, 9], "a.nii.gz")


def test_a_mask_of_0_and_255_gets_the_hint_to_threshold_it() -> None:
    scheme = LabelScheme.from_mapping({"vessel": 1})
    with pytest.raises(DatasetError, match="label_threshold: 127"):
        scheme.check_values(np.arange(256).tolist(), "mask.png")


@pytest.mark.parametrize(
    ("value", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.uint32)]
)
def test_label_maps_are_as_small_as_their_values_allow(value: int, dtype: type) -> None:
    assert LabelScheme.from_mapping({"a": value}).dtype is dtype


@pytest.mark.parametrize(
    "labels",
    [
        {"a\nb": 1},
        {"": 1},
        {"a" * 201: 1},
        {"../a": 1},
        {"/a": 1},
        {"a\\b": 1},
        {"a": 65536},
        {"a": -1},
        {"a": [1, 2**31]},
        {f"l{n}": n for n in range(1025)},
    ],
)
def test_labels_that_no_model_is_made_for_are_refused(labels):
    with pytest.raises(ConfigError):
        check_label_bounds(labels)


def test_labels_of_public_data_sets_are_within_the_bounds():
    check_label_bounds({"prostate/uterus": 15, "whole tumour": (1, 2, 3), "Nervus opticus (links)": 65535, "左肺": 2})
