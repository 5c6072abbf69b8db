"""Planning: patch, depth, spacing, orientation; and the editable file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from plans import CHANNEL, SCHEME, case

from medseg.config import NetConfig, RunConfig
from medseg.errors import ConfigError, DatasetError
from medseg.preparation import Fingerprint, Plan, load_plan, make_plan, save_plan
from medseg.preparation.fingerprint import CaseFingerprint
from medseg.preparation.net_needs import axis_strides, needs_of
from medseg.preparation.patch import Budget, choose_patch, default_channels, strides_for, total_stride


def plan(*cases: CaseFingerprint, memory_gb=8.0, on_gpu=False, **parts) -> Plan:
    config = RunConfig(data={"root": "x"}, **parts)
    return make_plan(Fingerprint(cases, ()), config, SCHEME, memory_gb, on_gpu)


def test_hippocampus_on_a_cpu_sees_most_of_an_image_in_fours() -> None:
    made = plan(*[case((36, 50, 35), (1.0, 1.0, 1.0), name=str(n)) for n in range(48)])
    assert (made.patch_size, made.batch_size) == ((32, 48, 32), 4)
    assert made.channels == (16, 32, 64, 128)
    assert total_stride(made.strides) == (8, 8, 8)
    assert (made.orientation, made.spacing_mm, made.normalization[0].kind) == ("RAS", (1.0, 1.0, 1.0), "zscore")


def test_retinal_photographs_on_a_cpu_see_256_squared_in_fours() -> None:
    vessels = [case((999, 960), channels=3, name=str(n), thickness=5.0) for n in range(16)]
    made = plan(*vessels, training={"max_iterations": 1000})
    assert (made.dims, made.patch_size, made.batch_size, made.in_channels) == (2, (256, 256), 4, 3)
    assert (made.orientation, made.spacing_mm) == (None, None)


def test_a_patch_looks_around_as_far_as_the_structures_are_thick() -> None:
    crops = [case((128, 128, 10), (1.0, 1.0, 1.0), name=str(n), thickness=9.0) for n in range(40)]
    nodules = plan(*crops, training={"max_minutes": 15})
    assert nodules.patch_size == (56, 56, 10) and nodules.batch_size == 8
    lungs = plan(*[case((512, 512), name=str(n), thickness=150.0) for n in range(40)], training={"max_minutes": 480})
    assert lungs.patch_size == (512, 512)


def test_short_trainings_take_small_steps_so_that_there_are_many() -> None:
    brains = [case((128, 128, 96), (2.0, 2.0, 2.0), name=str(n), thickness=30.0) for n in range(40)]

    def voxels(minutes: float, cores: int = 1) -> int:
        config = RunConfig(data={"root": "x"}, training={"max_minutes": minutes})
        made = make_plan(Fingerprint(tuple(brains), ()), config, SCHEME, 8.0, False, cores)
        return made.batch_size * math.prod(made.patch_size)

    assert voxels(5) < voxels(15) <= 260_000 < voxels(60) < voxels(60, cores=4)
    # Where the steps are counted, time is no limit of theirs.
    assert voxels(1e6) >= math.prod(plan(*brains, training={"max_iterations": 10}).patch_size)


@given(st.integers(10, 300), st.sampled_from([2, 4, 8, 16, 32]))
def test_a_side_that_covers_the_image_is_rather_shorter_than_longer(length, multiple) -> None:
    side = choose_patch((length,), (1.0,), (8,), Budget(2, 8.0, True), 2, multiple=(multiple,))[0][0]
    below = length // multiple * multiple
    # A map of fewer than 4 cells would be worse.
    kept = below >= max(0.75 * length, 4 * multiple)
    assert side == (below if kept or below == length else below + multiple)


def test_a_gpu_gets_larger_patches_and_wider_nets_and_little_memory_smaller_ones() -> None:
    ct = case((512, 512, 300), (0.8, 0.8, 1.5), labelled=1000)
    large, small, cpu = plan(ct, on_gpu=True, memory_gb=24), plan(ct, on_gpu=True, memory_gb=4), plan(ct)
    assert large.channels == (32, 64, 128, 256, 320, 320)
    assert math.prod(large.patch_size) > 4 * math.prod(small.patch_size)
    assert math.prod(cpu.patch_size) <= 180_000 and cpu.batch_size * math.prod(cpu.patch_size) <= 720_000
    # As near a cube in mm as whole strides allow.
    sides = [n * s for n, s in zip(large.patch_size, large.spacing_mm, strict=True)]
    assert max(sides) / min(sides) < 1.35


def test_thick_slices_are_not_halved_before_the_plane_is_as_coarse() -> None:
    # In-plane 0.8 -> 1.6 -> 3.2 mm; slices of 6 mm join when twice the in-plane spacing reaches them.
    strides = strides_for((128, 128, 16), (0.8, 0.8, 6.0), max_stages=6)
    assert strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1))


def test_an_axis_is_not_halved_below_four_voxels() -> None:
    assert strides_for((40, 56, 7), (1, 1, 1), max_stages=9) == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
    assert strides_for((6, 6), (1, 1), max_stages=5) == ((1, 1),)


@given(
    st.lists(st.integers(1, 600), min_size=3, max_size=3),
    st.lists(st.floats(0.3, 8), min_size=3, max_size=3),
    st.sampled_from([2, 3]),
    st.booleans(),
    st.floats(1, 80),
)
def test_every_patch_is_divisible_and_within_the_budget(shape, spacing, dims, on_gpu, memory_gb) -> None:
    budget, channels = Budget(dims, memory_gb, on_gpu), default_channels(dims, on_gpu)
    patch, strides = choose_patch(shape[:dims], spacing[:dims], channels, budget, batch=2)
    stride = total_stride(strides)
    assert all(p % s == 0 for p, s in zip(patch, stride, strict=True))
    assert budget.fits(2, patch, channels[: len(strides)], strides)
    # Never more than one stride beyond the image.
    assert all(p < n + s for p, n, s in zip(patch, shape, stride, strict=False))
    # No feature map that was halved has fewer than 4 voxels.
    assert all(p // s >= 4 for p, s in zip(patch, stride, strict=True) if s > 1)


def test_spacing_is_the_median_and_for_thick_slices_the_tenth_percentile() -> None:
    even = [case((64, 64, 64), (1.0, 1.0, s), name=str(n)) for n, s in enumerate((1.0, 1.5, 4.0))]
    assert plan(*even).spacing_mm == (1.0, 1.0, 1.5)
    thick = [case((256, 256, 20), (0.5, 0.5, s), name=str(n)) for n, s in enumerate((2.0, 5.0, 5.0, 5.0, 5.0))]
    assert plan(*thick).spacing_mm == (0.5, 0.5, pytest.approx(3.2))


def test_shapes_are_taken_along_the_axes_of_the_plan() -> None:
    turned = case((16, 64, 48), (2.0, 1.0, 0.5), orientation="SLP")
    assert turned.along("RAS") == ((64, 48, 16), (1.0, 0.5, 2.0))
    made = plan(turned)
    assert made.spacing_mm == (1.0, 0.5, 2.0)
    assert made.patch_size[2] == 16


@pytest.mark.parametrize(
    ("spacing", "orientation"),
    [((1, 1, 3), "RAS"), ((1, 3, 1), "RSA"), ((3, 1, 1), "ASR"), ((1, 1, 1), "RAS"), ((4.17, 4.17, 3.99), "RAS")],
)
def test_a_2d_net_sees_volumes_across_their_coarsest_axis(spacing, orientation) -> None:
    made = plan(case((64, 64, 64), tuple(map(float, spacing))), net={"dims": 2})
    assert (made.dims, made.orientation, len(made.patch_size), len(made.spacing_mm)) == (2, orientation, 2, 3)
    assert made.net_spacing_mm == made.spacing_mm[:2]


def test_what_the_configuration_fixes_is_kept() -> None:
    made = plan(
        case((64, 64, 64), (1.0, 1.0, 1.0)),
        plan={"spacing_mm": (2, 2, 2), "patch_size": (32, 48, 16)},
        net={"channels": (8, 16, 24)},
        training={"batch_size": 5},
    )
    assert made.spacing_mm == (2, 2, 2)
    assert (made.patch_size, made.channels, made.batch_size) == ((32, 48, 16), (8, 16, 24), 5)
    assert len(made.strides) == 3
    deeper = plan(case((36, 50, 35), (1.0, 1.0, 1.0)), net={"channels": (8, 16, 32, 64, 128)})
    assert total_stride(deeper.strides) == (16, 16, 16)


def test_what_cannot_be_planned_is_refused() -> None:
    cube = case((32, 32, 32), (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"net.dims is 3, but the images are 2D"):
        plan(case((64, 64)), net={"dims": 3})
    with pytest.raises(ConfigError, match="patch_size has 2 entries, but the net sees 3 axes"):
        plan(cube, plan={"patch_size": (32, 32)})
    with pytest.raises(ConfigError, match=r"asks for 4 stages.*divisible by 8"):
        plan(cube, plan={"patch_size": (36, 36, 36)}, net={"channels": (8, 16, 32, 64)})
    with pytest.raises(ConfigError, match="no known spacing"):
        plan(case((64, 64)), plan={"spacing_mm": (1, 1)})
    with pytest.raises(ConfigError, match="spacing_mm has 2 entries; expected 3"):
        plan(cube, plan={"spacing_mm": (1, 1)})
    with pytest.raises(DatasetError, match="no case holds a labelled voxel"):
        plan(case((32, 32, 32), (1.0, 1.0, 1.0), labelled=0))


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    made = plan(case((36, 50, 35), (1.0, 1.0, 1.0)))
    save_plan(made, tmp_path / "plan.yaml")
    assert load_plan(tmp_path / "plan.yaml") == made
    text = (tmp_path / "plan.yaml").read_text()
    assert text.startswith("#") and "Delete this file to plan anew" in text and "format_version: 2" in text


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"patch_size": [40, 56]}, "patch_size: .*expected 3 entries"),
        ({"patch_size": [40, 57, 40]}, "strides: .*not divisible by the total stride"),
        ({"batch_size": 0}, "batch_size"),
        ({"patchsize": [40, 56, 40]}, "unknown key 'patchsize'; did you mean 'patch_size'"),
        ({"orientation": "RAA"}, "orientation: .*three letters"),
        ({"orientation": None}, "orientation: .*a 3D net needs an orientation"),
        ({"spacing_mm": [1, 1]}, "spacing_mm: .*expected 3 entries"),
        ({"channels": [16, 32]}, "strides: .*expected 2 entries"),
        ({"in_channels": 2}, "normalization: .*expected 2 entries"),
        ({"normalization": [{"kind": "clip", "low": 3}]}, r"normalization.0: .*clip needs low, high, mean and std"),
        ({"format_version": 9}, "format_version"),
    ],
)
def test_a_damaged_plan_is_refused_naming_file_and_key(tmp_path: Path, edit: dict, message: str) -> None:
    path = tmp_path / "plan.yaml"
    save_plan(plan(case((36, 50, 35), (1.0, 1.0, 1.0))), path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **edit}))
    with pytest.raises(ConfigError, match=message) as caught:
        load_plan(path)
    assert str(path) in str(caught.value) and "delete it to plan anew" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    for text in ("dims: [3\n", "just words", ""):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"plan.yaml: .*delete it to plan anew"):
            load_plan(path)


def test_nets_with_stages_of_their_own_see_whole_cells_of_their_coarsest_map() -> None:
    photographs = [case((999, 960), name=str(n)) for n in range(9)]
    for name, cells in (("deeplabv3plus", 16), ("fcn8s", 32), ("bisenetv2", 32), ("mine:net", 32)):
        made = plan(*photographs, net={"name": name})
        assert all(n % cells == 0 and n >= 4 * cells for n in made.patch_size), (name, made.patch_size)
    ct = case((512, 512, 300), (0.8, 0.8, 1.5))
    for name in ("fcn32s", "bisenetv1", "icnet"):
        # Two cells of stride 32 go before the limit of voxels that a CPU has.
        assert min(plan(ct, net={"name": name, "dims": 3}).patch_size[:2]) >= 64, name


def test_an_image_shorter_than_the_stride_is_not_padded_up_to_it() -> None:
    short = case((96, 96, 12), (1.0, 1.0, 1.0))
    for name in ("enet", "bisenetv2", "deeplabv3plus"):
        assert plan(short, net={"name": name, "dims": 3}).patch_size[2] in (12, 16), name


def test_thick_slices_lower_what_a_patch_divides_by_where_the_net_can() -> None:
    def strides(name: str, spacing: tuple[float, ...]) -> tuple[int, ...]:
        needs = needs_of(NetConfig(name=name))
        assert needs is not None
        return axis_strides(needs, spacing)

    assert strides("deeplabv3plus", (0.8, 0.8, 5.0)) == (16, 16, 4)
    assert strides("enet", (0.8, 0.8, 5.0)) == (8, 8, 8)
    assert strides("fcn", (1.0, 1.0, 9.0)) == (8, 8, 1)
    thick = case((256, 256, 20), (0.8, 0.8, 5.0))
    assert plan(thick, net={"name": "deeplabv3plus", "dims": 3}).patch_size[2] % 4 == 0


def test_memory_of_a_net_follows_its_backbone_and_width() -> None:
    def kilobytes(**net: object) -> float:
        needs = needs_of(NetConfig(**net))
        assert needs is not None
        return needs.kilobytes[0]

    one = kilobytes(name="deeplabv3")
    assert kilobytes(name="deeplabv3", backbone="resnet101") == pytest.approx(1.8 * one)
    assert kilobytes(name="deeplabv3", width=0.5) == pytest.approx(0.5 * one)
    assert needs_of(NetConfig(name="unet")) is None
    ct = case((512, 512), None)
    wide, narrow = (plan(ct, net={"name": "deeplabv3", "width": w}, on_gpu=True, memory_gb=3) for w in (1, 0.25))
    assert wide.batch_size * math.prod(wide.patch_size) < narrow.batch_size * math.prod(narrow.patch_size)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CT", "clip"),
        ("ct", "clip"),
        ("noNorm", "none"),
        ("rescale_to_0_1", "unit"),
        ("rgb_to_0_1", "rgb"),
        ("zscore", "zscore"),
        ("MRI", "zscore"),
        ("T2w", "zscore"),
    ],
)
def test_the_name_of_a_channel_chooses_its_normalisation_as_in_nnunet(name: str, kind: str) -> None:
    # Whole numbers below -500 would be taken for Hounsfield units where no name says otherwise; colours begin at 0.
    channel = replace(CHANNEL, minimum=0.0 if kind == "rgb" else -1000.0, quantiles=tuple(float(n) for n in range(200)))
    cases = (replace(case((64, 64, 64), (1.0, 1.0, 1.0)), channels=(channel,)),)
    plan = make_plan(Fingerprint(cases, (name,)), RunConfig(data={"root": "x"}), SCHEME, 4.0, False)
    assert plan.normalization[0].kind == kind
