"""Fine-tuning of public weights: norm, statistics, frozen parts, rates, report, and logits as published."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from published_forward import published_logits
from safetensors.torch import load_file
from torch import nn
from torchvision_layouts import published_layouts
from torchvision_oracle import torchvision_models

import medseg
from medseg.config import RunConfig, TrainingConfig, load_config
from medseg.errors import CheckpointError, ConfigError
from medseg.labels import LabelScheme
from medseg.nets import PretrainedReport, build_net
from medseg.nets.frozen_batch_norm import FrozenBatchNorm
from medseg.nets.pretrained_keys import candidates
from medseg.preparation import load_plan
from medseg.preparation.plan import Plan
from medseg.training.checkpoint import load_checkpoint, save_checkpoint
from medseg.training.fine_tuning import check_parts, freeze, start_from_init
from medseg.training.fold import Fold, Setup
from medseg.training.init_report import sentences
from medseg.training.net import net_info_for
from medseg.training.norm_choice import with_norm
from medseg.training.optimizer import build_optimizer, set_rate

NARROW = {"name": "fcn", "dims": 2, "backbone": "resnet18", "width": 0.125}
# A step this small changes no weight that can be seen.
STILL = {"max_iterations": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "warmup_iterations": 0}
MOBILENET = {"output_stride": 16, "rates": [12, 24, 36]}


def plan_for(batch_size: int = 2, channels: int = 3) -> Plan:
    return Plan(
        dims=2,
        orientation=None,
        spacing_mm=None,
        patch_size=(64, 64),
        batch_size=batch_size,
        in_channels=channels,
        normalization=[{"kind": "zscore"}] * channels,
        channels=(8, 16),
        strides=((1, 1), (2, 2)),
    )


def shaken(net: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a network with statistics of its own, as training leaves them."""
    torch.manual_seed(0)
    return sensible(net.state_dict())


def sensible(shapes: dict[str, torch.Tensor] | dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Random values for which maps neither vanish nor explode."""
    state = {}
    for key, given in shapes.items():
        shape = tuple(given.shape if isinstance(given, torch.Tensor) else given)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(shape)
        elif len(shape) == 4:
            state[key] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        else:
            state[key] = torch.randn(shape) * 0.1 + 0.5 * key.endswith(".weight")
    return state


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """As in a program that has not set up logging, whatever tests before this one did."""
    log = logging.getLogger("medseg")
    before = log.level
    log.setLevel(logging.WARNING)
    yield
    log.setLevel(before)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six 64 x 64 colour pictures with a bright disc, and `config.yaml` for one tiny step on them."""
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64), indexing="ij"))
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(6):
        center = rng.uniform(20, 44, 2)
        disc = np.linalg.norm(grid - center[:, None, None], axis=0) < 12
        picture = np.clip(disc[..., None] * 90 + rng.normal(80, 25, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / "images" / f"case{n}.png")
        Image.fromarray(disc.astype(np.uint8)).save(tmp_path / "data" / "masks" / f"case{n}.png")
    config = {
        "output": str(tmp_path / "run"),
        "data": {"root": str(tmp_path / "data"), "labels": {"disc": 1}, "split": {"every": 3, "start": 2}},
        "net": NARROW,
        "prediction": {"mirror": False},
        "training": {**STILL, "batch_size": 2, "init": str(tmp_path / "public.pth")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    donor = build_net("fcn", dims=2, in_channels=3, out_channels=2, backbone="resnet18", width=0.125, norm="batch")
    torch.save(shaken(donor), tmp_path / "public.pth")
    return tmp_path


def public(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "public.pth", weights_only=True)


def shipped(run: medseg.training.Run) -> dict[str, torch.Tensor]:
    return load_file(run.bundle / "weights_fold0.safetensors")


def test_weights_with_statistics_bring_batch_norm_and_it_is_kept_to_the_bundle(photographs: Path) -> None:
    run = medseg.train(photographs / "config.yaml")
    model = medseg.load_model(run.bundle, device="cpu")
    norms = [module for module in model.nets[0].modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    found, given = shipped(run), public(photographs)
    for name, value in given.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["net"]["norm"] == "batch"
    plan = load_plan(run.folder / "plan.yaml")
    assert [(channel.kind, channel.mean) for channel in plan.normalization] == [
        ("rgb", 0.485),
        ("rgb", 0.456),
        ("rgb", 0.406),
    ]


def test_updated_statistics_follow_the_data_and_prediction_uses_them(photographs: Path) -> None:
    overrides = {"training.max_iterations": 8, "training.batch_statistics": "updated", "training.ema_decay": 0.5}
    run = medseg.train(photographs / "config.yaml", overrides)
    found, given = shipped(run), public(photographs)
    assert (found["backbone.bn1.running_mean"] - given["backbone.bn1.running_mean"]).abs().max() > 0.01
    assert found["backbone.bn1.num_batches_tracked"] == 15
    image = medseg.read(photographs / "data" / "images" / "case2.png")
    net = medseg.load_model(run.bundle, device="cpu").nets[0]
    assert torch.equal(net.get_buffer("backbone.bn1.running_mean"), found["backbone.bn1.running_mean"])
    before = medseg.load_model(run.bundle, device="cpu").predict(image).array
    other = {name: value + 3 if name.endswith("running_mean") else value for name, value in found.items()}
    model = medseg.load_model(run.bundle, device="cpu")
    model.nets[0].load_state_dict(other)
    assert not np.array_equal(model.predict(image).array, before)


@pytest.mark.parametrize(
    ("net", "weights", "norm"),
    [
        ({}, "public.pth", "batch"),
        ({"norm": "instance"}, "public.pth", "instance"),
        ({"norm": None}, "public.pth", None),
        ({"name": "deeplabv3plus"}, "public.pth", "batch"),
        ({"dims": None}, "public.pth", "batch"),
        ({"name": "unet", "backbone": None, "width": None}, "public.pth", None),
        ({"name": "monai_attentionunet", "backbone": None, "width": None}, "public.pth", None),
        ({}, "instance.pth", None),
        ({}, None, None),
    ],
)
def test_auto_is_batch_norm_only_where_statistics_of_the_file_have_a_place(
    tmp_path: Path, net: dict, weights: str | None, norm: str | None
) -> None:
    for name, kind in (("public.pth", "batch"), ("instance.pth", "instance")):
        donor = build_net("fcn", dims=2, in_channels=3, out_channels=2, backbone="resnet18", width=0.125, norm=kind)
        torch.save({f"module.{key}": value for key, value in donor.state_dict().items()}, tmp_path / name)
    init = None if weights is None else tmp_path / weights
    config = RunConfig(data={"root": "x"}, net=NARROW | net, training={"init": init})
    assert with_norm(config, tmp_path / "run").net.norm == norm


def test_a_bundle_with_statistics_brings_batch_norm_as_well(photographs: Path) -> None:
    first = medseg.train(photographs / "config.yaml")
    again = {"output": str(photographs / "second"), "training.init": str(first.bundle)}
    second = medseg.train(photographs / "config.yaml", again)
    for name, value in shipped(first).items():
        torch.testing.assert_close(shipped(second)[name], value, rtol=0, atol=1e-6)


def test_weights_that_are_absent_are_refused_before_the_data_is_read(photographs: Path) -> None:
    with pytest.raises(CheckpointError, match=r"training\.init: .*nowhere\.pth does not exist"):
        medseg.train(
            photographs / "config.yaml", {"training.init": str(photographs / "nowhere.pth"), "data.root": "no/such"}
        )


def test_a_run_of_the_last_release_keeps_its_norm_and_its_way_with_statistics(photographs: Path) -> None:
    folder = photographs / "old"
    folder.mkdir()
    (folder / "last.pt").touch()
    for recorded, expected in ((None, None), ("batch", "batch"), ("group", "group")):
        (folder / "config.yaml").write_text(yaml.safe_dump({"net": {"norm": recorded}, "training": {"seed": 0}}))
        config = with_norm(load_config(photographs / "config.yaml"), folder)
        assert config.net.norm == expected
        assert config.training.batch_statistics == "updated"


def test_a_resumed_run_goes_on_with_the_norm_and_statistics_that_were_chosen_without_the_file(
    photographs: Path,
) -> None:
    medseg.train(photographs / "config.yaml")
    report = photographs / "run" / "init.json"
    before = report.read_bytes()
    given = public(photographs)
    (photographs / "public.pth").unlink()
    run = medseg.train(photographs / "config.yaml", {"training.max_iterations": 2}, resume=True)
    name = "backbone.bn1.running_mean"
    assert torch.equal(shipped(run)[name], given[name])
    assert report.read_bytes() == before


def test_the_report_is_shown_in_sentences_and_kept_with_every_name(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = public(photographs)
    state["aux_classifier.0.weight"] = torch.zeros(4)
    state["classifier.4.weight"] = torch.zeros(21, *state["classifier.4.weight"].shape[1:])
    state["classifier.4.bias"] = torch.zeros(21)
    del state["backbone.layer4.1.bn2.weight"]
    torch.save(state, photographs / "public.pth")
    medseg.train(photographs / "config.yaml")
    shown = capsys.readouterr().err
    kept = json.loads((photographs / "run" / "init.json").read_text())
    expected = [
        f"training.init: 125 of the network's 128 weights and statistics come from {photographs / 'public.pth'}.",
        "The running statistics of 21 batch norms are kept.",
        "The last layer begins anew, with 2 classes instead of 21: classifier.4.weight, classifier.4.bias.",
        "Not in the file, so the training begins it anew: backbone.layer4.1.bn2.weight.",
        "Not used of the file, as the network has no place for it: aux_classifier.0.weight.",
    ]
    assert kept["summary"] == expected
    assert all(f"{sentence}\n" in shown for sentence in expected)
    assert kept["format_version"] == 1
    assert kept["missing"] == ["backbone.layer4.1.bn2.weight"]
    assert len(kept["loaded"]) == 125


def test_statistics_that_the_network_has_no_place_for_are_named_with_what_keeps_them() -> None:
    report = PretrainedReport(loaded=["bn1.weight"], dropped=["bn1.running_mean", "bn1.running_var", "fc.weight"])
    weights, statistics = sentences(report, Path("x.pth"))[1:]
    assert weights == "Not used of the file, as the network has no place for it: fc.weight."
    assert statistics.startswith("The file holds running statistics of batch norms, which this network does not have")
    assert "net.norm=batch keeps them" in statistics


def test_of_grey_images_the_first_layer_gets_the_sum_of_the_colours_filters(
    photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (photographs / "data" / "images").iterdir():
        Image.open(path).convert("L").save(path)
    run = medseg.train(photographs / "config.yaml")
    shown = capsys.readouterr().err
    assert "The images have 1 channel instead of 3, so the filters for red, green and blue were added up" in shown
    name = "backbone.conv1.weight"
    torch.testing.assert_close(shipped(run)[name], public(photographs)[name].sum(1, keepdim=True))
    net = medseg.load_model(run.bundle, device="cpu").nets[0]
    grey = torch.randn(1, 1, 65, 50)
    donor = build_net("fcn", dims=2, in_channels=3, out_channels=2, backbone="resnet18", width=0.125, norm="batch")
    donor.load_state_dict(public(photographs))
    with torch.no_grad():
        torch.testing.assert_close(net(grey), donor.eval()(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_frozen_parts_stay_and_parts_have_rates_of_their_own(photographs: Path) -> None:
    overrides = {
        "training.max_iterations": 3,
        "training.learning_rate": 0.01,
        "training.batch_size": 8,
        "training.frozen": ["backbone.conv1", "backbone.bn1", "backbone.layer1"],
        "training.layer_rates": {"backbone": 1e-10},
    }
    run = medseg.train(photographs / "config.yaml", overrides)
    found, given = shipped(run), public(photographs)
    moved = {name for name, value in found.items() if (value - given[name]).abs().max() > 1e-6}
    parameters = {name for name in moved if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert parameters == {f"classifier.{name}" for name in ("0.weight", "1.weight", "1.bias", "4.weight", "4.bias")}
    # A batch of 8 updates the statistics, but for those of frozen parts.
    assert "backbone.layer2.0.bn1.running_mean" in moved
    assert not any(name.startswith(("backbone.bn1", "backbone.layer1")) for name in moved)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_rate_is_the_schedules_times_the_factor_of_the_most_specific_part(optimizer: str) -> None:
    net = build_net(**NARROW, in_channels=3, out_channels=2)
    rates = {"backbone": 0.1, "backbone.layer1.0": 0.01, "classifier.4": 10}
    built = build_optimizer(net, TrainingConfig(optimizer=optimizer, layer_rates=rates))
    set_rate(built, 2.0)
    rate_of = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    found = {name: rate_of[id(p)] for name, p in net.named_parameters()}
    assert found["classifier.0.weight"] == 2.0
    assert found["classifier.4.bias"] == 20.0
    assert found["backbone.conv1.weight"] == found["backbone.layer1.1.conv1.weight"] == 0.2
    assert found["backbone.layer1.0.conv1.weight"] == 0.02


def test_a_checkpoint_from_before_the_factors_resumes_at_the_full_rate(photographs: Path) -> None:
    config = {"training.max_iterations": 2, "training.learning_rate": 0.01}
    run = medseg.train(photographs / "config.yaml", config)
    state = load_checkpoint(run.folder / "last.pt")
    (group,) = state.optimizer["param_groups"]
    del group["factor"]
    save_checkpoint(state, run.folder / "last.pt")
    before = shipped(run)
    again = medseg.train(photographs / "config.yaml", config | {"training.max_iterations": 4}, resume=True)
    moved = (shipped(again)["classifier.0.weight"] - before["classifier.0.weight"]).abs().max()
    assert 1e-4 < moved < 0.05


def test_a_training_with_rates_and_frozen_parts_resumes_to_the_same_weights_and_refuses_others(
    photographs: Path,
) -> None:
    settings = {"training.learning_rate": 0.01, "training.layer_rates": {"backbone": 0.1}, "training.save_every": 2}
    settings |= {"training.frozen": ["backbone.conv1"], "training.schedule": "constant"}
    whole = medseg.train(
        photographs / "config.yaml", settings | {"output": str(photographs / "whole"), "training.max_iterations": 4}
    )
    medseg.train(photographs / "config.yaml", settings | {"training.max_iterations": 2})
    with pytest.raises(CheckpointError, match="another plan"):
        medseg.train(photographs / "config.yaml", settings | {"training.layer_rates": {"backbone": 0.2}}, resume=True)
    parts = medseg.train(photographs / "config.yaml", settings | {"training.max_iterations": 4}, resume=True)
    assert all(torch.equal(value, shipped(whole)[name]) for name, value in shipped(parts).items())


@pytest.mark.parametrize(
    ("batch", "choice", "is_frozen"),
    [(2, "auto", True), (7, "auto", True), (8, "auto", False), (2, "updated", False), (16, "frozen", True)],
)
def test_statistics_of_few_samples_are_not_taken(batch: int, choice: str, is_frozen: bool) -> None:
    net = build_net(**NARROW, in_channels=3, out_channels=2, norm="batch")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    norms = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    fresh = {name for name in norms if name.startswith("classifier")}
    training = TrainingConfig(init=Path("x.pth"), batch_statistics=choice)
    findings = freeze(net, training, plan_for(batch), norms - fresh)
    net.train()
    net(torch.randn(batch, 3, 64, 64)).sum().backward()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert list(net.state_dict()) == list(before)
    assert any(name.startswith("backbone") for name in moved) is not is_frozen
    # What has no statistics yet learns them in any case.
    assert "classifier.1.running_mean" in moved
    assert net.get_parameter("backbone.bn1.weight").grad is not None
    said = [finding.message for finding in findings]
    assert {finding.kind for finding in findings} <= {"small_batch"}
    assert len([text for text in said if "20 batch norms keep the running statistics" in text]) == (
        is_frozen and batch < 8
    )
    assert len([text for text in said if "begins without statistics" in text]) == (batch < 8)


def test_frozen_batch_norm_is_batch_norm_in_eval_mode() -> None:
    torch.manual_seed(0)
    for norm in (nn.BatchNorm2d(4, eps=1e-3), nn.BatchNorm3d(4)):
        norm.load_state_dict(sensible(norm.state_dict()))
        frozen = FrozenBatchNorm(norm).train()
        x = torch.randn(2, 4, *[5] * (2 if isinstance(norm, nn.BatchNorm2d) else 3), requires_grad=True)
        assert torch.equal(frozen(x), norm.eval()(x))
        frozen(x).sum().backward()
        assert torch.isfinite(x.grad).all() and frozen.weight.grad is not None


def test_a_batch_of_one_that_batch_norm_cannot_take_is_refused() -> None:
    net = build_net("deeplabv3", dims=2, in_channels=3, out_channels=2, backbone="resnet18", width=0.125, norm="batch")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=r"training\.batch_size is 1, .* training\.batch_size=2"):
        freeze(net, TrainingConfig(), plan_for(1), set())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    norms = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    freeze(net, TrainingConfig(init=Path("x.pth")), plan_for(1), norms)
    net.train()(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": ["backbone.layer9"]}, r"training\.frozen names 'backbone\.layer9'.* did you mean 'backbone\.layer"),
        ({"layer_rates": {"encoder": 0.1}}, r"training\.layer_rates names 'encoder'.*its parts are backbone, classifi"),
        ({"frozen": ["backbone", "classifier"]}, "names all of the network"),
        ({"frozen": ["backbone.bn"]}, "but no weight of the network lies there"),
    ],
)
def test_parts_that_the_network_does_not_have_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_parts(build_net(**NARROW, in_channels=3, out_channels=2), TrainingConfig(init=Path("x.pth"), **settings))


def test_a_network_without_weights_has_no_part_to_refuse() -> None:
    check_parts(nn.Identity(), TrainingConfig())


@pytest.mark.parametrize("settings", [{"frozen": ["backbone"]}, {"batch_statistics": "frozen"}])
def test_what_is_kept_must_come_from_somewhere(settings: dict) -> None:
    with pytest.raises(ConfigError, match="so give init: WEIGHTS as well"):
        load_config("hippocampus", {"data.root": "x", **{f"training.{key}": v for key, v in settings.items()}})


def test_statistics_that_did_not_come_cannot_be_frozen() -> None:
    training = TrainingConfig(init=Path("x.pth"), batch_statistics="frozen")
    for norm in ("batch", "instance"):
        with pytest.raises(ConfigError, match="no batch norm whose statistics came with"):
            freeze(build_net(**NARROW, in_channels=3, out_channels=2, norm=norm), training, plan_for(), set())


def initial_net(state: dict[str, torch.Tensor], name: str, folder: Path) -> nn.Module:
    """The network of a configuration at the moment when its training begins, from a file of published weights."""
    torch.save(state, folder / "published.pth")
    kind, backbone = name.split("_", 1)
    options = MOBILENET if backbone.startswith("mobilenet") and kind == "deeplabv3" else {}
    config = with_norm(
        RunConfig(
            data={"root": "x"},
            output=folder / "run",
            net={"name": kind, "dims": 2, "backbone": backbone, "options": options},
            training={"init": folder / "published.pth"},
        ),
        folder / "run",
    )
    scheme = LabelScheme.from_mapping({f"class{n}": n for n in range(1, len(state["classifier.4.bias"]))})
    plan = plan_for()
    net = net_info_for(config, plan, scheme, on_gpu=False).build()
    setup = Setup(config, plan, scheme, torch.device("cpu"))
    start_from_init(net, Fold(0, folder / "run", [], []), setup, resume=False)
    return net.eval()


@pytest.mark.parametrize(
    "name",
    [
        "fcn_resnet50",
        "deeplabv3_resnet50",
        "deeplabv3_mobilenet_v3_large",
        pytest.param("fcn_resnet101", marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet101", marks=pytest.mark.slow),
    ],
)
def test_logits_at_the_start_of_a_training_are_those_of_the_published_network(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    state = sensible(published_layouts()[name])
    net = initial_net(state, name, tmp_path)
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        found, wanted = net(image), published_logits(name, state, image)
    assert math.isfinite(wanted.std()) and wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "fcn_resnet101", "deeplabv3_resnet101"],
)
def test_logits_after_a_training_from_torchvisions_own_state_dict_are_torchvisions(
    photographs: Path, name: str
) -> None:
    build = getattr(torchvision_models().segmentation, name)
    torch.manual_seed(0)
    reference = build(weights=None, weights_backbone=None, num_classes=2, aux_loss=True)
    state = sensible(reference.state_dict())
    reference.load_state_dict(state)
    torch.save(state, photographs / "public.pth")
    kind, backbone = name.split("_", 1)
    overrides = {"net.name": kind, "net.backbone": backbone, "net.width": None}
    overrides |= {"net.options": MOBILENET} if backbone.startswith("mobilenet") else {}
    run = medseg.train(photographs / "config.yaml", overrides)
    net = medseg.load_model(run.bundle, device="cpu").nets[0]
    for size in ((65, 97), (64, 50)):
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            wanted = reference.eval()(image)["out"]
            torch.testing.assert_close(net(image), wanted, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(published_logits(name, state, image), wanted, rtol=1e-4, atol=1e-4)
    found = shipped(run)
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var")) and not key.startswith("aux_classifier."):
            name = next(each for each in candidates(key) if each in found)
            assert torch.equal(found[name], value), key
