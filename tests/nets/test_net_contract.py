"""What every network must do: every one of the catalogue in 2D and 3D, and the forms that are listed in FORMS."""

from __future__ import annotations

import inspect

import pytest
import torch
from net_contract import (
    EXPORT_SIZES,
    allowed,
    any_size_gives_finite_logits_and_gradients,
    equals_but_for_rounding,
    exported_equals,
    layout_in_memory_does_not_matter,
    moved,
    overfitted,
    real_case,
)
from torch import nn

from medseg.errors import ConfigError
from medseg.nets import NETS, build_net

# Forms beyond those that every network has by default: norms, strides per axis, residual blocks, auxiliary heads.
FORMS = [
    ("unet", 2, {"channels": (4, 6, 8), "norm": "instance"}),
    ("unet", 2, {"channels": (4, 6, 8), "norm": "batch", "residual": True}),
    ("unet", 2, {"channels": (4, 6, 8), "norm": "none", "activation": "relu", "dropout": 0.2}),
    ("unet", 3, {"channels": (4, 6, 8), "norm": "instance"}),
    ("unet", 3, {"channels": (4, 6, 8), "norm": "group", "residual": True}),
    ("unet", 3, {"channels": (4, 6, 8, 8), "norm": "instance", "deep_supervision": True}),
    ("unet", 3, {"channels": (4, 6, 8), "norm": "batch", "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}),
    ("unet", 2, {"channels": (32, 64, 128), "norm": "instance", "width": 0.125}),
    ("unet_residual", 2, {"channels": (4, 6, 8), "norm": "instance"}),
    ("unet_residual", 2, {"channels": (4, 6, 8), "norm": "batch", "checkpoint": True}),
    ("unet_residual", 2, {"channels": (4, 6, 8), "norm": "group"}),
    ("unet_residual", 3, {"channels": (4, 6, 8), "norm": "none"}),
    ("unet_residual", 3, {"channels": (4, 6, 8), "norm": "batch", "strides": ((1, 1, 1), (2, 2, 1), (3, 2, 2))}),
    ("nnunet_plain", 2, {"channels": (4, 6, 8), "norm": "batch", "activation": "relu", "conv_bias": False}),
    ("nnunet_plain", 3, {"channels": (4, 6, 8, 8), "norm": "instance", "deep_supervision": True}),
    ("nnunet_plain", 3, {"channels": (4, 6), "norm": "none", "strides": ((1, 1, 1), (1, 2, 2)), "convs": (1, 3)}),
    ("nnunet_plain", 3, {"channels": (4, 6), "norm": "group", "kernels": ((1, 3, 3), (3, 3, 5))}),
    ("nnunet_resenc", 2, {"channels": (4, 6, 8), "norm": "instance", "deep_supervision": True}),
    ("nnunet_resenc", 2, {"channels": (4, 6), "norm": "batch", "bottleneck": (2, 3), "stem_channels": 5}),
    ("nnunet_resenc", 3, {"channels": (4, 6, 8), "norm": "none", "strides": ((1, 1, 1), (1, 2, 2), (2, 4, 2))}),
    ("nnunet_resenc", 3, {"channels": (4, 4), "norm": "batch", "blocks": (2, 1), "kernels": ((1, 3, 3), (3, 3, 3))}),
    *(
        (name, dims, {"norm": norm, "width": 0.125})
        for name in ("enet", "icnet", "bisenetv1", "bisenetv2", "linknet")
        for dims, norm in ((2, "instance"), (2, "batch"), (2, "group"), (2, "none"), (3, "instance"), (3, "batch"))
    ),
    ("monai_dynunet", 2, {"channels": (32, 64, 128), "width": 0.125}),
    ("monai_dynunet", 2, {"channels": (32, 64, 128), "width": 0.125, "norm": "batch", "residual": True}),
    ("monai_dynunet", 3, {"channels": (32, 64, 128), "width": 0.125, "norm": "group"}),
    ("monai_dynunet", 3, {"channels": (4, 6, 8), "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}),
    ("monai_segresnet", 2, {"width": 0.25}),
    ("monai_segresnet", 3, {"width": 0.25, "norm": "instance"}),
    ("monai_swinunetr", 2, {"width": 0.5}),
    ("monai_attentionunet", 2, {"width": 0.125}),
    ("monai_attentionunet", 3, {"width": 0.125, "channels": (32, 64, 128)}),
]
# Statistics of a single value do not exist while training: of one voxel in a batch norm, and of one channel in a group
# norm of narrow networks. MONAI's networks see more voxels, as their images are padded.
OF_ONE_VOXEL = [
    (name, dims, options)
    for name, dims, options in FORMS
    if name.startswith("monai") or options["norm"] not in ("batch", "group" if name != "unet" else "")
]
SIZES = {2: [(17, 23), (16, 16), (5, 40)], 3: [(9, 11, 13), (8, 8, 8), (3, 17, 6)]}
every_net = pytest.mark.parametrize("name", sorted(NETS))
every_dims = pytest.mark.parametrize("dims", [2, 3])
FIXED = {"dims": 2, "in_channels": 1, "out_channels": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def heads_of(name, net, options):
    """How many auxiliary logits a network gives while training: as many as it has weights for."""
    takes = inspect.signature(NETS[name]).parameters
    if "deep_supervision" in takes:
        return int(options.get("deep_supervision", False))
    wanted = takes["auxiliary"].default if "auxiliary" in takes else True
    return len(getattr(net, "auxiliary_weights", ())) if wanted else 0


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize(("name", "dims", "options"), FORMS)
def test_any_size_gives_logits_of_that_size_and_finite_gradients(name, dims, options, in_channels):
    torch.manual_seed(0)
    net = build_net(name, dims=dims, in_channels=in_channels, out_channels=3, **options)
    any_size_gives_finite_logits_and_gradients(
        net, dims, in_channels, heads=heads_of(name, net, options), sizes=SIZES[dims]
    )


@pytest.mark.parametrize(("name", "dims", "options"), OF_ONE_VOXEL)
def test_one_voxel_in_every_axis_is_still_an_image(name, dims, options):
    net = build_net(name, dims=dims, in_channels=1, out_channels=2, **options)
    out = net(torch.randn(1, 1, *[1] * dims))
    for logits in out if isinstance(out, tuple) else (out,):
        assert logits.shape == (1, 2, *[1] * dims)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "dims", "options"), FORMS)
def test_weights_saved_from_one_net_give_the_same_logits_in_another(name, dims, options):
    image = torch.randn(1, 1, *SIZES[dims][0])
    first = build_net(name, dims=dims, in_channels=1, out_channels=2, **options).eval()
    second = build_net(name, dims=dims, in_channels=1, out_channels=2, **options).eval()
    state = first.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    second.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))


@pytest.mark.parametrize(("name", "dims", "options"), [form for form in FORMS if form[0] == "unet"])
def test_the_image_is_not_changed_and_its_memory_layout_does_not_matter(name, dims, options):
    net = build_net(name, dims=dims, in_channels=3, out_channels=2, **options).eval()
    image = torch.randn(2, 3, *SIZES[dims][1])
    kept = image.clone()
    other = image.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
    with torch.no_grad():
        torch.testing.assert_close(net(image), net(other), rtol=1e-4, atol=1e-6)
    assert torch.equal(image, kept)


@every_net
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 4}, "dims is 4"),
        ({"norm": "layer"}, "norm is 'layer'; choose one of instance"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_dims_norms_and_widths_that_no_network_has_are_refused(name, options, words):
    if set(options) <= set(inspect.signature(NETS[name]).parameters):
        with pytest.raises(ConfigError, match=words) as caught:
            NETS[name](**{**FIXED, **options})
    else:
        with pytest.raises(ConfigError, match="has no option 'norm'") as caught:
            build_net(name, **FIXED, **options)
    assert "\n" not in str(caught.value)


# Odd, and smaller than the strides along an axis.
ALL_SIZES = {2: [(33, 18)], 3: [(17, 9, 6)]}
# Odd, and maps of more than two voxels, over which an instance norm is little more than a sign.
COMPILE_SIZE = {2: (65, 50), 3: (33, 18, 20)}
# Of the map on which the logits are computed (`medseg nets`); fcn8s and its like add finer scores.
STRIDE = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8, "fcn": 8, "deeplabv1": 8, "deeplabv2": 8, "deeplabv3": 8}
STRIDE |= {"deeplabv3plus": 4, "enet": 2, "linknet": 2, "icnet": 8, "bisenetv1": 8, "bisenetv2": 8}


def small(name, dims, in_channels=1, out_channels=3, width=0.125, **options):
    torch.manual_seed(0)
    return build_net(name, dims=dims, in_channels=in_channels, out_channels=out_channels, width=width, **options)


@pytest.mark.parametrize("in_channels", [1, 3])
@every_dims
@every_net
def test_every_net_takes_odd_sizes_and_has_auxiliary_logits_in_training_only(name, dims, in_channels):
    net = small(name, dims, in_channels)
    any_size_gives_finite_logits_and_gradients(
        net, dims, in_channels, heads=heads_of(name, net, {}), sizes=ALL_SIZES[dims]
    )


@every_dims
@every_net
def test_every_net_comes_back_from_its_state_dict_and_takes_any_layout(name, dims):
    first, second = small(name, dims, 3).eval(), small(name, dims, 3).eval()
    with torch.no_grad():
        for value in first.parameters():
            value.add_(0.01)
    second.load_state_dict(first.state_dict())
    image = torch.randn(1, 3, *ALL_SIZES[dims][0])
    with torch.no_grad():
        assert torch.equal(first(image), second(image))
    layout_in_memory_does_not_matter(first, dims, 3, ALL_SIZES[dims][0])


@every_dims
@every_net
def test_every_batch_norm_becomes_a_synchronised_one(name, dims):
    takes = inspect.signature(NETS[name]).parameters
    net = small(name, dims, **({"norm": "batch"} if "norm" in takes else {}))
    count = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    keys = list(net.state_dict())
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert count and sum(isinstance(m, nn.SyncBatchNorm) for m in net.modules()) == count
    assert list(net.state_dict()) == keys


@pytest.mark.parametrize(("dims", "norm"), [(2, "instance"), (3, "instance"), (2, "batch")])
@pytest.mark.parametrize("name", [n for n in sorted(NETS) if "checkpoint" in inspect.signature(NETS[n]).parameters])
def test_saving_memory_changes_neither_logits_nor_gradients_nor_statistics(name, dims, norm):
    image = torch.randn(2, 1, *ALL_SIZES[dims][0])
    found = []
    for checkpoint in (False, True):
        net = small(name, dims, checkpoint=checkpoint, norm=norm).train()
        torch.manual_seed(1)  # dropout
        out = net(image)
        outputs = out if isinstance(out, tuple) else (out,)
        sum(o.square().mean() for o in outputs).backward()
        gradients = (p.grad for p in net.parameters() if p.grad is not None)
        found.append([*(o.detach() for o in outputs), *gradients, *net.buffers()])
    assert len(found[0]) == len(found[1])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@every_dims
@every_net
def test_every_net_at_full_width_gives_finite_logits(name, dims):
    if dims == 3 and name in ("fcn32s", "fcn16s", "fcn8s"):
        pytest.skip("fc6 alone has 719 million weights in 3D at full width")
    net = moved(small(name, dims, width=1.0)).eval()
    with torch.no_grad():
        logits = net(torch.randn(1, 1, *ALL_SIZES[dims][0]))
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def enough_for(name, size):
    # ICNet's coarsest maps are those of a quarter of the image: at 64 x 40 pixels its norms have four voxels, and
    # forty of them in a row make a last digit of the image a twentieth of the logits.
    return tuple(2 * n for n in size) if name == "icnet" else size


@pytest.mark.slow
@every_dims
@every_net
def test_every_net_exports_at_any_batch_and_size(name, dims, tmp_path):
    if name.startswith("monai_"):
        pytest.skip("MONAI's own graphs; what exports of them is tested in test_monai_nets.py")
    exported_equals(moved(small(name, dims)), dims, tmp_path, [enough_for(name, s) for s in EXPORT_SIZES[dims]])


@pytest.mark.slow
@every_dims
@every_net
def test_every_net_compiles(name, dims):
    if name.startswith("monai_"):
        pytest.skip("MONAI's own graphs")
    net = moved(small(name, dims)).eval()
    image = torch.randn(1, 1, *enough_for(name, COMPILE_SIZE[dims]))
    compiled = torch.compile(net, backend="aot_eager")
    with torch.no_grad():
        found = compiled(image)
        equals_but_for_rounding(found, net, image)
        net.double()
        wanted = net(image.double())
        assert (compiled(image.double()) - wanted).abs().max() < 1e-9 * wanted.abs().max()


@pytest.mark.slow
@every_dims
@every_net
def test_every_net_overfits_one_real_case(name, dims, one_data_folder):
    x, truth = real_case(one_data_folder, dims)
    widths = {"enet": 0.5, "monai_swinunetr": 0.5, "linknet": 1.0}
    net = small(name, dims, out_channels=2, width=widths.get(name, 0.25))
    score = overfitted(net, x, truth, steps=200, learning_rate=3e-3)
    wanted = 0.95 * allowed(truth, STRIDE.get(name, 1))
    print(f"{name} {dims}D: Dice {score:.3f}, wanted {wanted:.3f}")  # noqa: T201
    assert score >= wanted
