"""Axes along which all images point the same way are not mirrored, unless one asks for it; left and right may be."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.config import RunConfig
from medseg.labels import LabelScheme
from medseg.preparation.direction import directed_axes
from medseg.preparation.fingerprint import CaseFingerprint, Fingerprint, fingerprint_case
from medseg.preparation.planning import make_plan
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"lesion": 1})
TURNED = {"RAS": np.eye(4), "LPS": np.diag([-1.0, -1.0, 1.0, 1.0])}


def head(number: int, orientation: str = "RAS", along: tuple[int, ...] = (1,)) -> CaseFingerprint:
    """An image that grows brighter along some of the patient's axes, with noise and a lesion anywhere."""
    rng = np.random.default_rng(number)
    array = rng.normal(size=(24, 24, 24)).astype(np.float32)
    for axis in along:
        array += np.linspace(0, 6, 24).reshape([-1 if n == axis else 1 for n in range(3)])
    labels = np.zeros(array.shape, np.uint8)
    i, j, k = rng.integers(2, 20, 3)
    labels[i : i + 3, j : j + 3, k : k + 3] = 1
    if orientation == "LPS":
        array, labels = array[::-1, ::-1], labels[::-1, ::-1]
    affine = TURNED[orientation]
    image, truth = Volume(array[None], affine, channels=1), Volume(labels, affine)
    return fingerprint_case(f"case {number}", "", image, truth, SCHEME)


def test_an_axis_along_which_all_images_grow_brighter_has_one_direction() -> None:
    cases = [head(n) for n in range(10)]
    assert list(directed_axes(cases, 3, "RAS")) == [1]
    assert "10 of 10" in directed_axes(cases, 3, "RAS")[1] and "front-back" in directed_axes(cases, 3, "RAS")[1]


def test_the_direction_is_the_patients_however_the_files_lie() -> None:
    assert list(directed_axes([head(n, ("RAS", "LPS")[n % 2]) for n in range(10)], 3, "RAS")) == [1]


@pytest.mark.parametrize(("orientation", "dims", "axes"), [("RAS", 3, [1, 2]), ("SAR", 3, [0, 1]), ("RSA", 2, [1])])
def test_axes_are_those_of_the_network(orientation, dims, axes) -> None:
    assert sorted(directed_axes([head(n, along=(1, 2)) for n in range(9)], dims, orientation)) == axes


def test_left_and_right_images_that_point_either_way_and_few_cases_have_no_direction() -> None:
    assert directed_axes([head(n, along=(0,)) for n in range(10)], 3, "RAS") == {}
    assert directed_axes([head(n, along=()) for n in range(10)], 3, "RAS") == {}
    assert directed_axes([head(n) for n in range(7)], 3, "RAS") == {}


def plan_of(cases: list[CaseFingerprint], **augmentation):
    config = RunConfig(data={"root": "x"}, augmentation=augmentation)
    return make_plan(Fingerprint(tuple(cases), ("MR",)), config, SCHEME, 8.0, False)


def test_the_plan_says_why_an_axis_is_not_mirrored_and_what_is_asked_for_is_mirrored() -> None:
    cases = [head(n) for n in range(10)]
    assert [each.axis for each in plan_of(cases).unmirrored] == [1]
    assert "front-back" in plan_of(cases).unmirrored[0].reason
    assert plan_of(cases, mirror=[0, 1]).unmirrored == ()
