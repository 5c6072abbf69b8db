"""Every network trains from a configuration and predicts through its bundle; thick slices, weights, public files."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from torch import nn

import medseg
from medseg.config import NetConfig, RunConfig
from medseg.errors import CheckpointError, ConfigError
from medseg.labels import LabelScheme
from medseg.losses import DeepSupervision, build_loss
from medseg.nets import NETS, build_net
from medseg.preparation.plan import Plan
from medseg.training.init_weights import initialise
from medseg.training.net import auxiliary_weights, net_info_for
from medseg.training.precision import precision_for

REPRESENTATIVE = ("deeplabv3plus", "bisenetv2")
SLOW_TO_BUILD = {"monai_swinunetr": 0.5}


class TwoHeads(nn.Module):
    auxiliary_weights = (0.25,)


def flat_only(*, dims, in_channels, out_channels):
    if dims != 2:
        raise ConfigError("flat_only has a 2D form only; set net.dims to 2")
    return nn.Conv2d(in_channels, out_channels, 1)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three 16 x 20 x 12 volumes with a bright box, and `config.yaml` for two iterations on them."""
    rng = np.random.default_rng(3)
    for n in range(3):
        labels = np.zeros((16, 20, 12), np.uint8)
        labels[4:11, 5 + n : 13 + n, 3:9] = 1
        image = (labels * 100 + rng.normal(0, 20, labels.shape)).astype(np.float32)
        for folder, array in (("images", image), ("labels", labels)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "data" / folder / f"case{n}.nii.gz")
    config = {
        "output": str(tmp_path / "run"),
        "data": {
            "root": str(tmp_path / "data"),
            "labels": {"box": 1},
            "modality": "MR",
            "split": {"every": 3, "start": 2},
        },
        "prediction": {"mirror": False},
        "training": {"max_iterations": 2, "batch_size": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in REPRESENTATIVE else pytest.mark.slow) for n in sorted(NETS)]
)
def test_every_net_trains_and_predicts_through_its_bundle(small: Path, name: str, dims: int) -> None:
    overrides = {"net.name": name, "net.dims": dims, "net.width": SLOW_TO_BUILD.get(name, 0.125)}
    run = medseg.train(small / "config.yaml", overrides=overrides)
    image = medseg.read(small / "data" / "images" / "case2.nii.gz")
    found = medseg.load_model(run.bundle, device="cpu").predict(image)
    assert found.same_geometry(image)
    assert set(found.array.ravel().tolist()) <= {0, 1}


def test_the_issues_own_call_trains(small: Path) -> None:
    overrides = {"net.name": "deeplabv3plus", "net.backbone": "resnet50", "net.dims": 3, "net.width": 0.125}
    overrides |= {"net.norm": "batch", "net.options": {"checkpoint": True}}
    run = medseg.train(small / "config.yaml", overrides=overrides)
    net = medseg.load_model(run.bundle, device="cpu").nets[0]
    assert any(isinstance(m, nn.BatchNorm3d) for m in net.modules())


def info_for(net: dict, spacing: tuple[float, ...], on_gpu: bool = False):
    plan = Plan(
        dims=3,
        orientation="RAS",
        spacing_mm=spacing,
        patch_size=(64, 64, 16),
        batch_size=2,
        in_channels=1,
        normalization=[{"kind": "zscore"}],
        channels=(8, 16, 32),
        strides=((1, 1, 1), (2, 2, 1), (2, 2, 2)),
    )
    config = RunConfig(data={"root": "x"}, net=NetConfig(**net))
    return net_info_for(config, plan, LabelScheme.from_mapping({"a": 1}), on_gpu)


def test_thick_slices_lower_the_stride_along_their_axis() -> None:
    thick = (0.8, 0.8, 5.0)
    assert info_for({"name": "deeplabv3plus"}, thick).options == {"axis_strides": (16, 16, 4)}
    assert info_for({"name": "fcn8s"}, thick).options == {"axis_strides": (32, 32, 8)}
    assert info_for({"name": "deeplabv3plus"}, (1.0, 1.0, 1.0)).options == {}
    assert info_for({"name": "deeplabv3plus", "options": {"output_stride": 8}}, thick).options == {
        "output_stride": 8,
        "axis_strides": (8, 8, 2),
    }
    own = {"axis_strides": (16, 16, 8)}
    assert info_for({"name": "deeplabv3plus", "options": own}, thick).options == own
    assert info_for({"name": "enet"}, thick).options == {}
    for name in ("unet", "unet_residual", "monai_dynunet"):
        options = info_for({"name": name}, thick).options
        assert options == {"channels": (8, 16, 32), "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}


def test_widths_by_default_are_a_quarter_where_a_3d_encoder_is_too_much() -> None:
    even = (1.0, 1.0, 1.0)
    assert info_for({"name": "deeplabv3"}, even).width == 0.25
    assert info_for({"name": "deeplabv3"}, even, on_gpu=True).width == 1.0
    assert info_for({"name": "fcn8s"}, even, on_gpu=True).width == 0.25
    assert info_for({"name": "enet"}, even).width == info_for({"name": "unet"}, even).width == 1.0
    assert info_for({"name": "fcn8s", "width": 0.5}, even).width == 0.5


def test_auxiliary_logits_weigh_what_the_papers_say() -> None:
    image = torch.randn(2, 1, 40, 40)
    labels = torch.randint(0, 2, (2, 1, 40, 40))
    papers = {"fcn": (0.5,), "deeplabv3": (0.5,), "icnet": (0.4, 0.16), "bisenetv1": (1, 1), "bisenetv2": (1, 1, 1, 1)}
    for name, weights in papers.items():
        options = {"auxiliary": True} if name in ("fcn", "deeplabv3") else {}
        net = build_net(name, dims=2, in_channels=1, out_channels=2, width=0.125, **options)
        loss = build_loss("cross_entropy", auxiliary_weights=auxiliary_weights(net))
        assert torch.isfinite(loss(net(image), labels))
        assert auxiliary_weights(net) == weights
    assert auxiliary_weights(nn.Identity()) is None
    assert auxiliary_weights(TwoHeads()) == (0.25,)


def test_the_weighted_loss_is_the_mean_with_those_weights() -> None:
    class Mean(nn.Module):
        def forward(self, logits, labels):
            return logits.mean()

    heads = (torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 5.0))
    labels = torch.zeros(1, 1, 2, 2)
    assert DeepSupervision(Mean(), (0.4, 0.16))(heads, labels).item() == pytest.approx((1 + 1.2 + 0.8) / 1.56)
    assert DeepSupervision(Mean())(heads, labels).item() == pytest.approx((1 + 1.5 + 1.25) / 1.75)
    assert DeepSupervision(Mean(), (0.4, 0.16))(heads[0], labels).item() == 1.0
    with pytest.raises(ConfigError, match=r"auxiliary_weights is \[0.4\], but the net has 2 auxiliary heads"):
        DeepSupervision(Mean(), (0.4,))(heads, labels)


def test_public_weights_start_a_3d_training_and_the_report_is_logged(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    donor = build_net("deeplabv3", dims=2, in_channels=3, out_channels=21, backbone="resnet18", width=0.125)
    torch.save(donor.state_dict(), small / "public.pth")
    overrides = {"net.name": "deeplabv3", "net.dims": 3, "net.backbone": "resnet18", "net.width": 0.125}
    with caplog.at_level(logging.INFO, "medseg"):
        medseg.train(small / "config.yaml", overrides=overrides | {"training.init": str(small / "public.pth")})
    assert "81 of the network's 83 weights and statistics come from" in caplog.text
    assert "The images have 1 channel instead of 3, so the filters for red, green and blue were added up" in caplog.text
    assert "2D kernels became 3D, with their values in their middle slice: backbone.conv1.weight" in caplog.text


def test_weights_that_are_absent_or_fit_nowhere_are_refused(tmp_path: Path) -> None:
    net = build_net("enet", dims=2, in_channels=1, out_channels=2, width=0.125)
    with pytest.raises(CheckpointError, match=r"training\.init: .*does not exist"):
        initialise(net, tmp_path / "absent.pth")
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"training\.init: .*no weight fits"):
        initialise(net, tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"name": f"{__name__}:flat_only", "dims": 3}, "2D form only"),
        ({"name": "enet", "channels": (8, 16)}, "net.channels is for unet, unet_residual, monai_dynunet"),
        ({"name": "monai_attentionunet", "norm": "batch"}, "has no option 'norm'"),
        ({"name": "deeplabv3", "residual": True}, "has no option 'residual'"),
        ({"name": "deeplabv3", "backbone": "resnet5"}, "did you mean 'resnet50'"),
    ],
)
def test_what_a_net_has_not_is_refused_before_any_data_is_read(net: dict, message: str) -> None:
    config = RunConfig(data={"root": "does/not/exist"}, output=Path("never"), net=net)
    with pytest.raises(ConfigError, match=message):
        medseg.train(config)


def test_a_net_of_one_form_waits_for_the_data_where_dims_are_not_given(tmp_path: Path) -> None:
    config = RunConfig(data={"root": tmp_path / "none"}, output=tmp_path, net={"name": f"{__name__}:flat_only"})
    with pytest.raises(medseg.MedsegError, match="none"):
        medseg.train(config)


def plan_of(patch_size, channels=1):
    return Plan(
        dims=3,
        orientation="RAS",
        spacing_mm=None,
        patch_size=patch_size,
        batch_size=2,
        in_channels=channels,
        normalization=[{"kind": "zscore"}] * channels,
        channels=(8,),
        strides=((1, 1, 1),),
    )


@pytest.fixture
def bfloat16_cpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A CPU that computes bfloat16 fast, as far as the choice of the precision knows."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    return torch.device("cpu")


def test_maps_of_a_few_voxels_keep_a_cpu_in_float32(bfloat16_cpu) -> None:
    # There, weight gradients of bfloat16 convolutions are partly unwritten memory (oneDNN of torch 2.13).
    net = build_net("deeplabv3plus", dims=3, in_channels=1, out_channels=2, width=0.125)
    assert precision_for(net, plan_of((16, 16, 16)), bfloat16_cpu) is None
    assert precision_for(net, plan_of((64, 64, 64)), bfloat16_cpu) == torch.bfloat16


def test_thick_slices_along_the_first_axis_keep_a_cpu_in_float32(bfloat16_cpu) -> None:
    net = nn.Conv3d(1, 2, 3, padding=1)
    assert precision_for(net, plan_of((2, 32, 32)), bfloat16_cpu) is None
    assert precision_for(net, plan_of((32, 32, 2)), bfloat16_cpu) == torch.bfloat16


def test_a_cpu_without_bfloat16_trains_in_float32(monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert precision_for(nn.Conv3d(1, 2, 3, padding=1), plan_of((32, 32, 32)), torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("kernel", "size"),
    [((3, 3, 3), s) for s in ((3, 8, 8), (8, 8, 2), (8, 8, 8))]
    + [((5, 1, 1), (8, 2, 8)), ((1, 5, 1), (2, 8, 8)), ((1, 1, 5), (2, 8, 8)), ((1, 1, 5), (8, 8, 2))],
)
def test_where_bfloat16_is_chosen_weight_gradients_are_right(kernel, size, bfloat16_cpu) -> None:
    conv = nn.Conv3d(32, 32, kernel, padding=tuple(k // 2 for k in kernel), bias=False)
    conv = conv.to(memory_format=torch.channels_last_3d)
    assert precision_for(conv, plan_of(size, 32), bfloat16_cpu) == torch.bfloat16
    x = torch.randn(2, 32, *size).contiguous(memory_format=torch.channels_last_3d)
    grads = {}
    for dtype in (torch.bfloat16, torch.float32):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = conv(x)
        (grads[dtype],) = torch.autograd.grad(out.float().square().sum(), conv.weight)
    error = (grads[torch.bfloat16] - grads[torch.float32]).abs().max() / grads[torch.float32].abs().max()
    assert error < 0.05
