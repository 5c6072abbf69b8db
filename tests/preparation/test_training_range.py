"""The range of training cases, and which new cases fall out of it."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures, Feature, measure_case
from medseg.preparation.training_range import TrainingRange, learn_range
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"ball": 1})


def ball(rng: np.random.Generator, shape=(20, 24, 16), spacing=(1.0, 1.0, 2.0), channels=1) -> tuple[Volume, Volume]:
    """A bright ball near the middle of a noisy image; a second channel shows it dark."""
    grid = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    centre = [n * s / 2 + rng.uniform(-1, 1) for n, s in zip(shape, spacing, strict=True)]
    inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < rng.uniform(5, 6) ** 2
    bright = 100 + 50 * inside + rng.normal(0, 4, shape)
    dark = 300 - 80 * inside + rng.normal(0, 9, shape)
    image = Volume(np.stack([bright, dark][:channels]), np.diag([*spacing, 1.0]), channels=channels)
    return image, image.with_array(inside.astype(np.uint8))


def features(pairs) -> list[CaseFeatures]:
    return [measure_case(image, labels, SCHEME) for image, labels in pairs]


def value(case: CaseFeatures, what: str, label: int = -1) -> float:
    return next(f.value for f in case.features if f.what == what and f.label == label)


def compared(known: TrainingRange, case: CaseFeatures) -> set[str]:
    return {s.span.kind for s in known.compare(case) if s.distance > 1}


def test_features_of_a_cube_by_hand() -> None:
    array = np.zeros((10, 8, 4))
    labels = np.zeros((10, 8, 4), np.uint8)
    labels[:2, 2:6, 1:3] = 1
    image = Volume(array + 7.0 * labels, np.diag([2.0, 1.0, 5.0, 1.0]))
    case = measure_case(image, image.with_array(labels), SCHEME)
    assert value(case, "field of view along the left-right axis") == 20
    assert value(case, "volume", 0) == pytest.approx(16 * 10 / 1000)
    assert value(case, "place along the left-right axis", 0) == pytest.approx(0.1)
    assert value(case, "length along the body axis", 0) == 10
    # 4 x 2 of its voxels lie on the first face; 16 voxels have a surface of about 16^(2/3) faces.
    assert value(case, "share of its surface on the border of the image", 0) == pytest.approx(8 / 16 ** (2 / 3))


def test_features_follow_the_patient_not_the_order_of_the_axes() -> None:
    from medseg.geometry import reorient

    image, labels = ball(np.random.default_rng(0))
    turned = measure_case(reorient(image, "SLP"), reorient(labels, "SLP"), SCHEME)
    straight = measure_case(image, labels, SCHEME)
    assert [f.key for f in turned.features] == [f.key for f in straight.features]
    np.testing.assert_allclose([f.value for f in turned.features], [f.value for f in straight.features], rtol=1e-5)
    np.testing.assert_allclose(turned.pictures, straight.pictures, atol=2e-3)


def test_new_cases_like_the_training_cases_pass() -> None:
    rng = np.random.default_rng(1)
    known = learn_range(features(ball(rng) for _ in range(10)))
    flagged = [compared(known, case) for case in features(ball(rng) for _ in range(40))]
    assert sum(bool(kinds) for kinds in flagged) <= 1, flagged


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda i, m: (Volume(i.array, i.affine @ np.diag([2, 2, 2, 1.0]), 1), m), "spacing"),
        (lambda i, m: (Volume(i.array[:, :, :, :4], i.affine, 1), Volume(m.array[..., :4], m.affine)), "extent"),
        (lambda i, m: (Volume(i.array[:, 8:], i.affine, 1), Volume(m.array[8:], m.affine)), "cut"),
        (lambda i, m: (i.with_array(i.array * 3, channels=1), m), "level"),
        (lambda i, m: (i.with_array(i.array[:, ::-1, ::-1, ::-1] * -1, channels=1), m), "contrast"),
    ],
)
def test_a_case_that_differs_is_named(change, kind) -> None:
    rng = np.random.default_rng(2)
    known = learn_range(features(ball(rng) for _ in range(10)))
    image, labels = change(*ball(rng))
    labels = Volume(labels.array, image.affine)
    assert kind in compared(known, measure_case(image, labels, SCHEME))


def test_swapped_channels_show_and_right_ones_do_not() -> None:
    rng = np.random.default_rng(3)
    known = learn_range(features(ball(rng, channels=2) for _ in range(6)))
    for _ in range(10):
        image, labels = ball(rng, channels=2)
        assert known.better_order(measure_case(image, labels, SCHEME)) is None
        swapped = image.with_array(image.array[::-1], channels=2)
        assert known.better_order(measure_case(swapped, labels, SCHEME)) == (1, 0)


def test_one_odd_training_case_does_not_open_the_gate() -> None:
    rng = np.random.default_rng(4)
    pairs = [ball(rng) for _ in range(12)]
    odd = pairs[0][0]
    pairs[0] = (odd.with_array(odd.array * 1000, channels=1), pairs[0][1])
    known = learn_range(features(pairs))
    assert known.widening == 1.0
    image, labels = ball(rng)
    assert "spacing" in compared(
        known, measure_case(Volume(image.array, image.affine @ np.diag([2, 2, 2, 1.0]), 1), labels, SCHEME)
    )


def test_a_single_training_case_still_knows_its_size() -> None:
    known = learn_range(features([ball(np.random.default_rng(5))]))
    image, labels = ball(np.random.default_rng(6))
    assert compared(known, measure_case(image, labels, SCHEME)) == set()
    half = measure_case(
        Volume(image.array[..., :8], image.affine, 1), Volume(labels.array[..., :8], image.affine), SCHEME
    )
    assert compared(known, half) == {"extent"}


def test_it_survives_json() -> None:
    known = learn_range(features(ball(np.random.default_rng(n)) for n in range(5)), ["MR"] * 5)
    assert TrainingRange.model_validate_json(known.model_dump_json()) == known


def test_raw_grey_levels_are_no_hounsfield_units() -> None:
    rng = np.random.default_rng(7)

    def ct(offset: float = 0.0) -> CaseFeatures:
        image, labels = ball(rng)
        hu = np.where(rng.random(image.array.shape) < 0.3, -1000.0, image.array) + offset
        return measure_case(image.with_array(hu, channels=1), labels, SCHEME)

    known = learn_range([ct() for _ in range(8)])
    assert compared(known, ct()) == set()
    assert {"level", "label_level"} <= compared(known, ct(offset=1024))


def test_a_feature_that_training_never_met_is_left_out() -> None:
    known = learn_range(features(ball(np.random.default_rng(n)) for n in range(4)))
    stranger = CaseFeatures((Feature("level", "something else", 1e9),), (), (True,))
    assert known.compare(stranger) == ()


def test_features_that_grey_levels_near_the_largest_float_make_infinite_are_left_out() -> None:
    usual = features(ball(np.random.default_rng(n)) for n in range(5))
    odd = [
        CaseFeatures(
            (*case.features, Feature("level", "odd", float("nan")), Feature("grain", "odder", float("inf"))), *rest
        )
        for case, rest in ((case, (case.pictures, case.present)) for case in usual)
    ]
    assert learn_range(odd) == learn_range(usual)
    with pytest.raises(ValueError, match="finite"):
        TrainingRange.model_validate({**learn_range(usual).model_dump(), "swap_gain": float("nan")})
