"""How coarse a grid the network sees: no coarser than needed, and never so coarse that the thinnest label is lost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plans import case, plan_for

from medseg.config import RunConfig
from medseg.errors import ConfigError
from medseg.inference import to_label_map
from medseg.labels import LabelScheme
from medseg.preparation import Plan, make_plan
from medseg.preparation.coarseness import coarser_spacing, thinnest_of
from medseg.preparation.fingerprint import CaseFingerprint, Fingerprint
from medseg.preparation.grid import labels_to_network_grid, to_network_grid
from medseg.preparation.planning import check_plan_fits
from medseg.preparation.training_budget import plan_reasons
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"thing": 1})
LIVER = case((512, 512, 300), (0.8, 0.8, 1.5), thickness=100.0)
LUNGS_2D = case((512, 512), thickness=230.0)


def planned(*cases: CaseFingerprint, on_gpu: bool = False, minutes: float = 15, **plan: object) -> Plan:
    config = RunConfig(data={"root": "x"}, training={"max_minutes": minutes}, plan=plan)
    return make_plan(Fingerprint(cases, ()), config, SCHEME, 8.0, on_gpu)


def test_thick_structures_are_seen_on_a_coarser_grid_where_a_patch_would_show_little_of_them() -> None:
    liver = planned(LIVER)
    assert liver.spacing_mm == (5.0, 5.0, 5.0)
    assert min(p * s for p, s in zip(liver.patch_size, liver.spacing_mm, strict=True)) > 150
    lungs = planned(LUNGS_2D)
    assert (lungs.spacing_mm, lungs.downsampling) == (None, 2.0)
    assert lungs.voxels_in_words == "2 x 2 pixels"


def test_what_is_thin_or_small_keeps_the_grid_of_the_images() -> None:
    vessels = planned(case((876, 584), thickness=8.0))
    assert (vessels.spacing_mm, vessels.downsampling) == (None, None)
    assert planned(case((35, 50, 35), (1.0, 1.0, 1.0), thickness=11.7)).spacing_mm == (1.0, 1.0, 1.0)


def test_a_gpu_that_sees_the_whole_image_keeps_its_grid() -> None:
    assert planned(case((160, 160, 120), (1.0, 1.0, 1.0), thickness=60.0), on_gpu=True).spacing_mm == (1.0, 1.0, 1.0)


def test_the_thinnest_label_decides_and_a_region_is_as_thick_as_its_thickest_part() -> None:
    each = replace(case((9, 9, 9), (1.0, 1.0, 1.0)), thickness_mm={1: 9.0, 2: 60.0, 4: 3.0})
    plain = LabelScheme.from_mapping({"a": 1, "b": 2})
    regions = LabelScheme.from_mapping({"whole": [1, 2, 4], "core": [1, 4]})
    assert thinnest_of(Fingerprint((each,), ()), plain) == 9.0
    assert thinnest_of(Fingerprint((each,), ()), regions) == 9.0
    assert thinnest_of(Fingerprint((case((9, 9, 9), (1.0, 1.0, 1.0)),), ()), plain) is None


def test_the_plan_says_why_its_grid_is_coarser() -> None:
    config = RunConfig(data={"root": "x"}, training={"max_minutes": 15})
    said = plan_reasons(planned(LIVER), Fingerprint((LIVER,), ()), config, on_gpu=False, cores=1)
    assert said[0].startswith("The network's voxels measure 5 x 5 x 5 mm: the structures are so thick")
    thin = case((512, 512, 300), (0.8, 0.8, 1.5), thickness=5.0)
    assert "voxels measure" not in " ".join(plan_reasons(planned(thin), Fingerprint((thin,), ()), config, False, 1))


@given(
    shape=st.tuples(*[st.integers(8, 600)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    thinnest=st.floats(1, 200),
    voxels=st.integers(10_000, 4_000_000),
)
def test_no_axis_gets_finer_nor_coarser_than_the_thinnest_label_permits(shape, spacing, thinnest, voxels) -> None:
    found = coarser_spacing(shape, spacing, 6 * thinnest, thinnest, voxels)
    for new, old in zip(found, spacing, strict=True):
        assert new == old or old < new <= max(thinnest / 20, min(spacing)) * 1.05


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", [2, 3])
def test_a_ball_of_twenty_network_voxels_comes_back_with_little_lost(dims: int, factor: int) -> None:
    shape = (32 * factor,) * dims
    distance = sum((np.indices(shape) - (32 * factor - 1) / 2 + 0.21) ** 2)
    ball = Volume((distance < (10 * factor) ** 2).astype(np.uint8), np.eye(4), spacing_known=dims == 3)
    grid = {"spacing_mm": (factor,) * 3} if dims == 3 else {"spacing_mm": None, "downsampling": factor}
    sizes = {} if dims == 3 else {"orientation": None, "patch_size": (16, 16), "strides": ((1, 1), (2, 2))}
    plan = plan_for(dims=dims, labels={"method": "area", "ties": "unbiased"}, **grid, **sizes)
    small = labels_to_network_grid(ball, plan)
    assert small.shape == (32,) * dims
    inside = torch.from_numpy(small).float() * 2 - 1
    back = to_label_map(torch.stack([-inside, inside]), shape)
    assert 2 * (back & ball.array).sum() / (back.sum() + ball.array.sum()) > 0.975


def test_pixels_are_averaged_and_a_mask_comes_back_to_every_pixel() -> None:
    plan = plan_for(
        dims=2, orientation=None, spacing_mm=None, downsampling=2, patch_size=(16, 16), strides=((1, 1), (2, 2))
    )
    picture = Volume(np.arange(60.0).reshape(1, 10, 6), np.eye(4), channels=1, spacing_known=False)
    array, grid = to_network_grid(
        picture, plan.model_copy(update={"image": plan.image.model_copy(update={"prefilter": "area"})})
    )
    assert (array.shape, grid.oriented_shape, grid.network_spacing_mm) == ((1, 5, 3), (10, 6), (2.0, 2.0))
    np.testing.assert_allclose(array[0], np.arange(60.0).reshape(5, 2, 3, 2).mean((1, 3)))


def test_what_the_configuration_says_of_the_grid_is_kept_and_what_does_not_apply_is_refused(tmp_path: Path) -> None:
    assert planned(LIVER, spacing_mm=(2, 2, 2)).spacing_mm == (2.0, 2.0, 2.0)
    assert planned(LUNGS_2D, downsampling=4).downsampling == 4.0
    assert planned(LUNGS_2D, downsampling=1).voxels_in_words == "1 x 1 pixels"
    with pytest.raises(ConfigError, match=r"give plan\.spacing_mm"):
        planned(LIVER, downsampling=2)
    with pytest.raises(ConfigError, match=r"give plan\.downsampling"):
        planned(LUNGS_2D, spacing_mm=(2, 2))
    with pytest.raises(ConfigError, match=r"downsampling is 2\.0, but .* ask for 3\.0"):
        config = RunConfig(data={"root": "x"}, plan={"downsampling": 3})
        check_plan_fits(planned(LUNGS_2D), Fingerprint((LUNGS_2D,), ()), config, tmp_path / "plan.yaml")
    with pytest.raises(ValueError, match="images without a known spacing"):
        plan_for(downsampling=2)


def test_plans_without_downsampling_are_written_and_hashed_as_before() -> None:
    assert "downsampling" not in plan_for().model_dump()
    assert math.isclose(planned(LUNGS_2D).model_dump()["downsampling"], 2.0)
