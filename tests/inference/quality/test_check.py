"""Each kind of difference from the training cases as a sentence, on features made by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from inference_bundles import make_info, make_plan

from medseg.inference.quality import check_case, needs_review
from medseg.inference.quality.check import findings_of
from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures, Feature, measure_case
from medseg.preparation.plan import ChannelPlan
from medseg.preparation.training_range import KINDS, learn_range
from medseg.volume import Finding, Metadata, Volume

SCHEME = LabelScheme.from_mapping({"liver": 1, "tumour": 2})
IMAGE = Volume(np.zeros((4, 4, 4)), np.eye(4), metadata=Metadata(modality="CT"))
# Coarse pictures: eight block means are enough to be alike or not.
CHEST = (1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0)
# Of each kind: six training values, one that is like them, one that is not.
EXAMPLES: dict[str, tuple[tuple[float, ...], float, float]] = {
    "spacing": ((1.0, 1.0, 1.1, 1.0, 0.9, 1.0), 1.05, 3.0),
    "extent": ((300, 310, 290, 300, 305, 295), 315, 150),
    "level": ((40, 42, 38, 41, 39, 40), 41, 1064),
    "shape": ((0.0, 0.02, -0.02, 0.01, 0.0, 0.0), 0.05, 0.8),
    "tails": ((2.0, 2.1, 1.9, 2.0, 2.0, 2.0), 2.2, 8.0),
    "grain": ((0.1, 0.11, 0.09, 0.1, 0.1, 0.1), 0.12, 0.6),
    "empty": ((0.5, 0.52, 0.48, 0.5, 0.5, 0.5), 0.53, 0.95),
    "tissue": ((0.1, 0.11, 0.09, 0.1, 0.1, 0.1), 0.12, 0.6),
    "correlation": ((0.3, 0.32, 0.28, 0.3, 0.3, 0.3), 0.35, 0.99),
    "between": ((0.08, 0.1, 0.09, 0.07, 0.1, 0.08), 0.11, -0.09),
    "size": ((1500, 1600, 1400, 1500, 1500, 1500), 1700, 300),
    "area": ((1500, 1600, 1400, 1500, 1500, 1500), 1700, 300),
    "cut": ((0.0, 0.0, 0.01, 0.0, 0.0, 0.0), 0.02, 0.7),
    "place": ((0.4, 0.42, 0.38, 0.4, 0.4, 0.4), 0.43, 0.8),
    "length": ((150, 160, 140, 150, 150, 150), 165, 50),
    "largest": ((1.0, 1.0, 0.99, 1.0, 1.0, 1.0), 0.98, 0.5),
    "label_level": ((100, 105, 95, 100, 100, 100), 103, 200),
    "contrast": ((0.5, 0.52, 0.48, 0.5, 0.5, 0.5), 0.55, -0.4),
}
OF_A_LABEL = {"size", "area", "cut", "place", "length", "largest", "label_level", "contrast"}


def case(kind: str = "", value: float = 0.0, pictures=(CHEST,), present=(True, True)) -> CaseFeatures:
    feature = Feature(kind, f"the {kind}", value, label=0 if kind in OF_A_LABEL else -1)
    return CaseFeatures((feature,) if kind else (), tuple(pictures), present)


def kinds(found: tuple[Finding, ...]) -> list[str]:
    return [finding.kind for finding in found]


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_a_feature_far_from_the_training_cases_is_one_finding_of_its_kind(kind) -> None:
    training, alike, different = EXAMPLES[kind]
    known = learn_range([case(kind, value) for value in training])
    assert findings_of(case(kind, alike), known, SCHEME, IMAGE) == ()
    (finding,) = findings_of(case(kind, different), known, SCHEME, IMAGE)
    assert finding.kind == f"review_{kind}" and needs_review([finding])
    where = " of liver" if kind in OF_A_LABEL else ""
    assert finding.message.startswith(f"the {kind}{where} is {different:.4g}{KINDS[kind].unit}, trained on ")
    assert finding.message.endswith(KINDS[kind].meaning)


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) | {"picture"} == set(KINDS)


def test_only_the_end_of_the_range_that_matters_is_looked_at() -> None:
    """A mask in one piece where training knew several, an organ away from the border: nobody has to look."""
    pieces = learn_range([case("largest", value) for value in (0.5, 0.55, 0.6, 0.5, 0.52, 0.58)])
    assert findings_of(case("largest", 1.0), pieces, SCHEME, IMAGE) == ()
    border = learn_range([case("cut", value) for value in (0.5, 0.55, 0.6, 0.5, 0.52, 0.58)])
    assert findings_of(case("cut", 0.0), border, SCHEME, IMAGE) == ()


def test_another_coarse_picture_is_another_body_part() -> None:
    known = learn_range([case(pictures=[np.add(CHEST, 0.01 * n * np.arange(8))]) for n in range(6)])
    assert findings_of(case(), known, SCHEME, IMAGE) == ()
    (finding,) = findings_of(case(pictures=[tuple(reversed(range(8)))]), known, SCHEME, IMAGE)
    assert finding.kind == "review_picture" and "another body part" in finding.message


def test_one_phase_twice_shows_although_both_phases_are_nearly_alike() -> None:
    """0.9990 and 0.9996 look alike, but less than half of the difference between the channels is left."""
    known = learn_range([case("correlation", value) for value in (0.9987, 0.9990, 0.9989, 0.9991, 0.9988) * 3])
    assert findings_of(case("correlation", 0.9990), known, SCHEME, IMAGE) == ()
    assert kinds(findings_of(case("correlation", 0.99958), known, SCHEME, IMAGE)) == ["review_correlation"]


def test_another_modality() -> None:
    known = learn_range([case()] * 3, ["CT", "CT", ""])
    assert findings_of(case(), known, SCHEME, IMAGE) == ()
    (finding,) = findings_of(case(), known, SCHEME, replace(IMAGE, metadata=Metadata(modality="MR")))
    assert finding == Finding("review_modality", "modality is MR, trained on CT")
    # A NIfTI file has no modality; that is no reason.
    assert findings_of(case(), known, SCHEME, replace(IMAGE, metadata=Metadata())) == ()


def test_a_physical_scale_where_training_had_none_and_the_reverse() -> None:
    without = replace(IMAGE, spacing_known=False)
    assert kinds(findings_of(case(), learn_range([case()] * 3), SCHEME, without)) == ["review_scale"]
    assert kinds(findings_of(case(), learn_range([case()] * 3, spacing_known=False), SCHEME, IMAGE)) == ["review_scale"]


def test_without_a_scale_lengths_are_in_pixels() -> None:
    training, _, different = EXAMPLES["length"]
    known = learn_range([case("length", value) for value in training], spacing_known=False)
    (finding,) = findings_of(case("length", different), known, SCHEME, replace(IMAGE, spacing_known=False))
    assert "is 50 pixels, trained on 140 to 160 pixels" in finding.message


def test_a_label_that_every_training_case_holds_is_missed() -> None:
    known = learn_range([case()] * 5)
    (finding,) = findings_of(case(present=(True, False)), known, SCHEME, IMAGE)
    assert finding == Finding("review_absent", "tumour was not found; each of the 5 training cases holds it")
    # Four cases are too few to expect it, and what some lack may be lacking.
    assert findings_of(case(present=(True, False)), learn_range([case()] * 4), SCHEME, IMAGE) == ()
    some = learn_range([case()] * 5 + [case(present=(True, False))])
    assert findings_of(case(present=(True, False)), some, SCHEME, IMAGE) == ()


def test_swapped_channels_are_said_with_the_order_that_fits() -> None:
    def two(first: float, second: float) -> CaseFeatures:
        features = [
            Feature("shape", what, value, channel=channel)
            for what in ("one", "two", "three")
            for channel, value in enumerate((first, second))
        ]
        return CaseFeatures(tuple(features), (CHEST, CHEST), (True, True))

    known = learn_range([two(0.1 + 0.01 * n, 0.4 - 0.01 * n) for n in range(6)])
    assert findings_of(two(0.12, 0.38), known, SCHEME, IMAGE) == ()
    found = findings_of(two(0.38, 0.12), known, SCHEME, IMAGE)
    (order,) = [finding for finding in found if finding.kind == "review_channel_order"]
    assert order.message == "the channels look swapped: they fit training in the order 2, 1"


def test_several_features_of_a_kind_are_one_finding_that_counts_them() -> None:
    def levels(*values: float) -> CaseFeatures:
        return CaseFeatures(tuple(Feature("level", f"level {n}", v) for n, v in enumerate(values)), (CHEST,), (True,))

    known = learn_range([levels(10 + n, 20 + n, 30 + n) for n in range(5)])
    (finding,) = findings_of(levels(12, 2000, 400), known, LabelScheme.from_mapping({"liver": 1}), IMAGE)
    assert re.match(r"level 1 is 2000, trained on 20 to 24: .* \(1 more of this kind\)", finding.message)


def test_a_case_and_its_mask_are_measured_and_held_against_the_bundle() -> None:
    rng = np.random.default_rng(0)
    info = make_info(make_plan(), labels={"box": 1})

    def box(size: int) -> tuple[Volume, Volume]:
        mask = np.zeros((16, 16, 16), np.uint8)
        mask[5 : 5 + size, 5:10, 5:10] = 1
        image = Volume(mask * 100.0 + rng.normal(0, 2, mask.shape), np.eye(4))
        return image, image.with_array(mask)

    known = learn_range([measure_case(*box(5), info.scheme) for _ in range(6)])
    info = info.model_copy(update={"reference_ranges": known})
    assert check_case(*box(5), info) == ()
    image, mask = box(5)
    assert kinds(check_case(image, mask.with_array(np.zeros_like(mask.array)), info)) == ["review_absent"]
    assert "review_level" in kinds(check_case(image.with_array(image.array + 500), mask, info))
    # Bundles of older versions hold no fingerprint: nothing can be said.
    assert check_case(*box(1), make_info(make_plan(), labels={"box": 1})) == ()


def bright_box(seed: int, factor: float = 1.0, offset: float = 0.0) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[5:10, 5:10, 5:10] = 1
    image = Volume(factor * (mask * 100.0 + rng.normal(200, 20, mask.shape)) + offset, np.eye(4))
    return image, image.with_array(mask)


OTHER_UNITS = [(400.0, 0.0), (0.01, 0.0), (1.0, 900.0), (1.0, -1024.0)]


@pytest.mark.parametrize(("factor", "offset"), OTHER_UNITS)
@pytest.mark.parametrize("as_stored", [True, False], ids=["range of an older version", "range of today"])
def test_where_each_case_is_zscored_other_units_are_no_reason_to_look(factor, offset, as_stored) -> None:
    """The network sees neither scale nor offset. Ranges of older versions hold grey levels as stored: left out."""
    info = make_info(make_plan(normalization=(ChannelPlan(kind="zscore"),)), labels={"box": 1})
    cases = [measure_case(*bright_box(seed), info.scheme) for seed in range(6)]
    known = learn_range(cases if as_stored else [case.normalized(info.plan.zscored) for case in cases])
    info = info.model_copy(update={"reference_ranges": known})
    assert check_case(*bright_box(10, factor, offset), info) == ()
    # What the network does see is still looked at.
    image, mask = bright_box(10, factor, offset)
    inverted = image.with_array(image.array.max() - image.array)
    assert "review_contrast" in kinds(check_case(inverted, mask, info))


@pytest.mark.parametrize("kind", ["clip", "window"])
@pytest.mark.parametrize(("factor", "offset"), OTHER_UNITS)
def test_where_all_cases_share_one_scale_other_units_are(kind, factor, offset) -> None:
    info = make_info(
        make_plan(normalization=(ChannelPlan(kind=kind, low=-500, high=500, mean=0, std=100),)), labels={"box": 1}
    )
    known = learn_range([measure_case(*bright_box(seed), info.scheme) for seed in range(6)])
    info = info.model_copy(update={"reference_ranges": known})
    assert check_case(*bright_box(10), info) == ()
    assert {"review_level", "review_label_level"} <= set(kinds(check_case(*bright_box(10, factor, offset), info)))


def test_only_findings_of_quality_ask_for_review() -> None:
    assert not needs_review([Finding("padding", "padding of 10 voxels")]) and not needs_review([])
    assert needs_review([Finding("padding", "..."), Finding("review_size", "...")])
