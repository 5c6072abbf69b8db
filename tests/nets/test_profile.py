"""The table of networks: figures that can be counted by hand, or that papers state."""

from __future__ import annotations

import json

import pytest

from medseg.errors import ConfigError
from medseg.nets import NETS, build_net
from medseg.nets.profile import build_on_meta, profile_nets


def rows(name, **options):
    return profile_nets(names=[name], **options).rows


def test_parameters_are_those_of_a_net_in_memory_and_grow_in_3d():
    flat, deep = rows("enet")
    assert flat.parameters == sum(
        p.numel() for p in build_net("enet", dims=2, in_channels=1, out_channels=2).parameters()
    )
    assert (flat.dims, deep.dims) == (2, 3)
    assert deep.parameters > flat.parameters


def test_the_receptive_field_of_a_unet_is_the_one_known_of_it():
    # Five stages of two 3x3: 188 voxels from the middle, where the windows of the pools lie.
    flat, deep = rows("unet")
    assert flat.receptive_field == deep.receptive_field == 188
    assert (flat.output_stride, flat.coarsest_stride) == (1, 16)


def test_image_pooling_sees_the_whole_image():
    row = rows("deeplabv3", backbone="resnet18", width=0.125)[0]
    assert row.receptive_field is None
    assert (row.output_stride, row.coarsest_stride) == (8, 8)
    assert "image" in profile_nets(names=["deeplabv3"], backbone="resnet18", width=0.125).text()


@pytest.mark.parametrize(
    ("name", "output", "coarsest"),
    [("fcn32s", 32, 32), ("fcn16s", 16, 32), ("fcn8s", 8, 32), ("deeplabv1", 8, 8), ("bisenetv2", 8, 32)],
)
def test_strides_are_those_of_the_papers(name, output, coarsest):
    for row in rows(name, width=0.125):
        assert (row.output_stride, row.coarsest_stride) == (output, coarsest)


def test_operations_are_counted_twice_per_multiply_add_and_memory_holds_the_weights():
    one, four = rows("unet", size_2d=(32, 32))[0], rows("unet", size_2d=(64, 64))[0]
    assert four.gflops == pytest.approx(4 * one.gflops, rel=1e-3)
    assert one.memory_mb * 1e6 > 4 * one.parameters
    # First stage alone: 3x3 from 1 and from 64 channels to 64, and twice on the way up; the head.
    voxels = 32 * 32
    least = 2 * voxels * 9 * (64 + 64 * 64 + 128 * 64 + 64 * 64)
    assert one.gflops * 1e9 > least


def test_the_table_is_json_with_a_version():
    content = json.loads(profile_nets(names=["enet"]).to_json())
    assert content["format_version"] == 1
    assert [net["dims"] for net in content["nets"]] == [2, 3]
    assert {"parameters", "gflops", "receptive_field", "output_stride", "memory_mb"} <= content["nets"][0].keys()


def test_all_backbones_of_a_net_are_listed_on_request():
    found = profile_nets(names=["icnet"], backbone="all", width=0.125).rows
    assert [row.backbone for row in found[::2]] == ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


def test_a_net_that_needs_numbers_to_be_built_ends_on_the_meta_device_too():
    net = build_on_meta("monai_swinunetr", dims=2, width=0.5)
    assert all(p.is_meta for p in net.parameters())


@pytest.mark.parametrize("size", [(256, 8), (255, 250), (8, 256)])
def test_strides_come_from_the_longest_axis_where_sizes_are_rounded_up(size):
    row = rows("bisenetv2", size_2d=size, width=0.125)[0]
    assert (row.output_stride, row.coarsest_stride) == (8, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ["unett"]}, "'unett' is not known"),
        ({"names": ["fcn"], "backbone": "resnet5"}, "backbone is 'resnet5'"),
        ({"size_2d": (3,)}, "size_2d"),
        ({"size_3d": (8, 8, 0)}, "size_3d"),
    ],
)
def test_unknown_names_and_sizes_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        profile_nets(**options)


@pytest.mark.slow
def test_every_net_has_a_row_in_2d_and_3d():
    table = profile_nets()
    assert [row.name for row in table.rows] == [name for name in NETS for _ in (2, 3)]
    assert all(row.gflops > 0 and row.memory_mb > 0 for row in table.rows)
