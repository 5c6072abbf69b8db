"""Background is decided once for a data set, whatever share of an image it fills, and saturation is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_for

from medseg.config import RunConfig
from medseg.errors import ConfigError
from medseg.io import read
from medseg.labels import LabelScheme
from medseg.preparation import ChannelPlan, Plan, load_plan, make_plan, normalize, save_plan, scales_for
from medseg.preparation.background import background_of_set, frame_level
from medseg.preparation.case_features import measure_case
from medseg.preparation.fingerprint import Fingerprint, fingerprint_case
from medseg.preparation.plan_upgrade import hashed_content, upgrade_plan
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"thing": 1})
DATA = Path(__file__).parents[3] / "shared" / "data"
SIDE = 64


def photograph(share: float, saturated: float = 0.0, seed: int = 0) -> np.ndarray:
    """(1, 64, 64): retina on a black frame that fills `share`; `saturated` of the image is at 255."""
    rng = np.random.default_rng(seed)
    flat = rng.integers(60, 200, SIDE * SIDE).astype(np.uint8)
    black = round(share * flat.size)
    flat[:black] = 0
    flat[flat.size // 2 : flat.size // 2 + round(saturated * flat.size)] = 255
    # From the border inwards, so that the frame surrounds the rest and holds the corners.
    i, j = np.indices((SIDE, SIDE))
    order = np.argsort(-np.hypot(i - 31.5, j - 31.5).ravel(), kind="stable")
    image = np.empty(flat.size, np.uint8)
    image[order] = flat
    return image.reshape(1, SIDE, SIDE)


def plan_of(arrays: list[np.ndarray], **data) -> Plan:
    cases = []
    for number, array in enumerate(arrays):
        image = Volume(array, np.eye(4), channels=len(array), spacing_known=False)
        labels = np.zeros(array.shape[1:], np.uint8)
        labels[SIDE // 3 : SIDE // 2, SIDE // 3 : SIDE // 2] = 1
        labels = image.with_array(labels)
        cases.append(fingerprint_case(f"c{number}", "", image, labels, SCHEME))
    config = RunConfig(data={"root": "x", **data})
    return make_plan(Fingerprint(tuple(cases), ()), config, SCHEME, memory_gb=4, on_gpu=False)


PLAN = plan_of([photograph(0.3, seed=n) for n in range(5)])


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(0.0, 0.05), st.integers(0, 9))
def test_moving_the_share_of_background_moves_the_normalised_values_continuously(share, saturated, seed) -> None:
    step = 1 / SIDE**2
    one, other = (photograph(share + n * step, saturated, seed) for n in (0, 4))
    first, second = (normalize(each, scales_for(each, PLAN)) for each in (one, other))
    unchanged = one == other
    # Four voxels of the 400 or more that are not background.
    assert np.abs(first - second)[unchanged].max() < 0.06


@pytest.mark.parametrize("share", [0.02, 0.15, 0.199, 0.201, 0.25, 0.6])
def test_a_frame_of_any_share_is_left_out(share) -> None:
    image = photograph(share)
    found = normalize(image, scales_for(image, PLAN))[image > 0]
    assert (found.mean(), found.std()) == pytest.approx((0, 1), abs=1e-3)


def test_saturated_tissue_is_never_background_however_much_it_fills() -> None:
    normal, overexposed = photograph(0.29), photograph(0.29, saturated=0.33)
    plan = plan_of([normal, overexposed, overexposed])
    assert plan.normalization[0].background == 0.0
    scale = scales_for(overexposed, plan)[0]
    assert scale.mean == pytest.approx(overexposed[overexposed > 0].mean())
    # What the first plans did: the black frame was tissue, and what is saturated was left out.
    assert scales_for(overexposed, plan_for(dims=2, **FLAT))[0].mean < 0.6 * scale.mean


FLAT = {"orientation": None, "spacing_mm": None, "patch_size": (16, 16), "strides": ((1, 1), (2, 2))}


def test_white_corners_are_saturation_and_no_background() -> None:
    page = 255 - photograph(0.4)
    assert frame_level(page[0]).value == page.min()
    assert plan_of([page] * 3).normalization[0].region == "all"


def test_frames_that_compression_makes_uneven_are_left_out_in_all_cases() -> None:
    rng = np.random.default_rng(0)
    photos = []
    for seed in range(6):
        image = photograph(0.3, seed=seed)
        image[image == 0] = rng.integers(0, 3, np.count_nonzero(image == 0))
        image[0, [0, 0, -1, -1], [0, -1, 0, -1]] = seed % 3
        photos.append(image)
    plan = plan_of(photos)
    assert plan.normalization[0].background == 2.0
    for image in photos:
        assert scales_for(image, plan)[0].mean == pytest.approx(image[image > 2].mean())


def test_images_with_a_background_of_their_own_are_measured_without_it() -> None:
    scaled = []
    for seed in range(4):
        image = photograph(0.1 + 0.2 * seed, seed=seed).astype(np.float32)
        scaled.append((image - image.mean()) / image.std())
    plan = plan_of(scaled)
    assert plan.normalization[0].background == "frame"
    for image in scaled:
        found = normalize(image, scales_for(image, plan))[image > image.min()]
        assert (found.mean(), found.std()) == pytest.approx((0, 1), abs=1e-3)


def test_zeros_in_the_midst_of_the_grey_levels_are_background_where_the_corners_hold_them() -> None:
    skull_stripped = photograph(0.5).astype(np.float32)
    skull_stripped[skull_stripped > 0] -= 130
    plan = plan_of([skull_stripped] * 3)
    inside = skull_stripped[skull_stripped != 0]
    assert scales_for(skull_stripped, plan)[0].mean == pytest.approx(inside.mean(), abs=1e-3)


def test_an_image_without_a_frame_is_measured_whole() -> None:
    image = np.random.default_rng(0).normal(128, 20, (1, SIDE, SIDE)).astype(np.uint8)
    channel = plan_of([image] * 3).normalization[0]
    assert (channel.region, channel.background) == ("all", None)
    black = np.zeros_like(image)
    assert scales_for(black, PLAN)[0].std == 1.0


def test_prediction_takes_the_background_of_the_plan_and_not_that_of_the_image() -> None:
    inverted = 255 - photograph(0.3, saturated=0.1)
    assert scales_for(inverted, PLAN)[0].mean == pytest.approx(inverted[inverted > 0].mean())


def test_the_background_is_kept_in_the_plan_and_older_plans_keep_theirs(tmp_path: Path) -> None:
    save_plan(PLAN, tmp_path / "plan.yaml")
    assert load_plan(tmp_path / "plan.yaml") == PLAN and PLAN.normalization[0].background == 0.0
    assert hashed_content(PLAN)["normalization"][0]["background"] == 0.0
    old = ChannelPlan(kind="zscore")
    assert (old.region, old.background) == ("foreground", "common")
    written = {"dims": 2, "orientation": None, "normalization": [{"kind": "zscore"}]}
    assert "background" not in upgrade_plan(written)["normalization"][0]
    assert "background" not in hashed_content(plan_for(normalization=(old,)))["normalization"][0]
    with pytest.raises(ConfigError, match="background is a key of plans of format_version 2"):
        upgrade_plan({**written, "normalization": [{"kind": "zscore", "background": 0.0}]})


@pytest.mark.parametrize("channel", [{"kind": "clip"}, {"kind": "zscore", "region": "all"}, {"kind": "rgb"}])
def test_a_background_where_nothing_is_left_out_is_refused(channel) -> None:
    numbers = {"low": 0, "high": 1, "mean": 0, "std": 1} if channel["kind"] == "clip" else {}
    with pytest.raises(ValueError, match="has no background"):
        ChannelPlan(**channel, **numbers, background=0.0)


def test_features_of_an_overexposed_photograph_are_those_of_its_retina() -> None:
    image = Volume(photograph(0.29, saturated=0.33), np.eye(4), channels=1, spacing_known=False)
    nothing = image.with_array(np.zeros((SIDE, SIDE), np.uint8))
    found = {rule: measure_case(image, nothing, SCHEME, rule) for rule in ("frame", "common")}
    assert found["frame"].levels[0].mean == pytest.approx(image.array[image.array > 0].mean())
    # Reference ranges that were measured so are compared so.
    assert found["common"].levels[0].mean == pytest.approx(image.array[image.array < 255].mean())


@pytest.mark.skipif(not (DATA / "vessel2d_chasedb1").is_dir(), reason="no real data in ../shared/data")
def test_both_eyes_of_the_overexposed_child_keep_their_retina() -> None:
    photos = [read(path) for path in sorted((DATA / "vessel2d_chasedb1").glob("*.jpg"))[14:18]]
    background = background_of_set([frame_level(photo.array[0]) for photo in photos])
    assert background == 0.0
    plans = [
        plan_for(dims=2, **FLAT, normalization=(ChannelPlan(kind="zscore", background=each),))
        for each in (background, "common")
    ]
    for photo in photos[2:]:
        retina, mostly_frame = (scales_for(photo.array[:1], plan)[0].mean for plan in plans)
        assert retina > 225 and mostly_frame < 130
