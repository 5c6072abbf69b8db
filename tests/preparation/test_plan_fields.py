"""Every part of a plan is read: other permitted values change what they should, those that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from plans import plan_for
from pydantic import ValidationError
from scipy import ndimage

from medseg.errors import ConfigError, GeometryError, ReadError
from medseg.preparation import (
    ChannelPlan,
    labels_to_network_grid,
    load_plan,
    normalize,
    save_plan,
    scales_for,
    to_network_grid,
)
from medseg.preparation.plan_upgrade import hashed_content, upgrade_plan
from medseg.volume import Volume

RNG = np.random.default_rng(5)


def volume(shape=(9, 8, 7), spacing=(1.0, 1.0, 2.0), low=-50, high=900) -> Volume:
    return Volume(RNG.integers(low, high, (1, *shape)).astype(np.int16), np.diag([*spacing, 1.0]), channels=1)


def normalized(image: Volume, **plan) -> np.ndarray:
    made = plan_for(**plan)
    array, _ = to_network_grid(image, made)
    return normalize(array, scales_for(array, made))[0]


def test_the_order_of_interpolation_is_the_plans() -> None:
    image, fine = volume(), {"spacing_mm": (0.5, 0.7, 1.0)}
    nearest, linear, cubic = (to_network_grid(image, plan_for(**fine, image={"order": n}))[0][0] for n in (0, 1, 3))
    assert set(np.unique(nearest)) <= set(np.unique(image.array)) and nearest.dtype == np.int16
    factors = [n / m for n, m in zip(linear.shape, image.shape, strict=True)]
    for found, order in ((linear, 1), (cubic, 3)):
        expected = ndimage.zoom(image.array[0].astype(float), factors, order=order, mode="nearest", grid_mode=True)
        expected = np.clip(expected, image.array.min(), image.array.max())
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_cubic_splines_overshoot_unless_they_are_clipped() -> None:
    step = np.zeros((1, 8, 8, 8), np.float32)
    step[:, 4:] = 100
    image = Volume(step, np.eye(4), channels=1)
    kept, free = (
        to_network_grid(image, plan_for(spacing_mm=(0.5, 1.0, 1.0), image={"order": 3, "clip": clip}))[0]
        for clip in (True, False)
    )
    assert (kept.min(), kept.max()) == (0, 100)
    assert free.min() < -1 and free.max() > 101


def test_cubic_splines_and_clipping_hold_on_sheared_grids_too() -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.4
    step = np.zeros((1, 8, 12, 9), np.float32)
    step[:, 4:] = 100
    image = Volume(step, affine, channels=1)
    linear, cubic, free = (
        to_network_grid(image, plan_for(spacing_mm=(0.7, 1.0, 1.0), image=each))[0]
        for each in ({"order": 1}, {"order": 3}, {"order": 3, "clip": False})
    )
    assert not np.allclose(linear, cubic) and cubic.min() == 0 and cubic.max() == 100
    assert free.max() > 101


@pytest.mark.parametrize(("ties", "expected"), [("lower", [1, 3]), ("upper", [2, 4])])
def test_of_two_equally_near_labels_the_plan_takes_one(ties, expected) -> None:
    labels = Volume(np.array([1, 2, 3, 4], np.uint8).reshape(4, 1, 1), np.eye(4))
    found = labels_to_network_grid(labels, plan_for(spacing_mm=(2.0, 1.0, 1.0), labels={"ties": ties}))
    assert found.ravel().tolist() == expected


def test_shapes_are_rounded_from_the_extent_or_from_the_ratio() -> None:
    # 3 * 0.35 / 0.3 is 3.5 with an error below, 3 * (0.35 / 0.3) with one above.
    found = {
        (n, s, t)
        for n in range(1, 40)
        for s in (0.35, 0.7, 1.1, 1.3)
        for t in (0.3, 0.4, 0.6, 1.2)
        if round(n * s / t) != round(n * (s / t))
    }
    assert found
    for n, s, t in sorted(found)[:5]:
        image = Volume(np.zeros((1, n, 3, 3), np.int16), np.diag([s, 1.0, 1.0, 1.0]), channels=1)
        extent, ratio = (
            to_network_grid(image, plan_for(spacing_mm=(t, 1.0, 1.0), shape_rounding=each))[1].network_shape[0]
            for each in ("extent", "ratio")
        )
        assert (extent, ratio) == (round(n * image.spacing_mm[0] / t), round(n * (image.spacing_mm[0] / t)))


def test_grey_levels_are_normalised_before_or_after_resampling() -> None:
    image, clip = volume(), ChannelPlan(kind="clip", low=100, high=300, mean=200, std=50)
    parts = {"spacing_mm": (0.6, 1.0, 2.0), "normalization": (clip,)}
    after = normalized(image, **parts)
    before = normalized(image, **parts, normalize_on="native")
    levels = image.with_array((np.clip(image.array, 100, 300) - 200) / 50.0, channels=1)
    unchanged = plan_for(spacing_mm=(0.6, 1.0, 2.0), normalization=(ChannelPlan(kind="none"),))
    np.testing.assert_allclose(before, to_network_grid(levels, unchanged)[0][0], atol=1e-5)
    assert np.abs(before - after).max() > 0.1


def test_every_kind_of_normalization_does_what_it_says() -> None:
    image, same = volume(low=0, high=256), {"spacing_mm": None}
    array = image.array[0].astype(np.float64)
    for kind, expected in {
        "unit": (array - array.min()) / (array.max() - array.min()),
        "rgb": array / 255,
        "none": array,
        "zscore": (array - array.mean()) / array.std(),
    }.items():
        found = normalized(image, **same, normalization=(ChannelPlan(kind=kind),))
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=kind)


def test_the_region_says_where_a_case_is_measured() -> None:
    framed = volume(low=100, high=200)
    framed = framed.with_array(np.where(np.arange(7) < 3, 7, framed.array), channels=1)
    inside = framed.array[framed.array != 7].astype(np.float64)
    for kind, region, (shift, scale) in (
        ("zscore", "foreground", (inside.mean(), inside.std())),
        ("zscore", "all", (framed.array.mean(), framed.array.std())),
        ("unit", "foreground", (inside.min(), np.ptp(inside))),
        ("unit", "all", (7, framed.array.max() - 7)),
    ):
        found = normalized(framed, spacing_mm=None, normalization=(ChannelPlan(kind=kind, region=region),))
        np.testing.assert_allclose(found, (framed.array[0] - shift) / scale, atol=1e-4, err_msg=f"{kind} {region}")


def test_a_photograph_of_16_bits_is_no_rgb() -> None:
    with pytest.raises(ReadError, match="0 to 255"):
        normalized(volume(), normalization=(ChannelPlan(kind="rgb"),))


def test_whole_numbers_stay_whole_only_where_normalisation_clips() -> None:
    image, fine = volume(), {"spacing_mm": (0.6, 1.0, 2.0)}
    clip = ChannelPlan(kind="clip", low=100, high=300, mean=200, std=50)
    for channel, dtype in (
        (clip, np.int16),
        (ChannelPlan(kind="unit"), np.float32),
        (ChannelPlan(kind="none"), np.float32),
    ):
        assert to_network_grid(image, plan_for(**fine, normalization=(channel,)))[0].dtype == dtype


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transpose": [2, 1, 0]}, "can only be"),
        ({"normalization": [{"kind": "zscore", "region": "box"}]}, "need crop 'nonzero'"),
        ({"normalization": [{"kind": "zscore", "region": "mask"}], "crop": "nonzero"}, "normalize_on 'native'"),
        ({"axes": "file"}, "axes 'file' needs null"),
        ({"axes": "file", "orientation": None, "transpose": [0, 1]}, "three of transpose"),
    ],
)
def test_parts_of_a_plan_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict, words: str) -> None:
    path = tmp_path / "plan.yaml"
    save_plan(plan_for(), path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    with pytest.raises(ConfigError, match=words) as caught:
        load_plan(path)
    assert str(path) in str(caught.value)


def test_labels_are_not_brought_to_the_grid_of_a_plan_that_crops_by_the_image() -> None:
    labels = Volume(np.ones((4, 4, 4), np.uint8), np.eye(4))
    with pytest.raises(GeometryError, match="for prediction"):
        labels_to_network_grid(labels, plan_for(crop="nonzero"))


def test_slices_of_a_thick_axis_are_resampled_one_by_one_and_the_nearest_is_taken_half_way_the_upper_one() -> None:
    image = Volume(np.arange(4.0).repeat(9).reshape(4, 3, 3)[None], np.diag([4.0, 1, 1, 1]), 1)
    plan = plan_for(
        spacing_mm=(2.0, 1.0, 1.0), image={"order": 3, "thick_axis": "nearest"}, logits={"thick_axis": "nearest"}
    )
    array, grid = to_network_grid(image, plan)
    assert grid.thick == (0, 0)
    assert array[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    coarse, grid = to_network_grid(
        image, plan_for(spacing_mm=(8.0, 1.0, 1.0), image={"order": 3, "thick_axis": "nearest"})
    )
    # The middle of each new voxel lies half-way between two slices.
    assert coarse[0, :, 0, 0].tolist() == [1, 3] and grid.thick == (0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"image": {"order": 2}},
        {"logits": {"order": 3}},
        {"windows": {"weights": "hann"}},
        {"padding": "mirror"},
        {"axes": "LPS"},
        {"axes": "file"},
        {"transpose": (0, 0, 1)},
        {"normalization": (ChannelPlan(kind="unit"), ChannelPlan(kind="unit"))},
    ],
)
def test_what_the_format_does_not_know_is_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        plan_for(**changes)


def test_zero_padding_needs_a_mean_that_clipping_leaves() -> None:
    far = ChannelPlan(kind="clip", low=0, high=1, mean=5, std=1)
    plan_for(normalization=(far,))
    with pytest.raises(ValidationError, match="mean between low and high"):
        plan_for(normalization=(far,), padding="zero")


def test_a_plan_of_version_1_keeps_its_hash_and_gets_the_meaning_it_had() -> None:
    plan = plan_for()
    first = hashed_content(plan)
    assert first["format_version"] == 1 and "windows" not in first and "region" not in first["normalization"][0]
    assert type(plan).model_validate(upgrade_plan(first)) == plan
    for changes in ({"padding": "zero"}, {"windows": {"overlap": 0.25}}, {"image": {"order": 3}}):
        other = hashed_content(plan_for(**changes))
        assert {key: other[key] for key in first} == first and other.keys() - first.keys() == changes.keys()
    measured = hashed_content(plan_for(normalization=(ChannelPlan(kind="zscore", region="all"),)))
    assert measured["normalization"][0]["region"] == "all"


def test_a_plan_of_a_newer_medseg_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    save_plan(plan_for(), path)
    path.write_text(path.read_text().replace("format_version: 2", "format_version: 3"))
    with pytest.raises(ConfigError, match=r"plan.yaml: .*format_version 3.*update medseg"):
        load_plan(path)


def test_a_key_of_version_2_in_a_plan_of_version_1_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**hashed_content(plan_for()), "padding": "zero"}))
    with pytest.raises(ConfigError, match=r"plan.yaml: padding is a key of plans of format_version 2"):
        load_plan(path)
