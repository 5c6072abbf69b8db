"""CutMix and MixUp: known answers, hard labels, and draws that depend on nothing but the generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg.augmentation import BatchMixing, MixParams, mixed_loss
from medseg.config import AugmentationConfig
from medseg.labels import LabelScheme
from medseg.losses import build_loss

CUT = BatchMixing(AugmentationConfig(cutmix_probability=1.0))
MIX = BatchMixing(AugmentationConfig(mixup_probability=1.0))
IGNORE = 255


def batch(*shape: int, samples: int = 3) -> tuple[Tensor, Tensor]:
    """Sample n holds n in every voxel of image and labels."""
    number = torch.arange(samples).view(-1, 1, *[1] * len(shape)).expand(samples, 1, *shape)
    return number.float().clone(), number.to(torch.int16).clone()


def test_cutmix_takes_image_and_labels_of_the_box_from_the_partner_and_leaves_the_rest() -> None:
    images, labels = batch(2, 4)
    mixed = CUT.apply(images, labels, MixParams(partner=1, box=((0, 1), (1, 3))))
    assert mixed.labels[:, 0].tolist() == [
        [[0, 2, 2, 0], [0, 0, 0, 0]],
        [[1, 0, 0, 1], [1, 1, 1, 1]],
        [[2, 1, 1, 2], [2, 2, 2, 2]],
    ]
    assert torch.equal(mixed.images, mixed.labels.float())
    assert mixed.labels.dtype == torch.int16 and mixed.others is None
    assert torch.equal(images, batch(2, 4)[0]) and torch.equal(labels, batch(2, 4)[1])


def test_cutmix_in_3d_moves_a_box_of_all_axes_and_every_channel() -> None:
    images, labels = torch.rand(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 1, 4, 5, 6))
    mixed = CUT.apply(images, labels, MixParams(partner=1, box=((1, 3), (0, 5), (2, 4))))
    inside = torch.zeros(4, 5, 6, dtype=torch.bool)
    inside[1:3, :, 2:4] = True
    assert torch.equal(mixed.images, torch.where(inside, images.flip(0), images))
    assert torch.equal(mixed.labels, torch.where(inside, labels.flip(0), labels))


def test_mixup_blends_images_by_the_share_and_keeps_the_labels_of_both() -> None:
    images, labels = batch(2, 2)
    mixed = MIX.apply(images, labels, MixParams(partner=1, share=0.75))
    assert mixed.images[:, 0, 0, 0].tolist() == [0.5, 0.75, 1.75]
    assert mixed.others is not None and mixed.others[:, 0, 0, 0].tolist() == [2, 0, 1]
    assert torch.equal(mixed.labels, labels) and mixed.share == 0.75


def test_the_loss_of_blended_images_is_blended_and_without_a_blend_it_is_the_loss() -> None:
    logits = torch.tensor([[[[2.0]], [[0.0]]]])
    first, second = torch.zeros(1, 1, 1, 1, dtype=torch.int16), torch.ones(1, 1, 1, 1, dtype=torch.int16)
    loss = build_loss("cross_entropy", None)
    # -log softmax([2, 0]): 0.126928 for class 0, 2.126928 for class 1
    assert mixed_loss(loss, logits, first, second, 0.75).item() == pytest.approx(0.75 * 0.126928 + 0.25 * 2.126928)
    assert mixed_loss(loss, logits, first, None, 1.0).item() == pytest.approx(0.126928)


def test_ignored_voxels_of_a_sample_count_only_by_the_labels_of_its_partner() -> None:
    scheme = LabelScheme.from_mapping({"one": 1}, IGNORE)
    logits = torch.tensor([[[[2.0, 5.0]], [[0.0, 0.0]]]], requires_grad=True)
    ignored = torch.tensor([[[[0, IGNORE]]]], dtype=torch.int16)
    loss = build_loss("cross_entropy", scheme)
    mixed_loss(loss, logits, ignored, ignored, 0.5).backward()
    assert logits.grad is not None and logits.grad[..., 1].abs().sum() == 0
    logits.grad = None
    mixed_loss(loss, logits, ignored, torch.ones_like(ignored), 0.5).backward()
    assert logits.grad[..., 1].abs().sum() > 0


def test_regions_that_overlap_are_blended_without_new_label_values() -> None:
    scheme = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]})
    logits = torch.randn(2, 2, 4, 4)
    labels, others = torch.full((2, 1, 4, 4), 2), torch.ones(2, 1, 4, 4, dtype=torch.int64)
    loss = build_loss("dice_ce", scheme)
    expected = 0.25 * loss(logits, labels) + 0.75 * loss(logits, others)
    assert mixed_loss(loss, logits, labels, others, 0.25).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("patch", [(32, 48), (16, 24, 20)])
def test_the_box_leaves_a_uniform_share_outside_and_lies_inside_the_patch(patch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        params = CUT.draw(rng, 4, patch)
        assert params.box is not None and params.share is None and 1 <= params.partner <= 3
        assert all(0 <= first <= last <= size for (first, last), size in zip(params.box, patch, strict=True))
        shares.append(np.prod([last - first for first, last in params.box]) / np.prod(patch))
    # Without borders the mean would be a half; boxes about voxels near a border lose a part.
    assert 0.2 < np.mean(shares) < 0.45 and np.max(shares) > 0.8


def test_mixup_shares_follow_the_beta_distribution() -> None:
    rng = np.random.default_rng(0)
    shares = [MIX.draw(rng, 2, (8, 8)).share for _ in range(4000)]
    # Beta(a, a) has the variance 1 / (4 (2 a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03) and np.var(shares) == pytest.approx(1 / 5.6, abs=0.01)


def test_mixing_comes_as_often_as_asked_and_by_default_never() -> None:
    rng = np.random.default_rng(0)
    often = BatchMixing(AugmentationConfig(cutmix_probability=0.3, mixup_probability=0.6))
    drawn = [often.draw(rng, 2, (8, 8)) for _ in range(2000)]
    assert np.mean([each.box is not None for each in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([each.share is not None for each in drawn]) == pytest.approx(0.6, abs=0.04)
    assert not BatchMixing(AugmentationConfig()).active
    assert not BatchMixing(AugmentationConfig(enabled=False, mixup_probability=1.0)).active


def test_a_batch_of_one_is_left_as_it_is() -> None:
    assert MIX.draw(np.random.default_rng(0), 1, (8, 8)) == MixParams()
    images, labels = batch(2, 2, samples=1)
    assert torch.equal(MIX.apply(images, labels, MixParams()).images, images)
