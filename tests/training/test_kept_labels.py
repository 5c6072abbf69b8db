"""`training.keep_classes`: a label is added to a trained network, which keeps those that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights

import medseg
from medseg.config import RunConfig, load_config
from medseg.errors import CheckpointError, ConfigError
from medseg.inference import load_bundle, load_model, save_bundle
from medseg.inference.bundle_info import BundleInfo
from medseg.labels import LabelScheme
from medseg.losses import DiceLoss, KeptLabelsLoss
from medseg.preparation import load_plan
from medseg.preparation.plan import ChannelPlan
from medseg.sample_labels import SampleLabels
from medseg.training.kept_labels import grown_net, keep_rows, set_apart, with_kept_labels
from medseg.training.teacher import load_teacher

SHORT = {"training.max_iterations": 2, "plan.patch_size": None, "training.mixed_precision": False}


def old_model(folder: Path, labels: dict[str, Any]) -> Path:
    """A bundle of an untrained network with another grid and normalisation than would be planned."""
    plan = make_plan(spacing_mm=(1.25, 1.25, 1.5), normalization=(ChannelPlan(kind="unit"),), patch_size=(12, 16, 8))
    info = make_info(plan, labels=labels)
    return save_bundle(folder / "old", info, {0: unet_weights(info)})


def train(dataset: Path, init: Path, **overrides: Any) -> medseg.training.Run:
    keep = {"training.init": str(init), "training.keep_classes": True}
    return medseg.train(dataset / "config.yaml", {**SHORT, **keep, **overrides})


def configured(dataset: Path, init: Path, labels: dict[str, Any]) -> RunConfig:
    return load_config(
        dataset / "config.yaml", {"training.init": str(init), "training.keep_classes": True, "data.labels": labels}
    )


def test_the_model_finds_old_and_new_labels_on_the_old_models_input(tiny_dataset: Path) -> None:
    """The data set has only the ball; the organ comes from the model, with another value, as 1 is taken."""
    init = old_model(tiny_dataset, {"organ": 1, "vessel": 3})
    run = train(tiny_dataset, init)
    info = load_bundle(run.bundle).info
    assert info.labels == {"organ": 2, "vessel": 3, "ball": 1}
    assert load_plan(run.folder / "plan.yaml").spacing_mm == (1.25, 1.25, 1.5)
    assert info.net.options == load_bundle(init).info.net.options and info.net.out_channels == 4
    made = info.provenance.teacher
    assert made is not None and made.hash == load_bundle(init).model_hash
    resumed = medseg.train(
        tiny_dataset / "config.yaml",
        {**SHORT, "training.init": str(init), "training.keep_classes": True, "training.max_iterations": 3},
        resume=True,
    )
    assert load_bundle(resumed.bundle).info.provenance.iterations == 3


def test_the_grown_network_finds_at_first_what_the_old_one_found(tiny_dataset: Path) -> None:
    """The background's probability is shared among it and the new labels; the old labels' stay."""
    init = old_model(tiny_dataset, {"organ": 1})
    config = with_kept_labels(configured(tiny_dataset, init, {"ball": 2, "cube": 3}))
    info: BundleInfo = load_bundle(init).info
    scheme = LabelScheme.from_mapping(config.data.labels or {})
    assert scheme.names == ("organ", "ball", "cube") and config.data.annotated == {"*": ("ball", "cube")}
    teacher = load_teacher(config, info.plan, scheme, torch.device("cpu"))
    assert teacher is not None
    net = grown_net(info, len(scheme.names)).build().eval()
    keep_rows(net, teacher)
    image = torch.randn(1, 1, 12, 16, 8)
    with torch.no_grad():
        grown, old = net(image).softmax(1), load_model(init, "cpu").modules[0](image).softmax(1)
    torch.testing.assert_close(grown[:, 1], old[:, 1])
    torch.testing.assert_close(grown[:, 0] + grown[:, 2] + grown[:, 3], old[:, 0])
    torch.testing.assert_close(grown[:, 2], grown[:, 0])


def test_the_old_network_weighs_more_than_in_a_distillation_unless_the_weight_is_given(tiny_dataset: Path) -> None:
    init = old_model(tiny_dataset, {"organ": 1})
    keep = {"training.init": str(init), "training.keep_classes": True, "data.labels": {"ball": 2}}
    usual, given = (
        with_kept_labels(load_config(tiny_dataset / "config.yaml", {**keep, **more}))
        for more in ({}, {"distill.weight": 0.5})
    )
    assert (usual.distill.weight, given.distill.weight) == (0.9, 0.5)
    assert with_kept_labels(usual).distill.weight == 0.9


def test_layers_below_the_last_learn_what_a_new_label_is(tiny_dataset: Path) -> None:
    """Rows that are alike hand them no gradient; set apart they do, and the old label hardly changes."""
    init = old_model(tiny_dataset, {"organ": 1})
    config = with_kept_labels(configured(tiny_dataset, init, {"ball": 2}))
    info: BundleInfo = load_bundle(init).info
    teacher = load_teacher(config, info.plan, LabelScheme.from_mapping(config.data.labels or {}), torch.device("cpu"))
    assert teacher is not None
    net = grown_net(info, 2).build().eval()
    keep_rows(net, teacher)
    image = torch.randn(1, 1, 12, 16, 8)

    def told_apart() -> float:
        net.zero_grad()
        logits = net(image)
        (logits[:, 2] - logits[:, 0]).square().sum().backward()
        first = next(net.parameters()).grad
        return 0.0 if first is None else float(first.abs().sum())

    before = net(image).softmax(1).detach()
    assert told_apart() == 0
    torch.manual_seed(0)
    set_apart(net, teacher)
    assert told_apart() > 0
    after = net(image).softmax(1).detach()
    assert (after[:, 1] - before[:, 1]).abs().mean() < 0.1
    assert (after[:, 2] - before[:, 2]).abs().max() > 0.01


def test_the_old_network_teaches_only_where_a_case_lacks_an_old_label() -> None:
    scheme = LabelScheme.from_mapping({"organ": 1, "ball": 2})
    labels = SampleLabels.of(scheme, [("ball",), None])
    assert isinstance(labels, SampleLabels)
    loss = KeptLabelsLoss(DiceLoss(labels), labels, old=1, weight=1.0)
    torch.manual_seed(0)
    logits, taught = torch.randn(1, 3, 4, 4), torch.randn(1, 2, 4, 4)
    truth = torch.randint(0, 3, (1, 1, 4, 4))
    codes = torch.from_numpy(labels.marking(["ball"]))[torch.where(truth == 1, 0, truth)]
    student, teacher = logits.softmax(1), taught.softmax(1)
    merged = torch.stack([student[:, 0] + student[:, 2], student[:, 1]], dim=1)
    by_hand = (teacher * (teacher / merged).log()).sum(1).mean()
    torch.testing.assert_close(loss((logits, taught), codes), by_hand)
    assert loss((logits, taught), truth).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"organ": 1}, "names no other one"), ({"ball": [1]}, "labels can be added to plain labels only")],
)
def test_what_adds_no_plain_label_is_refused(tiny_dataset: Path, labels: dict[str, Any], message: str) -> None:
    init = old_model(tiny_dataset, {"organ": 1})
    with pytest.raises(ConfigError, match=message):
        with_kept_labels(configured(tiny_dataset, init, labels))


def test_a_model_and_no_second_teacher_is_needed(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="so give init: BUNDLE"):
        load_config(tiny_dataset / "config.yaml", {"training.keep_classes": True})
    (tiny_dataset / "weights.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"training.init: .*keep_classes needs a model bundle"):
        train(tiny_dataset, tiny_dataset / "weights.pth")
    init = old_model(tiny_dataset, {"organ": 1})
    with pytest.raises(ConfigError, match=r"leave distill.teacher out"):
        train(tiny_dataset, init, **{"distill.teacher": str(init)})
