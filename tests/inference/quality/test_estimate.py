"""`--estimate-quality`: what the members of a model say, the regression on it, and what the command makes of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, threshold_weights
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.inference import load_model, save_bundle
from medseg.inference.calibration import VERSION, Calibration, calibration_inputs, fit_calibration
from medseg.inference.quality.alterations import noisy
from medseg.inference.quality.disagreement import disagreement
from medseg.inference.quality.estimate import calibration_inputs_of_case, estimate_quality
from medseg.inference.quality.perturbations import DAMAGES
from medseg.preparation.case_features import measure_case
from medseg.preparation.training_range import learn_range
from medseg.volume import Volume

# Predicted Dice = 1 / (1 + exp(10 (0.6 - expected Dice))).
EXPECTED = Calibration(version=VERSION, intercept=-6.0, weights=(10.0, *[0] * 7), cases=3, rows=20, error=0.1)

# As bundles hold it that were calibrated before it had a version.
EARLIER = Calibration(intercept=0.0, weights=(1.0, 0, 0, 0, 0), cases=3, rows=20, error=0.1)


def image_of(bright: float = 6.0, size: int = 6) -> Volume:
    """A block of `size`^3 voxels on 12^3 of nothing: logits of the threshold net are `value - 0.5`."""
    array = np.full((12, 12, 12), -6.0, np.float32)
    array[3 : 3 + size, 3 : 3 + size, 3 : 3 + size] = bright
    return Volume(array, np.eye(4))


def bundle(folder: Path, calibration: Calibration | None = EXPECTED) -> Path:
    info = make_info(make_plan(spacing_mm=None), "inference_nets:build_threshold", {"spot": 1})
    cases = []
    for size in (5, 6, 6, 6, 7):
        image = image_of(size=size)
        cases.append(measure_case(image, image.with_array((image.array > 0).astype(np.uint8)), info.scheme))
    info = info.model_copy(update={"reference_ranges": learn_range(cases), "calibration": calibration})
    return save_bundle(folder / "model", info, {0: threshold_weights(2, 0.5)})


def test_expected_dice_and_uncertainty_by_hand(tmp_path) -> None:
    model = load_model(bundle(tmp_path), "cpu")
    said = disagreement(model, image_of(bright=1.5))
    # p = sigmoid(1) in 216 voxels, sigmoid(-6.5) in the other 1512.
    inside, outside = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(6.5))
    expected = 2 * 216 * inside / (216 * inside + 1512 * outside + 216)
    assert said.expected == pytest.approx((expected,), abs=1e-5)
    # The net treats each voxel alone, so mirror images agree; image and two mirror axes make three members.
    assert said.agreement == (1.0,) and said.members == 3
    entropy = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
    assert said.uncertainty.array[5, 5, 5] == round(100 * entropy) == 84
    assert said.uncertainty.array.dtype == np.uint8 and said.uncertainty.same_geometry(image_of())


def test_progress_counts_the_windows_of_all_passes(tmp_path) -> None:
    calls: list[tuple[int, int]] = []
    disagreement(load_model(bundle(tmp_path), "cpu"), image_of(), progress=lambda *call: calls.append(call))
    done, totals = zip(*calls, strict=True)
    assert set(totals) == {6 * 8} and done[-1] == 6 * 8 and list(done) == sorted(done)  # 8 windows of 8^3 on 12^3


def test_members_that_contradict_each_other_agree_less(tmp_path) -> None:
    """A net that calls the first half along axis 0 left and the second right, mirrored along that axis."""
    info = make_info(make_plan(patch_size=(12, 12, 12)), "inference_nets:build_sides", {"front": 1, "back": 2})
    save_bundle(tmp_path / "sides", info, {0: {"scale": torch.ones(1)}})
    said = disagreement(load_model(tmp_path / "sides", "cpu"), image_of())
    # Two of the three members (the image, mirrored along axis 1) say the same, the third the opposite.
    assert said.agreement == pytest.approx((2 / 3, 2 / 3), abs=1e-6)
    assert said.expected[0] < 0.7 and said.uncertainty.array[5, 5, 5] > 90


def test_a_mask_that_small_alterations_change_is_not_stable(tmp_path) -> None:
    model = load_model(bundle(tmp_path), "cpu")
    sure, unsure = (disagreement(model, image_of(bright=bright)).stability[0] for bright in (6.0, 0.55))
    # Noise of a quarter of the standard deviation (1 here) turns a voxel at 0.05 above the threshold nearly half of the
    # time, never one at 5.5; the net sees no spacing.
    assert sure[0] == 1.0 and 0.6 < unsure[0] < 0.8 and sure[2] == unsure[2] == 1.0
    # A Gaussian of 0.7 voxels leaves 0.76 of the step half a voxel inside a face: of 6 against -6 corners (0.76^3) fall
    # below 0.5, edges do not; of 0.55 against -6 only the eight voxels in the middle stay above.
    assert sure[1] == 2 * 208 / (208 + 216) and unsure[1] == 2 * 8 / (8 + 216)


def test_noise_leaves_the_background_of_a_masked_image_alone() -> None:
    image = image_of()
    worse = noisy(image, 0.5, np.random.default_rng(0))
    changed = worse.array[0] != image.array
    assert np.array_equal(changed, image.array > 0)


def test_mirroring_follows_the_image_wherever_its_axes_lie(tmp_path) -> None:
    info = make_info(make_plan(patch_size=(12, 12, 12)), "inference_nets:build_sides", {"front": 1, "back": 2})
    save_bundle(tmp_path / "sides", info, {0: {"scale": torch.ones(1)}})
    model = load_model(tmp_path / "sides", "cpu")
    straight = disagreement(model, image_of(size=4))
    turned = medseg.geometry.reorient(image_of(size=4), "SLP")
    other = disagreement(model, turned)
    assert (other.agreement, other.expected) == (straight.agreement, pytest.approx(straight.expected))
    back = medseg.geometry.reorient(other.uncertainty, "RAS")
    assert np.array_equal(back.array, straight.uncertainty.array)


def test_a_case_far_from_training_and_an_absent_label(tmp_path) -> None:
    by_distance = EXPECTED.model_copy(update={"intercept": 3.0, "weights": (*[0] * 7, -20.0)})
    model = load_model(bundle(tmp_path, by_distance), "cpu")
    good, large = image_of(), image_of(size=9)
    assert estimate_quality(model, good, model.predict(good)).dice == (round(1 / (1 + np.exp(-3)), 4),)
    poor = estimate_quality(model, large, model.predict(large))
    assert poor.dice[0] is not None and poor.dice[0] < 0.7
    assert [f.kind for f in poor.findings] == ["review_quality"]
    assert poor.findings[0].message == f"predicted Dice of spot is {poor.dice[0]:.3f}, below 0.7: look at the mask"
    # Each training case holds the label, so an empty mask is a failed one.
    nothing = image_of(bright=-6.0)
    assert estimate_quality(model, nothing, model.predict(nothing)).dice == (0.0,)


def test_the_out_of_range_score_is_the_mean_over_the_kinds_of_features_of_their_largest_distances(tmp_path) -> None:
    model = load_model(bundle(tmp_path), "cpu")
    image = image_of(size=9)
    mask = model.predict(image)
    assert model.info.reference_ranges is not None
    worst: dict[str, float] = {}
    for each in model.info.reference_ranges.compare(measure_case(image, mask, model.scheme)):
        if each.feature.label == 0:
            worst[each.span.kind] = max(worst.get(each.span.kind, 0.0), each.distance)
    assert {"size", "length", "place", "cut"} <= set(worst) and min(worst.values()) < 1 < max(worst.values())
    (inputs,) = calibration_inputs_of_case(model.info, image, mask, disagreement(model, image))
    assert inputs is not None
    assert inputs[7] == pytest.approx(np.mean([np.log1p(min(d, 20)) / np.log(21) for d in worst.values()]))
    assert calibration_inputs(0.5, 1.0, [], [], [1e9, 0.0])[3:] == (0.0, 0.5)


def test_the_regression_finds_the_curve_it_was_given() -> None:
    rng = np.random.default_rng(0)
    inputs = np.array([calibration_inputs(e, a, [a, a, a], [d], [d]) for e, a, d in rng.uniform(0.3, 1, (200, 3))])
    dice = 1 / (1 + np.exp(1 - 4 * inputs[:, 2] + 2 * inputs[:, 6])) + rng.normal(0, 0.01, 200)
    fitted = fit_calibration(inputs, dice, np.arange(200) // 10)
    assert fitted is not None and (fitted.cases, fitted.rows, fitted.version) == (20, 200, VERSION)
    assert fitted.error < 0.03
    assert np.abs([fitted.predict(s) for s in inputs] - dice).max() < 0.06
    assert [fitted.predict((0.0, 0.0, far, *[0.0] * 5)) for far in (999.0, -999.0)] == [1.0, 0.0]


def test_few_cases_are_no_calibration() -> None:
    inputs, dice = np.random.default_rng(0).uniform(size=(19, 8)), np.linspace(0, 1, 19)
    assert fit_calibration(inputs, dice, range(19)) is None
    assert fit_calibration(np.vstack([inputs, inputs]), np.hstack([dice, dice]), [0, 1] * 19) is None
    assert fit_calibration(np.zeros((0, 8)), np.zeros(0), []) is None


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damage_leaves_image_and_labels_on_one_grid(name) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(100, 30, (2, 10, 12, 8)).astype(np.float32), np.diag([1.0, 1, 2, 1]), channels=2)
    labels = Volume(rng.integers(0, 3, image.shape).astype(np.uint8), image.affine)
    damaged, moved = DAMAGES[name](image, labels, np.random.default_rng(1))
    assert damaged.same_geometry(moved) and damaged.channels == 2 and np.isfinite(damaged.array).all()
    assert (
        damaged.shape != image.shape
        or not np.allclose(damaged.affine, image.affine)
        or (not np.array_equal(damaged.array, image.array))
    )
    # The same draw is the same damage.
    again, _ = DAMAGES[name](image, labels, np.random.default_rng(1))
    assert np.array_equal(again.array, damaged.array)


def test_a_crop_keeps_the_rest_where_it_was() -> None:
    image = Volume(np.arange(1000.0).reshape(10, 10, 10), np.eye(4))
    damaged, labels = DAMAGES["crop 0.35-0.6"](
        image, image.with_array(image.array.astype(int)), np.random.default_rng(3)
    )
    assert min(damaged.shape) in range(4, 8)
    place = (damaged.affine @ [0, 0, 0, 1])[:3].astype(int)
    assert damaged.array[0, 0, 0, 0] == labels.array[0, 0, 0] == image.array[tuple(place)]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    medseg.write(image_of(), folder / "sure.nii.gz")
    medseg.write(image_of(bright=0.6), folder / "unsure.nii.gz")
    return folder


def table_of(out: Path) -> dict[str, dict[str, str]]:
    return {row["case"]: row for row in csv.DictReader((out / "measurements.csv").read_text().splitlines())}


def predict(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments), "--device", "cpu", "--no-preview"])
    return result.exit_code, str(result.exception or "") + result.output


def test_the_command_writes_predicted_dice_and_uncertainty_and_asks_for_review(tmp_path, studies) -> None:
    model, out = bundle(tmp_path), tmp_path / "out"
    code, text = predict(model, studies, "-o", out, "--estimate-quality")
    assert code == 0, text
    table = table_of(out)
    # Half of the probability of the unsure one lies outside its mask: 2 p / (p + 1) with p = sigmoid(0.1) is expected.
    p = 1 / (1 + np.exp(-0.1))
    rest = 1512 / 216 / (1 + np.exp(6.5))
    predicted = 1 / (1 + np.exp(6 - 10 * 2 * p / (p + rest + 1)))
    assert float(table["unsure"]["predicted_dice"]) == pytest.approx(predicted, abs=1e-3)
    assert float(table["sure"]["predicted_dice"]) > 0.9 and table["sure"]["state"] == "done"
    assert table["unsure"]["state"] == "needs_review" and "unsure: needs review" in text
    rows = {row["case"]: row for row in map(json.loads, (out / "ledger.jsonl").read_text().splitlines())}
    assert any(
        each.startswith(f"predicted Dice of spot is {predicted:.3f}, below 0.7") for each in rows["unsure"]["findings"]
    )
    uncertainty = medseg.read(out / "uncertainty" / "unsure.nii.gz")
    assert uncertainty.same_geometry(image_of()) and uncertainty.array[5, 5, 5] == 100
    assert uncertainty.array[0, 0, 0] <= 2

    # The mask is the one without the estimate, to the byte.
    assert predict(model, studies, "-o", tmp_path / "plain")[0] == 0
    assert (tmp_path / "plain" / "sure.nii.gz").read_bytes() == (out / "sure.nii.gz").read_bytes()
    plain = table_of(tmp_path / "plain")
    assert plain["sure"]["predicted_dice"] == "" and not (tmp_path / "plain" / "uncertainty").exists()

    _, again = predict(model, studies, "-o", out, "--estimate-quality")
    assert "2 skipped" in again
    (out / "uncertainty" / "sure.nii.gz").unlink()
    _, mended = predict(model, studies, "-o", out, "--estimate-quality")
    assert "1 skipped" in mended and (out / "uncertainty" / "sure.nii.gz").exists()


@pytest.mark.parametrize("calibration", [None, EARLIER], ids=["none", "of other inputs"])
def test_a_model_without_calibration_says_how_to_get_one(tmp_path, studies, calibration) -> None:
    code, text = predict(bundle(tmp_path, calibration), studies, "-o", tmp_path / "out", "--estimate-quality")
    assert code != 0 and "prediction.quality=calibrate" in text and not (tmp_path / "out").exists()
