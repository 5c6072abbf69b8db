from __future__ import annotations

import argparse
import gzip
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision_layouts import published_layouts
from torchvision_oracle import torchvision_models

from medseg.errors import CheckpointError, ConfigError
from medseg.nets import BACKBONES, build_backbone, build_net, load_pretrained

KEYS = Path(__file__).resolve().parents[3] / "shared" / "torchvision_keys.json.gz"
HEADS = ("fc.", "classifier.")
RESNET18 = {"backbone": "resnet18", "width": 0.125, "norm": "batch"}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def published() -> dict[str, dict[str, list[int]]]:
    return published_layouts()


def test_the_layouts_are_those_of_the_published_files():
    if not KEYS.is_file():
        pytest.skip("torchvision's keys are not here (expected beside the project in shared/torchvision_keys.json.gz)")
    stored = json.loads(gzip.decompress(KEYS.read_bytes()))
    for name, layout in published_layouts().items():
        assert list(layout.items()) == list(stored[name].items()), name


def as_published(shapes, only=lambda key: True):
    state = {}
    for key, shape in shapes.items():
        kind = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        state[key] = torch.rand(shape).to(kind) if only(key) else torch.zeros(shape, dtype=kind)
    return state


def shake(net: nn.Module) -> nn.Module:
    """Norms with statistics and factors of their own, as training leaves them."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def replicate(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.padding_mode = "replicate"
    return net


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "mobilenet_v3_small", "mobilenet_v3_large"]
)
def test_published_encoders_load_whole_and_only_their_classifier_is_dropped(published, name):
    state = as_published(published[name])
    net = build_backbone(name, dims=2, in_channels=3, norm="none" if name == "vgg16" else "batch")
    report = load_pretrained(net, state)
    assert (report.missing, report.adapted) == ([], [])
    assert report.dropped == [key for key in state if key.startswith(HEADS)]
    assert len(report.loaded) + len(report.dropped) == len(state)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn_resnet50", {}),
        ("deeplabv3_resnet50", {}),
        ("deeplabv3_mobilenet_v3_large", {"output_stride": 16}),
        pytest.param("fcn_resnet101", {}, marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet101", {}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("auxiliary", [False, True])
def test_published_segmenters_load_whole(published, name, options, auxiliary):
    state = as_published(published[name])
    kind, backbone = name.split("_", 1)
    net = build_net(
        kind, dims=2, in_channels=3, out_channels=21, backbone=backbone, norm="batch", auxiliary=auxiliary, **options
    )
    report = load_pretrained(net, state)
    assert (report.missing, report.adapted) == ([], [])
    assert report.dropped == [key for key in state if key.startswith("aux_classifier.") and not auxiliary]
    assert torch.equal(net.classifier[4].weight, state["classifier.4.weight"])


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "mobilenet_v3_large"])
def test_an_encoder_goes_into_a_segmenter_whose_head_stays_as_it_was(published, name):
    state = as_published(published[name])
    norm = "none" if name == "vgg16" else "batch"
    net = build_net("deeplabv3plus", dims=2, in_channels=3, out_channels=2, backbone=name, norm=norm)
    before = net.decoder.last_conv[0].weight.clone()
    report = load_pretrained(net, state)
    assert report.dropped == [key for key in state if key.startswith(HEADS)]
    assert all(key.startswith(("aspp.", "decoder.")) for key in report.missing)
    assert set(report.loaded) == {key for key in net.state_dict() if key.startswith("backbone.")}
    assert torch.equal(net.decoder.last_conv[0].weight, before)


def test_vgg_weights_fill_fcn_and_the_fully_connected_layers_become_convolutions():
    torch.manual_seed(0)
    net = build_net("fcn8s", dims=2, in_channels=3, out_channels=2, width=0.125, norm="none")
    encoder = build_backbone("vgg16", dims=2, in_channels=3, width=0.125, norm="none")
    linear = nn.Linear(64 * 49, 512)
    state = {**encoder.state_dict(), "classifier.0.weight": linear.weight, "classifier.0.bias": linear.bias}
    report = load_pretrained(net, {**state, "classifier.3.weight": torch.eye(512), "classifier.6.bias": torch.ones(9)})
    assert report.adapted == ["fc6.weight", "fc7.weight"]
    assert report.dropped == ["classifier.6.bias"]
    patch = torch.randn(1, 64, 7, 7)
    torch.testing.assert_close(net.fc6(patch)[0, :, 3, 3], linear(patch.flatten(1))[0], rtol=1e-4, atol=1e-5)


def test_names_of_the_papers_own_models_are_understood():
    fcn = build_net("fcn32s", dims=2, in_channels=3, out_channels=2, width=0.125, norm="none")
    report = load_pretrained(fcn, {"conv3_3.weight": torch.ones(32, 32, 3, 3), "conv1_1.bias": torch.ones(8)})
    assert report.loaded == ["backbone.features.14.weight", "backbone.features.0.bias"]

    v2 = build_net("deeplabv2", dims=2, in_channels=3, out_channels=2, backbone="resnet50", width=0.125, norm="batch")
    state = {
        "layer1.conv1.bn.weight": torch.ones(8),
        "layer3.block2.increase.conv.weight": torch.ones(64, 16, 1, 1),
        "layer5.block1.shortcut.bn.running_mean": torch.ones(256),
        "aspp.c3.bias": torch.ones(2),
    }
    assert load_pretrained(v2, state).loaded == [
        "backbone.bn1.weight",
        "backbone.layer2.1.conv3.weight",
        "backbone.layer4.0.downsample.1.running_mean",
        "aspp.c3.bias",
    ]

    plus = build_net("deeplabv3plus", dims=2, in_channels=3, out_channels=2, **RESNET18)
    state = {
        "aspp.aspp1.atrous_conv.weight": torch.ones(32, 64, 1, 1),
        "aspp.aspp3.bn.bias": torch.ones(32),
        "aspp.global_avg_pool.1.weight": torch.ones(32, 64, 1, 1),
        "aspp.bn1.weight": torch.ones(32),
        "decoder.last_conv.8.bias": torch.ones(2),
    }
    assert load_pretrained(plus, state).loaded == [
        "aspp.convs.0.0.weight",
        "aspp.convs.2.1.bias",
        "aspp.convs.4.1.weight",
        "aspp.project.1.weight",
        "decoder.last_conv.8.bias",
    ]


@pytest.mark.parametrize("dims", [2, 3])
def test_rgb_weights_on_one_channel_equal_the_grey_image_in_all_three(dims):
    torch.manual_seed(0)
    rgb = shake(build_net("deeplabv3", dims=dims, in_channels=3, out_channels=2, **RESNET18))
    grey = build_net("deeplabv3", dims=dims, in_channels=1, out_channels=2, **RESNET18).eval()
    report = load_pretrained(grey, rgb.state_dict())
    assert report.adapted == ["backbone.conv1.weight"]
    assert report.how == {"backbone.conv1.weight": "3 channels to 1"}
    assert (report.missing, report.dropped) == ([], [])
    image = torch.randn(1, 1, *(33, 40, 20)[:dims])
    with torch.no_grad():
        torch.testing.assert_close(grey(image), rgb(torch.cat([image] * 3, 1)), rtol=1e-4, atol=1e-4)


def test_four_channels_get_the_mean_times_three_quarters():
    net = build_backbone("resnet18", dims=2, in_channels=4, width=0.125)
    kernel = torch.randn(8, 3, 7, 7)
    load_pretrained(net, {"conv1.weight": kernel})
    torch.testing.assert_close(net.conv1.weight.data, kernel.mean(1, keepdim=True).expand(8, 4, 7, 7) * 0.75)


def test_another_number_of_classes_leaves_the_last_layers_new():
    torch.manual_seed(0)
    source = build_net("deeplabv3", dims=2, in_channels=1, out_channels=21, auxiliary=True, **RESNET18)
    net = build_net("deeplabv3", dims=2, in_channels=1, out_channels=3, auxiliary=True, **RESNET18)
    before = net.classifier[4].weight.clone()
    report = load_pretrained(net, source.state_dict())
    last = ["classifier.4.weight", "classifier.4.bias", "aux_classifier.4.weight", "aux_classifier.4.bias"]
    assert report.adapted == report.dropped == last
    assert report.how["classifier.4.weight"] == "new, 21 classes to 3"
    assert report.missing == []
    assert torch.equal(net.classifier[4].weight, before)


def test_fcn8s_starts_from_fcn16s():
    coarse = build_net("fcn16s", dims=2, in_channels=1, out_channels=2, width=0.125)
    fine = build_net("fcn8s", dims=2, in_channels=1, out_channels=2, width=0.125)
    report = load_pretrained(fine, coarse.state_dict())
    assert report.dropped == ["upscore16.weight"]
    assert report.missing == ["score_pool3.weight", "score_pool3.bias", "upscore_pool4.weight", "upscore8.weight"]


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_centre_gives_every_slice_the_2d_features_of_one_kernel(kernel):
    torch.manual_seed(0)
    flat = nn.Conv2d(3, 4, kernel, padding=kernel // 2)
    deep = nn.Conv3d(3, 4, kernel, padding=kernel // 2)
    report = load_pretrained(deep, flat.state_dict())
    assert report.how == {"weight": "inflated by centre"}
    volume = torch.randn(1, 3, 9, 10, 5)
    with torch.no_grad():
        found = deep(volume)
        for k in range(5):
            torch.testing.assert_close(found[..., k], flat(volume[..., k]), rtol=1e-5, atol=1e-5)


def test_mean_gives_a_constant_volume_the_2d_features_away_from_its_ends():
    torch.manual_seed(0)
    flat, deep = nn.Conv2d(3, 4, 3, padding=1), nn.Conv3d(3, 4, 3, padding=1)
    load_pretrained(deep, flat.state_dict(), inflate="mean")
    image = torch.randn(1, 3, 9, 10)
    with torch.no_grad():
        found, wanted = deep(image[..., None].expand(-1, -1, -1, -1, 5)), flat(image)
    for k in (1, 2, 3):
        torch.testing.assert_close(found[..., k], wanted, rtol=1e-5, atol=1e-5)
    assert (found[..., 0] - wanted).abs().max() > 0.01  # zeros beyond the first slice


INFLATED = [
    ("deeplabv2", {"backbone": "resnet18"}),
    ("deeplabv2", {"backbone": "xception"}),
    ("deeplabv1", {}),
    ("fcn", {"backbone": "resnet18"}),
    ("fcn", {"backbone": "resnet50"}),
]


@pytest.mark.parametrize(("name", "options"), INFLATED)
def test_centre_without_strides_along_k_gives_the_2d_logits_on_every_slice(name, options):
    torch.manual_seed(0)
    options = {"out_channels": 2, "width": 0.125, "norm": "batch", **options}
    flat = shake(build_net(name, dims=2, in_channels=3, **options))
    deep = build_net(name, dims=3, in_channels=3, axis_strides=(8, 8, 1), **options).eval()
    report = load_pretrained(deep, flat.state_dict())
    assert (report.missing, report.dropped) == ([], [])
    volume = torch.randn(1, 3, 33, 40, 3)
    with torch.no_grad():
        found = deep(volume)
        wanted = torch.stack([flat(volume[..., k]) for k in range(3)], -1)
    assert (found - wanted).abs().max() < 1e-4 * max(1.0, wanted.abs().max().item())


@pytest.mark.parametrize(
    ("name", "options"),
    [*INFLATED, ("deeplabv3", {"backbone": "resnet18"}), ("deeplabv3plus", {"backbone": "resnet18"})],
)
def test_mean_with_replicated_borders_gives_a_constant_volume_the_2d_logits(name, options):
    torch.manual_seed(0)
    options = {"out_channels": 2, "width": 0.125, "norm": "batch", **options}
    flat = replicate(shake(build_net(name, dims=2, in_channels=3, **options)))
    deep = replicate(build_net(name, dims=3, in_channels=3, **options).eval())
    load_pretrained(deep, flat.state_dict(), inflate="mean")
    image = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        wanted = flat(image)
        found = deep(image[..., None].expand(-1, -1, -1, -1, 9))
    assert (found - wanted[..., None]).abs().max() < 1e-4 * max(1.0, wanted.abs().max().item())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_files_are_read(tmp_path, suffix):
    source = build_backbone("resnet18", dims=2, in_channels=1, width=0.125)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(source.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    net = build_backbone("resnet18", dims=2, in_channels=1, width=0.125)
    report = load_pretrained(net, path)
    assert (report.missing, report.dropped, report.adapted) == ([], [], [])
    assert str(report) == f"{len(report.loaded)} loaded, 0 adapted, 0 dropped, 0 missing"
    assert torch.equal(net.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_one_readable_error(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    source = build_backbone("resnet18", dims=2, in_channels=1, width=0.125).state_dict()
    if suffix == ".pth":
        torch.save(source, path)
    else:
        from safetensors.torch import save_file

        save_file(source, path)
    net = build_backbone("resnet18", dims=2, in_channels=1, width=0.125)
    whole = path.read_bytes()
    for content in (b"", b"no weights", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
            load_pretrained(net, path)
        assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": math.sqrt, "net": nn.Linear(1, 1)}, path)
    with pytest.raises(CheckpointError, match="more than weights"):
        load_pretrained(nn.Conv2d(1, 1, 1), path)


def test_what_is_no_weights_or_fits_nowhere_is_refused(tmp_path):
    net = build_backbone("resnet18", dims=2, in_channels=1, width=0.125)
    with pytest.raises(CheckpointError, match="no such file"):
        load_pretrained(net, tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="contains no weights"):
        load_pretrained(net, {"epoch": 3})
    with pytest.raises(CheckpointError, match=r"no weight fits this ResNet; it holds a\.weight"):
        load_pretrained(net, {"a.weight": torch.ones(3)})
    with pytest.raises(ConfigError, match="inflate is 'median'; choose one of centre, mean"):
        load_pretrained(net, {"conv1.weight": torch.ones(8, 1, 7, 7)}, inflate="median")


def test_a_file_of_torchvisions_training_script_is_read_for_its_model(tmp_path):
    net = build_backbone("resnet18", dims=2, in_channels=3, width=0.125, norm="batch")
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    script = {
        "model": state,
        "optimizer": {"state": {}},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.01, device="cuda"),
    }
    torch.save(script, tmp_path / "model_3.pth")
    report = load_pretrained(
        build_backbone("resnet18", dims=2, in_channels=3, width=0.125, norm="batch"), tmp_path / "model_3.pth"
    )
    assert (report.missing, report.dropped, len(report.loaded)) == ([], [], len(state))


def test_statistics_of_batches_have_no_place_in_an_instance_norm():
    source = build_backbone("resnet18", dims=2, in_channels=1, width=0.125, norm="batch").state_dict()
    net = build_backbone("resnet18", dims=2, in_channels=1, width=0.125)
    report = load_pretrained(net, source)
    assert report.missing == []
    assert {key.rsplit(".", 1)[1] for key in report.dropped} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"xception"}))
def test_features_of_random_weights_equal_torchvisions(name):
    models = torchvision_models()
    torch.manual_seed(0)
    reference = shake(getattr(models, name)())
    net = build_backbone(name, dims=2, in_channels=3, norm="none" if name == "vgg16" else "batch").eval()
    assert load_pretrained(net, reference.state_dict()).missing == []
    image = torch.randn(1, 3, 64, 97 if name != "vgg16" else 96)  # torchvision's VGG drops odd rows
    with torch.no_grad():
        if hasattr(reference, "features"):
            wanted = reference.features(image)
        else:
            wanted = image
            for layer in list(reference.children())[:-2]:
                wanted = layer(wanted)
        found = net(image)[-1]
    assert (found - wanted).abs().max() <= 1e-4 * max(1.0, wanted.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn_resnet50", {}),
        ("deeplabv3_resnet50", {}),
        ("deeplabv3_mobilenet_v3_large", {"output_stride": 16, "rates": (12, 24, 36)}),
    ],
)
def test_logits_of_random_weights_equal_torchvisions(name, options):
    models = torchvision_models()
    torch.manual_seed(0)
    build = getattr(models.segmentation, name)
    reference = shake(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    kind, backbone = name.split("_", 1)
    net = build_net(kind, dims=2, in_channels=3, out_channels=21, backbone=backbone, norm="batch", **options).eval()
    assert load_pretrained(net, reference.state_dict()).missing == []
    for size in ((65, 97), (64, 50)):
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(net(image), reference(image)["out"], rtol=1e-4, atol=1e-4)
