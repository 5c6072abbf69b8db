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


@pytest.mark.parametrize(
    ("labels", "values", "spare"),
    [
        ({"whole": [1, 2], "pen": [1], "core": [2]}, ((1, 2, 3), (1,), (2,)), (3,)),
        ({"pen": [1], "core": [2], "whole": [1, 2]}, ((1,), (2,), (1, 2, 3)), (3,)),
        ({"core": [2], "whole": [1, 2]}, ((2,), (1, 2)), ()),
        ({"a": [1, 2], "b": [2, 3], "c": [3]}, ((1, 2), (2, 3, 4), (3,)), (4,)),
        ({"a": [1, 2], "b": [2, 3], "c": [3, 1]}, ((1, 2, 4, 7), (2, 3, 5, 7), (3, 1, 6, 7)), (4, 5, 6, 7)),
        (BRATS_2013, ((1, 2, 3, 4), (1, 3, 4), (4,)), ()),
    ],
)
def test_a_combination_of_regions_without_a_value_of_its_own_gets_a_spare_one(
    labels: dict[str, list[int]], values: tuple[tuple[int, ...], ...], spare: tuple[int, ...]
) -> None:
    scheme = LabelScheme.from_mapping(labels).written
    assert (scheme.values, scheme.spare) == (values, spare)
    assert scheme.written == scheme
    assert scheme.trained == LabelScheme.from_mapping(labels)


def test_a_spare_value_is_not_the_one_to_ignore() -> None:
    assert LabelScheme.from_mapping({"whole": [1, 2], "pen": [1], "core": [2]}, ignore=3).written.spare == (4,)


def test_regions_that_combine_in_more_ways_than_a_map_can_represent_are_refused() -> None:
    crossing = {f"r{n}": [n + 1, (n + 1) % 13 + 1] for n in range(13)}
    with pytest.raises(ConfigError, match="cross each other in too many ways"):
        assert LabelScheme.from_mapping(crossing).written
    nested = {"all": list(range(1, 101)), **{f"organ {n}": [n] for n in range(1, 101)}}
    assert LabelScheme.from_mapping(nested).written.spare == (101,)


@st.composite
def any_regions(draw: st.DrawFn) -> LabelScheme:
    count = draw(st.integers(1, 5))
    sets = draw(st.lists(st.sets(st.integers(1, 6), min_size=1, max_size=6), min_size=count, max_size=count))
    return LabelScheme.from_mapping({f"r{n}": sorted(each) for n, each in enumerate(sets)})


def kept(scheme: LabelScheme, active: list[bool]) -> set[int]:
    """By definition: a later region excludes what never occurs with it, and a region brings all that contain it."""
    values = [set(v) for v in scheme.values]
    result: set[int] = set()
    for n in reversed(scheme.regions.order):
        if active[n] and all(values[n] & values[m] for m in result):
            result |= {m for m in range(len(values)) if values[n] <= values[m]}
    return result


@given(any_regions(), st.data())
def test_every_combination_of_regions_that_is_painted_reads_back(scheme: LabelScheme, data: st.DataObject) -> None:
    active = data.draw(st.lists(st.booleans(), min_size=len(scheme.names), max_size=len(scheme.names)))
    codes, values, union = scheme.codes
    painting = [code for code, is_active in zip(codes, active, strict=True) if is_active]
    value = values[sum(painting) if union else max(painting, default=0)]
    written = scheme.written
    assert {n for n, each in enumerate(written.values) if value in each} == kept(scheme, active)


@given(any_regions(), st.data())
def test_masks_of_regions_become_the_same_map_in_whatever_order_they_are_painted(
    scheme: LabelScheme, data: st.DataObject
) -> None:
    written = scheme.written
    truth = np.array(sorted(written.known_values), dtype=np.int64)
    order = data.draw(st.permutations(range(len(scheme.names))))
    result = np.zeros_like(truth)
    for n in order:
        mask = written.mask(truth, scheme.names[n])
        result[mask] = written.painting(n)[result[mask]]
    for name in scheme.names:
        assert (written.mask(result, name) == written.mask(truth, name)).all()


@given(st.permutations(["WT", "TC", "ET"]), st.data())
def test_the_order_of_nested_regions_does_not_change_what_they_mean(order: list[str], data: st.DataObject) -> None:
    scheme = LabelScheme.from_mapping({name: BRATS_2013[name] for name in order})
    active = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))
    codes, values, union = scheme.codes
    value = values[max((c for c, a in zip(codes, active, strict=True) if a), default=0)]
    named = dict(zip(order, active, strict=True))
    assert not union and value == (4 if named["ET"] else 1 if named["TC"] else 2 if named["WT"] else 0)


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
