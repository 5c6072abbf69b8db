"""Soft clDice worked out on paper: skeletons of bars, gaps in lines."""

from __future__ import annotations

import pytest
import torch

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import ClDiceLoss, DiceLoss, build_loss
from medseg.losses.cldice import soft_skeleton


def certain(mask):
    """`(B, 1, ...)` of 0 and 1 -> logits of two channels that say it beyond doubt."""
    return 100.0 * torch.cat([1 - 2 * mask, 2 * mask - 1], 1)


def line(dims, length=5):
    """A line of one voxel's width in the middle of an image of 9 voxels along each axis, from voxel 2 on."""
    mask = torch.zeros(1, 1, *[9] * dims)
    mask[(0, 0, *[4] * (dims - 1), slice(2, 2 + length))] = 1
    return mask


@pytest.mark.parametrize("dims", [2, 3])
def test_the_skeleton_of_a_bar_of_three_voxels_is_its_middle_line(dims):
    bar = torch.zeros(1, 1, *[9] * dims)
    bar[(0, 0, *[slice(3, 6)] * (dims - 1), slice(1, 8))] = 1
    # Opening the bar gives it back. Its erosion is the line from 2 to 6, and opening that leaves nothing.
    assert torch.equal(soft_skeleton(bar, 1), line(dims))
    # Without erosion nothing was found: the bar is thicker than that.
    assert not soft_skeleton(bar, 0).any()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_line_is_its_own_skeleton_at_every_strength(dims):
    assert torch.equal(soft_skeleton(0.25 * line(dims), 3), 0.25 * line(dims))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_gap_of_one_voxel_in_a_line_of_five(dims):
    truth, predicted = line(dims), line(dims)
    predicted[(0, 0, *[4] * dims)] = 0
    # Predicted skeleton: 4 voxels, all inside: (4 + 1) / (4 + 1). True skeleton: 4 of 5 found: (4 + 1) / (5 + 1).
    expected = 1 - 2 * 1 * (5 / 6) / (1 + 5 / 6)
    assert ClDiceLoss()(certain(predicted), truth).item() == pytest.approx(expected)
    assert expected == pytest.approx(1 / 11)


def test_a_faint_prediction_counts_by_its_probability():
    truth = line(2)
    logits = certain(truth)
    logits[:, :, 4, 4] = 0.0  # probability 0.5 in the middle of the line
    # Both skeletons' sums: predicted 4.5 of 4.5 inside; true 4 + 0.5 of 5 found.
    assert ClDiceLoss()(logits, truth).item() == pytest.approx(1 - 2 * (5.5 / 6) / (1 + 5.5 / 6))


def test_a_gap_in_a_thin_line_costs_as_much_as_one_in_a_thick_line_and_dice_thinks_otherwise():
    def losses(rows):
        truth = torch.zeros(1, 1, 15, 40)
        truth[0, 0, rows, 4:36] = 1
        broken = truth.clone()
        broken[..., 18:22] = 0
        return ClDiceLoss()(certain(broken), truth).item(), DiceLoss()(certain(broken), truth).item()

    (thin, thin_dice), (thick, thick_dice) = losses(slice(7, 8)), losses(slice(5, 10))
    both = torch.zeros(1, 1, 30, 40)
    both[0, 0, 7, 4:36] = both[0, 0, 18:27, 4:36] = 1
    without_thin = both.clone()
    without_thin[0, 0, 7] = 0
    assert thick == pytest.approx(thin, rel=0.6)
    assert thin_dice == pytest.approx(thick_dice, rel=0.1)
    # A whole thin vessel missed beside one of nine voxels' width: a tenth of the voxels, about half of the lines.
    assert DiceLoss()(certain(without_thin), both).item() < 0.06
    assert ClDiceLoss()(certain(without_thin), both).item() > 0.2


def test_labels_are_averaged_and_background_takes_part_on_request():
    mask = torch.zeros(1, 1, 9, 9)
    mask[0, 0, 2], mask[0, 0, 6] = 1, 2
    logits = 100.0 * torch.nn.functional.one_hot(mask[:, 0].long(), 3).movedim(-1, 1)
    # Label 2 is taken for background: none predicted, (0 + 1) / (9 + 1) of its line found. Label 1 is perfect.
    logits[0, 2, 6], logits[0, 0, 6] = -100.0, 100.0
    missed = 1 - 2 * 0.1 / 1.1
    assert ClDiceLoss()(logits, mask).item() == pytest.approx(missed / 2)
    assert ClDiceLoss(background=True)(logits, mask).item() != pytest.approx(missed / 2)


def test_dice_cldice_is_the_weighted_sum_of_dice_cross_entropy_and_cldice():
    truth, predicted = line(2), line(2)
    predicted[0, 0, 4, 4] = 0
    logits = certain(predicted)
    # One of 81 voxels is wrong by logits of 100 and -100.
    dice, ce, lines = 1 - (2 * 4 + 1) / (4 + 5 + 1), 200 / 81, 1 / 11
    assert build_loss("dice_cldice")(logits, truth).item() == pytest.approx(dice + ce + lines)
    weighted = build_loss("dice_cldice", dice_weight=0.2, ce_weight=0, cldice_weight=0.8)
    assert weighted(logits, truth).item() == pytest.approx(0.2 * dice + 0.8 * lines)


def test_vessel_everywhere_is_wrong_to_cross_entropy_and_to_nothing_in_cldice():
    truth = line(2)
    everywhere = certain(torch.ones_like(truth)).requires_grad_()
    assert ClDiceLoss(iterations=2)(everywhere, truth).item() == 0
    build_loss("dice_cldice")(everywhere, truth).backward()
    assert (everywhere.grad[0, 1][truth[0, 0] == 0] > 0).all()  # descending takes the vessel back


def test_dataset_values_are_looked_up():
    scheme = LabelScheme.from_mapping({"vessel": 7})
    truth, predicted = line(2), line(2)
    predicted[0, 0, 4, 4] = 0
    assert ClDiceLoss(scheme)(certain(predicted), 7 * truth).item() == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    ("options", "words"), [({"iterations": -1}, "iterations is -1"), ({"smooth": 0}, "smooth is 0")]
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ClDiceLoss(**options)
