"""Losses of cases in which not every label is annotated: marginal probabilities (Fang and Yan, IEEE TMI 2020)."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import LOSSES, DiceLoss, build_loss
from medseg.sample_labels import SampleLabels

PLAIN = LabelScheme.from_mapping({"a": 1, "b": 2, "c": 4}, ignore=9)
REGIONS = LabelScheme.from_mapping({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}, ignore=9)
# The gated CRF loss looks at the images, not at the labels, and counts ignored voxels; see `test_gated_crf.py`.
every_loss = pytest.mark.parametrize("name", [name for name in LOSSES if name != "gated_crf"])


def coded(scheme: LabelScheme, annotated: tuple[str, ...], labels: torch.Tensor) -> tuple[SampleLabels, torch.Tensor]:
    samples = SampleLabels.of(scheme, [annotated])
    assert isinstance(samples, SampleLabels)
    return samples, torch.from_numpy(samples.marking(annotated))[labels]


def random_sample(channels: int, values: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(values)[torch.randint(len(values), (2, 1, 6, 5, 4), generator=generator)]
    return torch.randn(2, channels, 6, 5, 4, generator=generator, dtype=torch.float64), labels


def test_cross_entropy_and_dice_by_hand() -> None:
    # Softmax of 1/8, 1/4, 1/8, 1/2 in both voxels; only a is annotated: the background has 1/8 + 1/8 + 1/2.
    logits = torch.tensor([0.125, 0.25, 0.125, 0.5]).log()[None, :, None].expand(1, 4, 2)
    samples, labels = coded(PLAIN, ("a",), torch.tensor([[[0, 1]]]))
    loss = build_loss("cross_entropy", samples)(logits, labels)
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    # a: 2 * 1/4 over 1/2 + 1; b and c are in no case annotated: nothing predicted, nothing there.
    dice = build_loss("dice", samples, smooth=1e-6)(logits, labels)
    assert dice.item() == pytest.approx((1 - 0.5 / 1.5) / 3, rel=1e-5)


def test_regions_without_annotation_do_not_count() -> None:
    logits = torch.tensor([[[2.0, -1.0], [5.0, 5.0], [-3.0, 4.0]]])
    samples, labels = coded(REGIONS, ("whole",), torch.tensor([[[2, 0]]]))
    loss = build_loss("cross_entropy", samples)(logits, labels)
    assert loss.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2)


@pytest.mark.parametrize(
    ("name", "labels_in_the_mean"),
    [
        *(("cross_entropy", 1), ("focal", 1), ("topk_cross_entropy", 1), ("generalized_dice", 1)),
        *(("dice", 3), ("tversky", 3), ("boundary", 3)),
    ],
)
def test_the_loss_is_that_of_a_net_with_the_annotated_label_alone(name: str, labels_in_the_mean: int) -> None:
    logits, labels = random_sample(4, [0, 1, 9])
    samples, codes = coded(PLAIN, ("a",), labels)
    merged = torch.stack([logits[:, [0, 2, 3]].logsumexp(1), logits[:, 1]], 1)
    alone = build_loss(name, LabelScheme.from_mapping({"a": 1}, ignore=9))(merged, labels)
    torch.testing.assert_close(build_loss(name, samples)(logits, codes) * labels_in_the_mean, alone)


@every_loss
def test_it_is_all_one_how_the_probability_of_the_rest_is_divided(name: str) -> None:
    logits, labels = random_sample(4, [0, 1, 9])
    samples, codes = coded(PLAIN, ("a",), labels)
    loss = build_loss(name, samples)
    torch.testing.assert_close(loss(logits[:, [3, 1, 0, 2]], codes), loss(logits, codes))


@every_loss
def test_regions_without_annotation_and_ignored_voxels_have_no_gradient(name: str) -> None:
    logits, labels = random_sample(3, [0, 1, 2, 4, 9])
    samples, codes = coded(REGIONS, ("whole", "enhancing"), labels)
    logits.requires_grad_()
    build_loss(name, samples)(logits, codes).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] == 0).all()
    hidden = (labels == 9).expand_as(logits)
    assert (logits.grad[hidden] == 0).all()
    assert (logits.grad[:, [0, 2]][~hidden[:, [0, 2]]] != 0).any()


@every_loss
@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_cases_with_all_labels_are_not_changed_by_others_without(name: str, scheme: LabelScheme) -> None:
    logits, labels = random_sample(scheme.out_channels, [0, 1, 2, 4, 9])
    samples, _ = coded(scheme, scheme.names[:1], labels)
    torch.testing.assert_close(build_loss(name, samples)(logits, labels), build_loss(name, scheme)(logits, labels))


@every_loss
@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_gradients_are_those_of_finite_differences(name: str, scheme: LabelScheme) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, scheme.out_channels, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 1, 9])[torch.randint(3, (2, 1, 3, 4), generator=generator)]
    samples, codes = coded(scheme, scheme.names[:1], labels)
    codes[1] = labels[1]
    loss = build_loss(name, samples)
    assert torch.autograd.gradcheck(lambda x: loss(x, codes), (logits,))


def test_label_smoothing_is_spread_over_annotated_labels_and_background() -> None:
    logits, labels = random_sample(4, [0, 1, 9])
    samples, codes = coded(PLAIN, ("a",), labels)
    merged = torch.stack([logits[:, [0, 2, 3]].logsumexp(1), logits[:, 1]], 1)
    alone = build_loss("cross_entropy", LabelScheme.from_mapping({"a": 1}, ignore=9), label_smoothing=0.3)
    ours = build_loss("cross_entropy", samples, label_smoothing=0.3)
    torch.testing.assert_close(ours(logits, codes), alone(merged, labels))


def test_a_loss_of_ones_own_is_refused_unless_it_is_given_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_losses")
    module.Plain = lambda labels=None: nn.MSELoss()  # type: ignore[attr-defined]
    module.Voxel = DiceLoss  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_losses", module)
    samples = SampleLabels.of(PLAIN, [("a",)])
    with pytest.raises(ConfigError, match="own_losses:Plain cannot train on cases that lack labels"):
        build_loss("own_losses:Plain", samples)
    build_loss("own_losses:Plain", PLAIN)
    build_loss("own_losses:Voxel", samples)
