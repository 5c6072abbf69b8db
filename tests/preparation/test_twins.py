"""Twins are measured: what lies on both sides and looks alike is not mirrored, whatever it is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from body_phantoms import ORGANS, body

from medseg.config import AugmentationConfig, RunConfig
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.preparation import load_plan, prepare, save_plan
from medseg.preparation.fingerprint import CaseFingerprint, Fingerprint, fingerprint_case
from medseg.preparation.label_places import joined_place
from medseg.preparation.mirroring import findings_on_sides, plan_axes
from medseg.preparation.planning import make_plan
from medseg.preparation.twins import Twins, find_twins
from medseg.training.data import mirror_axes
from medseg.volume import Volume

VALUES = {name: value for value, name in enumerate(ORGANS, start=1)}
# Names that tell nothing.
EVERY_ORGAN = LabelScheme.from_mapping({f"class {value}": value for value in VALUES.values()})
ORIENTATIONS = ("RAS", "LPS", "SAR", "ASL", "LAS", "PIR", "IRP", "RPI")
PAIRED = [(VALUES[f"left {organ}"] - 1, VALUES[f"right {organ}"] - 1) for organ in ("lung", "kidney", "femur")]


def only(*organs: str) -> LabelScheme:
    return LabelScheme.from_mapping({f"class {VALUES[name]}": VALUES[name] for name in organs})


def case_of(number: int, mirrored: bool = False) -> CaseFingerprint:
    image, labels = body(number, VALUES, ORIENTATIONS[number % 8], mirrored)
    return fingerprint_case(f"case {number}", "", image, labels, EVERY_ORGAN)


@pytest.fixture(scope="module")
def cases() -> list[CaseFingerprint]:
    return [case_of(n) for n in range(10)]


def plan_of(cases: list[CaseFingerprint], scheme: LabelScheme, **config):
    return make_plan(Fingerprint(tuple(cases), ("CT",)), RunConfig(data={"root": "x"}, **config), scheme, 8.0, False)


def test_organs_of_both_sides_are_twins_and_no_others(cases) -> None:
    assert [(t.first, t.second, t.cases, t.swapped) for t in find_twins(cases, EVERY_ORGAN)] == [
        (*pair, 10, ()) for pair in PAIRED
    ]


@pytest.mark.parametrize("organs", [("liver",), ("liver", "spleen"), ("liver", "heart"), ("heart",), ("left lung",)])
def test_a_liver_a_heart_and_one_lung_alone_are_no_twins(cases, organs) -> None:
    scheme = only(*organs)
    assert find_twins(cases, scheme) == ()
    # These bodies point the same way along the other axes, which concerns no twins.
    everywhere = {"augmentation": {"mirror": [0, 1, 2]}}
    plan = plan_of(cases, scheme, **everywhere)
    assert plan.unmirrored == () and mirror_axes(AugmentationConfig(), plan, scheme) == (0, 1, 2)


def test_a_new_plan_does_not_mirror_twins_left_to_right_and_says_why(cases) -> None:
    scheme = only("right kidney", "left kidney", "liver")
    plan = plan_of(cases, scheme, augmentation={"mirror": [0, 1, 2]})
    assert [each.axis for each in plan.unmirrored] == [0]
    assert "class 7 and class 6 lie on opposite sides of the body" in plan.unmirrored[0].reason
    assert mirror_axes(AugmentationConfig(), plan, scheme) == (1, 2)
    assert mirror_axes(AugmentationConfig(mirror=(0, 1)), plan, scheme) == (1,)
    assert findings_on_sides(plan, scheme, find_twins(cases, scheme)) == []


def test_a_2d_net_on_slices_that_do_not_show_both_sides_is_mirrored_along_both_axes(cases) -> None:
    scheme = only("right kidney", "left kidney")
    thick_sagittal = [replace(c, spacing_mm=(30.0, 1.0, 1.0), orientation="RAS") for c in cases]
    plan = plan_of(thick_sagittal, scheme, net={"dims": 2}, augmentation={"mirror": [0, 1]})
    assert plan.orientation == "ASR" and plan.unmirrored == () and plan_axes(plan, scheme) == (0, 1)
    thick_axial = [replace(c, spacing_mm=(1.0, 1.0, 8.0), orientation="RAS") for c in cases]
    axial = plan_of(thick_axial, scheme, net={"dims": 2}, augmentation={"mirror": [0, 1]})
    assert axial.orientation == "RAS" and plan_axes(axial, scheme) == (1,)


def test_seven_cases_are_too_few_to_tell(cases) -> None:
    assert find_twins(cases[:7], EVERY_ORGAN) == () and len(find_twins(cases[:8], EVERY_ORGAN)) == 3


def test_a_single_case_with_swapped_sides_is_named(cases) -> None:
    mixed = [*cases[:9], case_of(9, mirrored=True)]
    twins = find_twins(mixed, EVERY_ORGAN)
    assert [(t.first, t.second, t.swapped) for t in twins] == [(*pair, ("case 9",)) for pair in PAIRED]
    findings = findings_on_sides(plan_of(mixed, EVERY_ORGAN), EVERY_ORGAN, twins)
    assert {f.kind for f in findings} == {"swapped_sides"} and findings[0].files == ("case 9",)
    assert "9 of 10 cases, but to the right in case 9" in findings[0].message


def test_where_sides_are_at_random_there_are_no_twins(cases) -> None:
    mixed = [*cases[:5], *(case_of(n, mirrored=True) for n in range(5, 10))]
    assert find_twins(mixed, EVERY_ORGAN) == ()


def test_a_region_of_both_sides_is_one_label_and_has_no_twin(cases) -> None:
    lungs = [VALUES["left lung"], VALUES["right lung"]]
    both = LabelScheme.from_mapping({"lungs": lungs, "liver": [VALUES["liver"]]})
    assert find_twins(cases, both) == ()
    sides = LabelScheme.from_mapping({"lungs": lungs, "a": lungs[:1], "b": lungs[1:]})
    assert [(t.first, t.second) for t in find_twins(cases, sides)] == [(1, 2)]
    joined = joined_place([cases[0].places[v] for v in lungs])
    assert joined.volume == pytest.approx(sum(cases[0].places[v].volume for v in lungs))
    assert abs(joined.centre[0] - cases[0].middle_mm) < 15 and joined.covariance[0] > 70**2
    assert joined_place([cases[0].places[lungs[0]]] * 2).levels == cases[0].places[lungs[0]].levels


def test_twins_differ_neither_in_volume_nor_grey_level_nor_height(cases) -> None:
    left, right = VALUES["left kidney"], VALUES["right kidney"]
    scheme = only("left kidney", "right kidney")

    def changed(**changes) -> list[CaseFingerprint]:
        return [replace(c, places={**c.places, left: replace(c.places[left], **changes)}) for c in cases]

    assert len(find_twins(changed(), scheme)) == 1
    assert find_twins(changed(volume=3 * cases[0].places[right].volume), scheme) == ()
    assert find_twins(changed(levels=(tuple(range(200, 300, 10)),)), scheme) == ()
    x, y, z = cases[0].places[left].centre
    assert find_twins(changed(centre=(x, y, z + 150)), scheme) == ()


def test_photographs_have_twins_along_x(tmp_path: Path) -> None:
    scheme = LabelScheme.from_mapping({"a": 1, "b": 2, "c": 3})
    found = []
    for n in range(8):
        rng = np.random.default_rng(n)
        image, labels = rng.normal(100, 5, (1, 60, 50)), np.zeros((60, 50), np.uint8)
        x, y = (int(v) for v in rng.integers(-3, 4, 2))
        for value, start in ((1, 8), (2, 40)):
            labels[start + x : start + x + 12, 15 + y : 35 + y] = value
        labels[26 + x : 34 + x, 36:44] = 3
        image[0][labels == 3] += 60
        image[0][(labels == 1) | (labels == 2)] -= 60
        seen = Volume(image, np.eye(4), channels=1, spacing_known=False)
        found.append(fingerprint_case(str(n), "", seen, Volume(labels, np.eye(4), spacing_known=False), scheme))
    assert find_twins(found, scheme) == (Twins(0, 1, 8),)
    plan = plan_of(found, scheme, augmentation={"mirror": [0, 1]})
    assert plan.orientation is None and [each.axis for each in plan.unmirrored] == [0]


@pytest.fixture
def kidneys(tmp_path: Path) -> RunConfig:
    """Eight cases on disk, labels a and b, of which one has them swapped."""
    for n in range(8):
        pair = {"right kidney": 1, "left kidney": 2}
        image, labels = body(n, pair, ORIENTATIONS[n], mirrored=n == 3)
        for folder, array in (("images", image.array[0].astype(np.int16)), ("labels", labels.array)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, image.affine), tmp_path / "data" / folder / f"c{n}.nii.gz")
    return RunConfig(data={"root": tmp_path / "data", "labels": {"a": 1, "b": 2}}, output=tmp_path / "run")


def test_preparation_says_which_axis_is_not_mirrored_and_the_plan_can_be_edited(kidneys: RunConfig) -> None:
    made = prepare(kidneys, workers=1)
    assert [(f.kind, f.files) for f in made.findings] == [("swapped_sides", ("c3",))]
    assert "axis 0 is not mirrored: sides as measured: b and a lie on opposite sides" in made.text()
    path = made.folder / "plan.yaml"
    assert "unmirrored" in path.read_text() and load_plan(path) == made.plan
    again = prepare(kidneys, workers=1)
    assert (again.plan, again.findings, again.fingerprint) == (made.plan, made.findings, made.fingerprint)
    save_plan(made.plan.model_copy(update={"unmirrored": ()}), path)
    edited = prepare(kidneys, workers=1)
    assert mirror_axes(AugmentationConfig(), edited.plan, edited.dataset.labels) == (0, 1, 2)
    assert [f.kind for f in edited.findings] == ["swapped_sides", "sides_mirrored"]


def test_plans_without_the_list_mirror_what_version_1_mirrored(cases) -> None:
    plan = plan_of(cases, only("liver")).model_copy(update={"unmirrored": None})
    for names, axes in (
        (("left_lung", "right_lung"), (1, 2)),
        (("LeftLung", "RightLung"), (0, 1, 2)),
        (("left_lung", "liver"), (0, 1, 2)),
    ):
        scheme = LabelScheme.from_mapping({name: n for n, name in enumerate(names, start=1)})
        assert mirror_axes(AugmentationConfig(), plan, scheme) == axes
        kinds = [f.kind for f in findings_on_sides(plan, scheme, ())]
        assert kinds == (["sides_mirrored"] if 0 in axes else [])


def test_an_axis_that_the_net_does_not_have_is_refused(cases, tmp_path: Path) -> None:
    plan = plan_of(cases, only("liver"), net={"dims": 2})
    path = tmp_path / "plan.yaml"
    save_plan(plan, path)
    path.write_text(path.read_text().replace("unmirrored: []", "unmirrored: [{axis: 2, reason: mine}]"))
    with pytest.raises(ConfigError, match="unmirrored names an axis that a 2D net does not have"):
        load_plan(path)
