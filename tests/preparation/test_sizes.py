"""The sizes of a plan: nnU-Net's residual encoders to the number, small and large ones, and what a plan says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from plans import SCHEME, case, plan_for

from medseg.config import RunConfig, load_config
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.nets.profile import build_on_meta, training_bytes
from medseg.preparation import Fingerprint, Plan, load_plan, make_plan, save_plan
from medseg.preparation.nnunet_topology import kernels_for, pooled_strides
from medseg.preparation.plan_upgrade import hashed_content, upgrade_plan
from medseg.preparation.planning import check_plan_fits

# Written by nnU-Net's own planners, see tests/fixtures/make_nnunet.py.
BY_NNUNET = [
    json.loads(line) for line in (Path(__file__).parents[1] / "fixtures/nnunet/plans.json").read_text().splitlines()
]
TWO_LABELS = LabelScheme.from_mapping({"a": 1, "b": 2})
BRAIN = [case((182, 218, 182), (1.0, 1.0, 1.0))] * 100
CT = [case((512, 512, 300), (0.8, 0.8, 1.5))] * 20
THICK = [case((256, 256, 20), (0.8, 0.8, 5.0))] * 9
PHOTOGRAPHS = [case((999, 960), channels=3)] * 20


def plan(cases, memory_gb=80.0, on_gpu=True, scheme=SCHEME, **parts) -> Plan:
    return make_plan(Fingerprint(tuple(cases), ()), RunConfig(data={"root": "x"}, **parts), scheme, memory_gb, on_gpu)


def sized(name, cases, memory_gb=80.0, on_gpu=True, **parts) -> Plan:
    return plan(cases, memory_gb, on_gpu, plan={"size": name, **parts.pop("plan", {})}, **parts)


@pytest.mark.parametrize("row", BY_NNUNET, ids=lambda row: f"{row['size']}-{'x'.join(map(str, row['shape']))}")
def test_residual_encoders_are_planned_as_nnunets_own_planners_do(row) -> None:
    cases = [case(tuple(row["shape"]), tuple(row["spacing"]))] * row["cases"]
    made = sized(row["size"], cases, scheme=TWO_LABELS)
    assert (list(made.patch_size), made.batch_size) == (row["patch"], row["batch"])
    assert [list(s) for s in made.strides] == row["strides"]
    assert [list(k) for k in made.kernels] == row["kernels"]
    assert list(made.channels) == row["channels"]


def test_the_default_is_planned_and_written_as_before(tmp_path: Path) -> None:
    for cases in (BRAIN, THICK, PHOTOGRAPHS):
        usual, named = plan(cases), sized("default", cases)
        assert usual == named and usual.size is None and usual.kernels is None
        save_plan(usual, tmp_path / "plan.yaml")
        assert not {"size", "kernels"} & set(yaml.safe_load((tmp_path / "plan.yaml").read_text()))
        assert not {"size", "kernels"} & set(hashed_content(usual))


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("cases", [CT, PHOTOGRAPHS], ids=["volumes", "pictures"])
def test_fast_and_large_have_smaller_and_larger_networks_patches_and_steps(cases, on_gpu: bool) -> None:
    fast, usual, large = (sized(name, cases, on_gpu=on_gpu) for name in ("fast", "default", "large"))
    for smaller, larger in ((fast, usual), (usual, large)):
        stages = min(len(smaller.channels), len(larger.channels))
        assert [2 * c for c in smaller.channels[:stages]] == list(larger.channels[:stages])
        patches = [math.prod(each.patch_size) for each in (smaller, larger)]
        # On this GPU the default takes nearly whole photographs, and memory limits the largest steps.
        assert patches[0] < patches[1] or (on_gpu and larger.patch_size == (960, 960))
        if not on_gpu:
            assert smaller.batch_size * patches[0] < larger.batch_size * patches[1]
    assert "half the features" in fast.size.reason and "twice the features" in large.size.reason


def test_what_a_size_cannot_change_is_said() -> None:
    assert "net.channels is kept" in sized("fast", CT, net={"channels": (8, 16, 32)}).size.reason
    deeplab = sized("large", CT, net={"name": "deeplabv3"})
    assert "deeplabv3 keeps its features, which net.width changes" in deeplab.size.reason
    assert math.prod(deeplab.patch_size) > math.prod(plan(CT, net={"name": "deeplabv3"}).patch_size)


def test_on_less_memory_the_patch_shrinks_then_the_batch_and_the_plan_says_so() -> None:
    full = sized("resenc_l", BRAIN)
    assert "so the" not in full.size.reason
    sizes = [sized("resenc_l", BRAIN, memory_gb) for memory_gb in (24.0, 12.0, 6.0, 2.0, 0.5)]
    assert sizes[0] == full
    voxels = [math.prod(each.patch_size) for each in sizes]
    assert voxels == sorted(voxels, reverse=True) and len(set(voxels)) == len(voxels)
    assert all(each.batch_size == 2 for each in sizes)
    for each in sizes[1:]:
        assert "this GPU has" in each.size.reason
        assert f"so the patch is smaller than {' x '.join(map(str, full.patch_size))}" in each.size.reason
    least = sized("resenc_l", BRAIN, 0.0001)
    assert least.batch_size == 1 and len(least.channels) >= 2
    assert "so the batch is 1 and not 2" in least.size.reason
    # Of many small images only the batch is smaller.
    small = [sized("resenc_m", [case((64, 64, 64), (1.0, 1.0, 1.0))] * 100, memory_gb) for memory_gb in (11.0, 5.5)]
    assert small[0].patch_size == small[1].patch_size and small[0].batch_size > small[1].batch_size >= 2
    assert f"so the batch is {small[1].batch_size} and not {small[0].batch_size}" in small[1].size.reason


def test_on_a_cpu_the_batch_is_limited_by_time_and_the_plan_says_so() -> None:
    crops = [case((36, 50, 35), (1.0, 1.0, 1.0))] * 48
    made = sized("resenc_m", crops, memory_gb=64.0, on_gpu=False)
    assert made.batch_size * math.prod(made.patch_size) <= 360_000
    assert f"on a CPU time is the limit, so the batch is {made.batch_size} and not 34" in made.size.reason
    little = sized("resenc_m", BRAIN, memory_gb=8.0, on_gpu=False)
    assert "this CPU has 8 GB, so the patch is smaller than 128 x 128 x 128" in little.size.reason


def test_fixed_patch_and_batch_are_kept_by_residual_encoders() -> None:
    made = sized("resenc_m", BRAIN, plan={"patch_size": (32, 48, 32)}, training={"batch_size": 3})
    assert (made.patch_size, made.batch_size, made.channels) == ((32, 48, 32), 3, (32, 64, 128, 256))
    assert "plan.patch_size is kept" in made.size.reason and "training.batch_size is kept" in made.size.reason
    odd = sized("resenc_m", BRAIN, plan={"patch_size": (36, 44, 9)})
    assert odd.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1))
    with pytest.raises(ConfigError, match=r"plan.patch_size \(33, 45, 9\) cannot be halved"):
        sized("resenc_m", BRAIN, plan={"patch_size": (33, 45, 9)})


def test_a_residual_encoder_brings_its_network_and_refuses_another() -> None:
    assert RunConfig(data={"root": "x"}, plan={"size": "resenc_m"}).net.name == "nnunet_resenc"
    assert load_config("hippocampus", {"data.root": "x", "plan.size": "resenc_l"}).net.name == "nnunet_resenc"
    named = {"data": {"root": "x"}, "plan": {"size": "resenc_m"}}
    assert RunConfig(**named, net={"name": "nnunet_resenc"}).net.name == "nnunet_resenc"
    assert RunConfig(**RunConfig(**named).model_dump()).net.name == "nnunet_resenc"
    for overrides, words in (
        ({"net.name": "unet"}, "plan.size resenc_m is of the network nnunet_resenc, but net.name is 'unet'"),
        ({"net.name": "nnunet_plain"}, "net.name is 'nnunet_plain'"),
        ({"net.channels": [8, 16]}, "plan.size resenc_m has features of its own; leave net.channels out"),
        ({"plan.size": "huge"}, "plan.size"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            load_config("hippocampus", {"data.root": "x", "plan.size": "resenc_m", **overrides})
        assert "\n" not in str(caught.value)


def test_kernels_of_nnunets_networks_are_planned_with_their_strides() -> None:
    for name in ("nnunet_plain", "nnunet_resenc"):
        thick, flat = plan(THICK, net={"name": name}), plan(THICK, net={"name": name, "dims": 2})
        assert thick.kernels[0] == (3, 3, 1) and thick.kernels[-1] == (3, 3, 3)
        assert thick.kernels == kernels_for(thick.spacing_mm, thick.strides)
        assert set(flat.kernels) == {(3, 3)} and len(flat.kernels) == len(flat.strides)
        assert thick.size is None
        assert "kernels" in hashed_content(thick)


def test_an_axis_is_halved_by_nnunets_rule() -> None:
    # Spacings of exactly twice the finest wait; alone, an axis needs three times the smallest map.
    assert pooled_strides((64, 64), (1.0, 2.0))[1] == (2, 1)
    assert pooled_strides((11, 4), (1.0, 1.0)) == ((1, 1),)
    assert pooled_strides((12, 4), (1.0, 1.0)) == ((1, 1), (2, 1))
    assert pooled_strides((20, 36), (1.0, 1.0), exact=True) == ((1, 1), (2, 2), (2, 2))
    assert pooled_strides((18, 36), (1.0, 1.0), exact=True) == ((1, 1), (2, 2), (1, 2))


def test_a_plan_with_size_and_kernels_comes_back_from_its_file(tmp_path: Path) -> None:
    made = sized("resenc_m", THICK)
    save_plan(made, tmp_path / "plan.yaml")
    assert load_plan(tmp_path / "plan.yaml") == made
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text())["size"]["name"] == "resenc_m"
    # The reason is for people: it does not make another training of it.
    other = made.model_copy(update={"size": made.size.model_copy(update={"reason": "mine"})})
    assert hashed_content(other) == hashed_content(made) and "size" not in hashed_content(made)


def test_kernels_that_do_not_fit_a_plan_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    save_plan(plan_for(kernels=((3, 3, 1), (3, 3, 3))), path)
    content = yaml.safe_load(path.read_text())
    for kernels, words in (
        ([[3, 3, 3]], "kernels: .*expected 2 entries, one for each of the stages"),
        ([[3, 3], [3, 3]], "kernels: .*expected 3 entries, one for each of the axes"),
        ([[3, 3, 2], [3, 3, 3]], "kernels"),
    ):
        path.write_text(yaml.safe_dump({**content, "kernels": kernels}))
        with pytest.raises(ConfigError, match=words):
            load_plan(path)
    with pytest.raises(ConfigError, match="kernels is a key of plans of format_version 2"):
        upgrade_plan({"kernels": [[3, 3, 3]]})


def test_a_kept_plan_of_another_size_is_refused_and_one_that_nobody_asks_about_is_kept(tmp_path: Path) -> None:
    fingerprint = Fingerprint(tuple(THICK), ())
    made, usual = sized("fast", THICK), plan(THICK)
    for kept, size in ((made, "fast"), (made, "default"), (usual, "default")):
        check_plan_fits(kept, fingerprint, RunConfig(data={"root": "x"}, plan={"size": size}), tmp_path)
    for kept, size in ((made, "large"), (usual, "fast")):
        with pytest.raises(ConfigError, match=rf"size is .*ask for {size}; .*delete it to plan anew"):
            check_plan_fits(kept, fingerprint, RunConfig(data={"root": "x"}, plan={"size": size}), tmp_path)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "net",
    [
        {"name": "unet"},
        {"name": "unet", "residual": True},
        {"name": "unet_residual"},
        {"name": "nnunet_plain"},
        {"name": "nnunet_resenc"},
    ],
    ids=lambda net: "-".join(net.values() if len(net) == 1 else ("unet", "residual")),
)
def test_what_a_planned_step_keeps_fits_the_memory_it_is_planned_for(net, dims: int) -> None:
    made = plan(BRAIN, memory_gb=2.0, on_gpu=False, net={**net, "dims": dims}, plan={"memory_gb": 0.2})
    options = {"channels": made.channels, "strides": made.strides}
    options |= {"residual": True} if net.get("residual") else {}
    options |= {"kernels": made.kernels} if made.kernels else {}
    built = build_on_meta(net["name"], dims=dims, **options)
    kept = training_bytes(built, (made.batch_size, 1, *made.patch_size))
    # Half of a main memory, a quarter of which is left for gradients under way.
    assert kept <= 1.03 * 0.5 * 0.75 * 0.2e9
    assert kept >= 0.6 * 0.5 * 0.75 * 0.2e9
