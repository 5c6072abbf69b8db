"""Cases without some labels: checks of their label maps, and how often each label occurs."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import DatasetError
from medseg.labels import LabelScheme
from medseg.preparation.annotation import annotated_features, channel_frequencies, check_annotation
from medseg.sample_labels import SampleLabels


def without(data, name: str, value: int) -> None:
    labels = np.zeros((20, 18, 16), np.uint8)
    if value != 1:
        labels[2:6, 4:10, 4:10] = 1
    if value != 2:
        labels[12:17, 4:10, 4:10] = 2
    image = np.random.default_rng(1).normal(100, 20, labels.shape).astype(np.float32)
    data.write(name, image, labels, np.eye(4))


def test_a_prepared_case_knows_its_annotation_and_its_codes(data) -> None:
    without(data, "case_1", 2)
    made = data.prepare(data={"annotated": {"case_1": ["left_box"]}})
    whole, partial = made.open("case_0"), made.open("case_1")
    assert whole.annotated is None
    assert whole.codes is None
    assert partial.annotated == ("left_box",)
    assert isinstance(made.sample_labels, SampleLabels)
    assert np.array_equal(partial.codes, made.sample_labels.marking(("left_box",)))
    assert [f.message for f in made.findings if f.kind == "partial_labels"] == [
        "1 of 5 cases have only some labels annotated (left_box in 5, right_box in 4); the others are neither trained "
        "nor scored there"
    ]


def test_a_label_that_should_not_be_there_is_refused(data) -> None:
    with pytest.raises(DatasetError, match=r"label 'right_box' occurs in cases case_1, case_2, where data\.ann"):
        data.prepare(data={"annotated": {"case_[12]": ["left_box"]}})


def test_a_label_that_no_training_case_has_is_refused(data) -> None:
    for name in ("case_0", "case_1", "case_2", "case_3"):
        without(data, name, 2)
    annotated = {f"case_{n}": ["left_box"] for n in range(4)}
    with pytest.raises(DatasetError, match="label 'right_box' is annotated in none of the training cases"):
        data.prepare(data={"annotated": annotated, "split": {"validation": ["case_4"]}})


def test_a_value_of_a_region_with_annotation_may_belong_to_one_without(data) -> None:
    without(data, "case_1", 1)
    labels = {"both": [1, 2], "right_box": [2]}
    made = data.prepare(data={"labels": labels, "annotated": {"case_1": ["right_box"], "case_2": ["both"]}})
    assert made.open("case_1").annotated == ("right_box",)
    apart = {"left_box": [1], "right_box": [2]}
    with pytest.raises(DatasetError, match="label 'left_box' occurs in case case_2"):
        data.prepare(data={"labels": apart, "annotated": {"case_2": ["right_box"]}})


def test_frequencies_count_a_label_where_it_is_annotated(data) -> None:
    without(data, "case_1", 2)
    made = data.prepare(data={"annotated": {"case_1": ["left_box"]}})
    cases, prints, scheme = made.dataset.cases, made.fingerprint.cases, made.dataset.labels
    voxels = 20 * 18 * 16
    left, right = 4 * 36 / voxels, 5 * 36 / voxels
    assert channel_frequencies(cases, prints, scheme) == pytest.approx([1 - left - right, left, right])
    regions = LabelScheme.from_mapping({"left_box": [1], "right_box": [2]})
    assert channel_frequencies(cases, prints, regions) == pytest.approx([left, right])


def test_a_label_is_always_present_where_it_is_annotated(data) -> None:
    features = data.prepare().fingerprint.cases[0].features
    kept = annotated_features(features, ("left_box",), ("left_box", "right_box"))
    assert kept.present == (True, True)
    assert {each.label for each in kept.features} == {-1, 0}
    assert annotated_features(features, None, ("left_box", "right_box")) is features


def test_no_annotation_costs_nothing() -> None:
    check_annotation((), (), LabelScheme.from_mapping({"a": 1}), [()])
