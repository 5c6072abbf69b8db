"""What every network must do; a new network adds one line to CASES."""

from __future__ import annotations

import pytest
import torch

from medseg.nets import build_net

CASES = [
    ("unet", 2, {"channels": (4, 6, 8), "norm": "instance"}),
    ("unet", 2, {"channels": (4, 6, 8), "norm": "batch", "residual": True}),
    ("unet", 2, {"channels": (4, 6, 8), "norm": "none", "activation": "relu", "dropout": 0.2}),
    ("unet", 3, {"channels": (4, 6, 8), "norm": "instance"}),
    ("unet", 3, {"channels": (4, 6, 8), "norm": "group", "residual": True}),
    ("unet", 3, {"channels": (4, 6, 8, 8), "norm": "instance", "deep_supervision": True}),
    ("unet", 3, {"channels": (4, 6, 8), "norm": "batch", "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}),
    ("unet", 2, {"channels": (32, 64, 128), "norm": "instance", "width": 0.125}),
]
SIZES = {2: [(17, 23), (16, 16), (5, 40)], 3: [(9, 11, 13), (8, 8, 8), (3, 17, 6)]}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize(("name", "dims", "options"), CASES)
def test_any_size_gives_logits_of_that_size_and_finite_gradients(name, dims, options, in_channels):
    torch.manual_seed(0)
    net = build_net(name, dims=dims, in_channels=in_channels, out_channels=3, **options)
    for size in SIZES[dims]:
        image = torch.randn(2, in_channels, *size, requires_grad=True)
        net.train()
        out = net(image)
        outputs = out if isinstance(out, tuple) else (out,)
        assert outputs[0].shape == (2, 3, *size)
        assert isinstance(out, tuple) == bool(options.get("deep_supervision"))
        sum(o.square().mean() for o in outputs).backward()
        for key, parameter in net.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
        assert torch.isfinite(image.grad).all()
        net.zero_grad()
        net.eval()
        with torch.no_grad():
            logits = net(image)
        assert isinstance(logits, torch.Tensor)
        assert logits.shape == (2, 3, *size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "dims", "options"), CASES)
def test_one_voxel_in_every_axis_is_still_an_image(name, dims, options):
    if options["norm"] == "batch":
        pytest.skip("batch statistics of one voxel do not exist while training")
    net = build_net(name, dims=dims, in_channels=1, out_channels=2, **options)
    out = net(torch.randn(1, 1, *[1] * dims))
    logits = out[0] if isinstance(out, tuple) else out
    assert logits.shape == (1, 2, *[1] * dims)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "dims", "options"), CASES)
def test_weights_saved_from_one_net_give_the_same_logits_in_another(name, dims, options):
    image = torch.randn(1, 1, *SIZES[dims][0])
    first = build_net(name, dims=dims, in_channels=1, out_channels=2, **options).eval()
    second = build_net(name, dims=dims, in_channels=1, out_channels=2, **options).eval()
    state = first.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    second.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))


@pytest.mark.parametrize(("name", "dims", "options"), CASES)
def test_the_image_is_not_changed_and_its_memory_layout_does_not_matter(name, dims, options):
    net = build_net(name, dims=dims, in_channels=3, out_channels=2, **options).eval()
    image = torch.randn(2, 3, *SIZES[dims][1])
    kept = image.clone()
    other = image.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
    with torch.no_grad():
        torch.testing.assert_close(net(image), net(other), rtol=1e-4, atol=1e-6)
    assert torch.equal(image, kept)
