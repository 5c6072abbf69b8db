"""Losses worked out on paper for two to four voxels."""

from __future__ import annotations

import math

import pytest
import torch

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    TopKCrossEntropyLoss,
    TverskyLoss,
    build_loss,
    inverse_frequency_weights,
)
from medseg.losses.dice import _masked_sums, _row_sums


def logits_of(probabilities):
    """(channels, voxels) probabilities -> (1, C, voxels) logits."""
    return torch.log(torch.tensor(probabilities))[None]


def labels_of(values):
    return torch.tensor(values)[None, None]


FOUR = logits_of([[0.8, 0.4, 0.1, 0.5], [0.2, 0.6, 0.9, 0.5]])
FOUR_LABELS = labels_of([0, 1, 1, 0])


def test_dice_of_four_voxels():
    # I = 0.6 + 0.9, P = 0.2 + 0.6 + 0.9 + 0.5, T = 2: dice = (3 + 1) / (4.2 + 1)
    assert DiceLoss()(FOUR, FOUR_LABELS).item() == pytest.approx(1 - 4 / 5.2)
    assert DiceLoss(smooth=1e-5)(FOUR, FOUR_LABELS).item() == pytest.approx(1 - 3 / 4.2, abs=1e-5)


def test_dice_with_background_is_the_mean_of_both_channels():
    # background: I = 0.8 + 0.5, P = 1.8, T = 2
    expected = 1 - (4 / 5.2 + (2.6 + 1) / (3.8 + 1)) / 2
    assert DiceLoss(background=True)(FOUR, FOUR_LABELS).item() == pytest.approx(expected)


def test_dice_per_batch_and_per_patch_differ_as_they_should():
    logits = logits_of([[0.8, 0.4], [0.2, 0.6]]).repeat(2, 1, 1)
    labels = torch.tensor([[[0, 1]], [[0, 0]]])
    # patch 1: I = 0.6, P = 0.8, T = 1; patch 2: I = 0, P = 0.8, T = 0
    assert DiceLoss(batch=True)(logits, labels).item() == pytest.approx(1 - 2.2 / 3.6)
    assert DiceLoss(batch=False)(logits, labels).item() == pytest.approx(1 - (2.2 / 2.8 + 1 / 1.8) / 2)


def test_cross_entropy_of_four_voxels():
    expected = -sum(map(math.log, (0.8, 0.6, 0.9, 0.5))) / 4
    assert CrossEntropyLoss()(FOUR, FOUR_LABELS).item() == pytest.approx(expected)


def test_weighted_cross_entropy_is_divided_by_the_weights():
    expected = -(1 * math.log(0.8) + 3 * math.log(0.6) + 3 * math.log(0.9) + 1 * math.log(0.5)) / 8
    assert CrossEntropyLoss(weights=[1, 3])(FOUR, FOUR_LABELS).item() == pytest.approx(expected)


def test_inverse_frequency_weights_of_three_classes():
    # N = 10 voxels, K = 3: 10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)
    assert inverse_frequency_weights([6, 3, 1]) == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert inverse_frequency_weights([0.6, 0.3, 0.1]) == pytest.approx([10 / 18, 10 / 9, 10 / 3])


def test_a_class_that_never_occurs_has_a_finite_weight():
    assert inverse_frequency_weights([8, 2, 0]) == pytest.approx([10 / 16, 10 / 4, 10 / 4])


def test_inverse_frequency_weights_reach_the_loss():
    by_name = build_loss("cross_entropy", weights="inverse_frequency", frequencies=[3, 1])
    by_hand = build_loss("cross_entropy", weights=[4 / 6, 4 / 2])
    assert by_name(FOUR, FOUR_LABELS).item() == pytest.approx(by_hand(FOUR, FOUR_LABELS).item())


def test_focal_at_nine_tenths_is_a_hundredth_of_cross_entropy():
    logits, labels = logits_of([[0.1], [0.9]]), labels_of([1])
    assert FocalLoss(gamma=2)(logits, labels).item() == pytest.approx(-0.01 * math.log(0.9), rel=1e-5)


def test_focal_of_two_voxels():
    logits, labels = logits_of([[0.8, 0.4], [0.2, 0.6]]), labels_of([0, 1])
    first, second = -(0.2**2) * math.log(0.8), -(0.4**2) * math.log(0.6)
    assert FocalLoss()(logits, labels).item() == pytest.approx((first + second) / 2)
    assert FocalLoss(alpha=0.25)(logits, labels).item() == pytest.approx((0.75 * first + 0.25 * second) / 2)


def test_focal_without_gamma_is_cross_entropy():
    assert FocalLoss(gamma=0)(FOUR, FOUR_LABELS).item() == pytest.approx(CrossEntropyLoss()(FOUR, FOUR_LABELS).item())


def test_sums_are_the_sum_of_their_parts():
    dice, ce, focal = (
        DiceLoss()(FOUR, FOUR_LABELS),
        CrossEntropyLoss()(FOUR, FOUR_LABELS),
        FocalLoss()(FOUR, FOUR_LABELS),
    )
    assert build_loss("dice_ce")(FOUR, FOUR_LABELS).item() == pytest.approx((dice + ce).item())
    assert build_loss("dice_focal")(FOUR, FOUR_LABELS).item() == pytest.approx((dice + focal).item())
    weighted = build_loss("dice_ce", dice_weight=0.5, ce_weight=2.0)(FOUR, FOUR_LABELS)
    assert weighted.item() == pytest.approx((0.5 * dice + 2 * ce).item())


REGIONS = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]}, ignore=9)


def region_logits(probabilities):
    p = torch.tensor(probabilities)[None]
    return torch.log(p / (1 - p))


def test_regions_of_three_voxels_by_hand():
    # voxels 0, 1, 2: whole = 0 1 1, core = 0 0 1
    logits = region_logits([[0.2, 0.7, 0.9], [0.1, 0.4, 0.8]])
    labels = labels_of([0, 1, 2])
    whole, core = (2 * 1.6 + 1) / (1.8 + 2 + 1), (2 * 0.8 + 1) / (1.3 + 1 + 1)
    assert DiceLoss(REGIONS)(logits, labels).item() == pytest.approx(1 - (whole + core) / 2)
    own = (0.8, 0.7, 0.9, 0.9, 0.6, 0.8)
    assert CrossEntropyLoss(REGIONS)(logits, labels).item() == pytest.approx(-sum(map(math.log, own)) / 6)
    focal = sum(-((1 - p) ** 2) * math.log(p) for p in own) / 6
    assert FocalLoss(REGIONS)(logits, labels).item() == pytest.approx(focal)


def test_region_weights_count_inside_against_outside():
    logits, labels = region_logits([[0.2, 0.7], [0.1, 0.4]]), labels_of([0, 1])
    # whole: outside, inside (weight 3); core: outside twice
    expected = -(math.log(0.8) + 3 * math.log(0.7) + math.log(0.9) + math.log(0.6)) / 6
    assert CrossEntropyLoss(REGIONS, weights=[3, 5])(logits, labels).item() == pytest.approx(expected)


def test_region_frequencies_weigh_both_states():
    loss = CrossEntropyLoss(REGIONS, weights="inverse_frequency", frequencies=[0.5, 0.1])
    assert loss.inside.tolist() == pytest.approx([1, 5])
    assert loss.outside.tolist() == pytest.approx([1, 1 / 1.8])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dcie", {}, r"'dcie'; known losses are .*did you mean 'dice'"),
        ("dice", {"smoth": 1}, r"no option 'smoth'.*did you mean 'smooth'"),
        ("dice", {"smooth": 0}, "smooth is 0"),
        ("focal", {"gamma": -1}, "gamma is -1"),
        ("focal", {"alpha": 2}, "alpha is 2"),
        ("cross_entropy", {"weights": "inverse"}, "weights is 'inverse'"),
        ("cross_entropy", {"weights": "inverse_frequency"}, "needs the frequencies"),
        ("cross_entropy", {"weights": "inverse_frequency", "frequencies": [0, 0]}, "one of them above 0"),
        ("cross_entropy", {"weights": [-1, 2]}, ">= 0"),
        ("cross_entropy", {"weights": [0, 0]}, "above 0"),
        ("dice_ce", {"dice_weight": 0, "ce_weight": 0}, "above 0"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(name, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build_loss(name, **options)
    assert "\n" not in str(caught.value)


def test_weights_must_be_one_per_channel():
    with pytest.raises(ConfigError, match="has 2 weights or frequencies; this data set has 3 channels"):
        build_loss("cross_entropy", LabelScheme.from_mapping({"a": 1, "b": 2}), weights=[1, 2])


def test_region_frequencies_must_be_fractions():
    with pytest.raises(ConfigError, match="fractions"):
        build_loss("cross_entropy", REGIONS, weights="inverse_frequency", frequencies=[10, 20])


def squared(*, labels=None, factor=1.0):
    class Squared(torch.nn.Module):
        def forward(self, logits, labels):
            return factor * (logits - labels).square().mean()

    return Squared()


def no_loss(labels=None):
    return 3


def test_own_loss_is_built_and_weighted_over_deep_supervision():
    loss = build_loss(f"{__name__}:squared", factor=2.0)
    assert loss(torch.ones(1, 1, 4), torch.zeros(1, 1, 4)).item() == 2.0
    assert loss((torch.ones(1, 1, 4), torch.zeros(1, 1, 2)), torch.zeros(1, 1, 4)).item() == pytest.approx(2 * 2 / 3)


def test_own_loss_that_is_none_or_lacks_the_option_is_refused():
    with pytest.raises(ConfigError, match=r"no_loss gave a int; expected a torch\.nn\.Module"):
        build_loss(f"{__name__}:no_loss")
    with pytest.raises(ConfigError, match=r"squared cannot be called.*facto"):
        build_loss(f"{__name__}:squared", facto=1)


def test_generalised_dice_of_four_voxels():
    # One voxel of the label, three of the background, everything predicted with 1/2: weights 1 and 1/9.
    even = logits_of([[0.5] * 4, [0.5] * 4])
    labels = labels_of([0, 0, 0, 1])
    expected = 1 - 2 * (1.5 / 9 + 0.5) / ((2 + 3) / 9 + (2 + 1))
    assert GeneralizedDiceLoss(smooth=1e-9)(even, labels).item() == pytest.approx(expected)
    assert GeneralizedDiceLoss(background=False)(even, labels).item() == pytest.approx(1 - (1 + 1) / (3 + 1))


def test_generalised_dice_of_a_label_that_does_not_occur_weighs_it_like_the_rarest():
    even = logits_of([[0.5] * 4, [0.25] * 4, [0.25] * 4])
    labels = labels_of([0, 0, 0, 1])
    # Weights 1/9, 1, 1; predicted 2, 1, 1; true 3, 1, 0.
    expected = 1 - 2 * (1.5 / 9 + 0.25) / (5 / 9 + 2 + 1)
    assert GeneralizedDiceLoss(smooth=1e-9)(even, labels).item() == pytest.approx(expected)


def test_tversky_of_four_voxels():
    # I = 1.5, predicted outside 0.2 + 0.5, missed 0.4 + 0.1
    index = (1.5 + 1) / (1.5 + 0.3 * 0.7 + 0.7 * 0.5 + 1)
    assert TverskyLoss()(FOUR, FOUR_LABELS).item() == pytest.approx(1 - index)
    assert TverskyLoss(gamma=4 / 3)(FOUR, FOUR_LABELS).item() == pytest.approx((1 - index) ** 0.75)
    halves = TverskyLoss(alpha=0.5, beta=0.5, smooth=0.5)
    assert halves(FOUR, FOUR_LABELS).item() == pytest.approx(DiceLoss()(FOUR, FOUR_LABELS).item())


def test_focal_tversky_of_a_perfect_or_absent_label_has_a_finite_gradient():
    logits = torch.tensor([[[200.0, 200.0], [-200.0, -200.0], [-200.0, -200.0]]], requires_grad=True)
    TverskyLoss(gamma=2.0)(logits, labels_of([0, 0])).backward()
    assert torch.isfinite(logits.grad).all()


def test_the_hardest_half_of_four_voxels():
    # The losses are -log 0.8, 0.6, 0.9 and 0.5.
    loss = TopKCrossEntropyLoss(percent=50)(FOUR, FOUR_LABELS)
    assert loss.item() == pytest.approx(-(math.log(0.6) + math.log(0.5)) / 2)
    weighted = TopKCrossEntropyLoss(percent=50, weights=[1.0, 3.0])(FOUR, FOUR_LABELS)
    assert weighted.item() == pytest.approx(-(3 * math.log(0.6) + math.log(0.5)) / 4)
    assert TopKCrossEntropyLoss(percent=1)(FOUR, FOUR_LABELS).item() == pytest.approx(-math.log(0.5))


def test_a_smoothed_label_by_hand():
    # Target 0.9 and 0.1 in place of 1 and 0.
    loss = CrossEntropyLoss(label_smoothing=0.2)(logits_of([[0.8], [0.2]]), labels_of([0]))
    assert loss.item() == pytest.approx(-(0.9 * math.log(0.8) + 0.1 * math.log(0.2)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tversky", {"alpha": -1}, "alpha is -1 and beta 0.7"),
        ("tversky", {"alpha": 0, "beta": 0}, "one of them above 0"),
        ("tversky", {"gamma": 0.5}, "gamma is 0.5; expected a number from 1 on"),
        ("topk_cross_entropy", {"percent": 0}, "percent is 0; expected a share"),
        ("topk_cross_entropy", {"percent": 101}, "percent is 101"),
        ("cross_entropy", {"label_smoothing": 1}, "label_smoothing is 1; expected a number from 0, below 1"),
        ("generalized_dice", {"smooth": 0}, "smooth is 0"),
    ],
)
def test_values_out_of_range_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_loss(name, **options)


@pytest.mark.parametrize("shape", [(6, 5, 4), (7, 3), (9,)])
def test_both_ways_to_sum_over_labels_agree(shape):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(4, (2, math.prod(shape)), generator=generator)
    values = torch.rand(2, math.prod(shape), generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.one_hot(target, 5)
    for ours in (_row_sums, _masked_sums):
        true, both = ours(target, values, shape, 5)
        assert torch.equal(true, expected.sum(1))
        torch.testing.assert_close(both, (values[..., None] * expected).sum(1))


def test_sums_of_millions_of_small_probabilities_do_not_stop_growing():
    values = torch.full((1, 2**22), 0.01)
    _, both = _row_sums(torch.zeros(1, 2**22, dtype=torch.int64), values, (2**8, 2**7, 2**7), 2)
    assert both[0, 0].item() == pytest.approx(2**22 * 0.01, rel=1e-5)
