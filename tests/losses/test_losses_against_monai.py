"""Equality with MONAI's losses on random tensors. The only test file that imports it: that takes seconds."""

from __future__ import annotations

import warnings

import pytest
import torch

from medseg.labels import LabelScheme
from medseg.losses import (
    ClDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    TopKCrossEntropyLoss,
    TverskyLoss,
)
from medseg.losses.cldice import soft_skeleton

pytestmark = pytest.mark.filterwarnings("ignore")

REGIONS = LabelScheme.from_mapping({"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]})


@pytest.fixture(scope="module")
def monai_losses():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.losses")


@pytest.fixture(params=[(2, 4, 7, 6), (3, 4, 5, 6, 4)])
def plain(request):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(request.param, generator=generator)
    labels = torch.randint(4, (request.param[0], 1, *request.param[2:]), generator=generator)
    return logits, labels


@pytest.fixture
def regions():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (2, 1, 5, 6, 4), generator=generator)
    inside = torch.from_numpy(REGIONS.region_table())[labels[:, 0]].movedim(-1, 1)
    return torch.randn(2, 3, 5, 6, 4, generator=generator), labels, inside


def with_gradient(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_softmax_dice_and_its_gradient(monai_losses, plain, batch, background, smooth):
    theirs = monai_losses.DiceLoss(
        softmax=True, to_onehot_y=True, include_background=background, batch=batch, smooth_nr=smooth, smooth_dr=smooth
    )
    ours = DiceLoss(background=background, batch=batch, smooth=smooth)
    torch.testing.assert_close(with_gradient(ours, *plain), with_gradient(theirs, *plain), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("batch", [True, False])
def test_sigmoid_dice_of_regions(monai_losses, regions, batch):
    logits, labels, inside = regions
    theirs = monai_losses.DiceLoss(sigmoid=True, batch=batch, smooth_nr=1.0, smooth_dr=1.0)
    ours = DiceLoss(REGIONS, batch=batch)
    torch.testing.assert_close(
        with_gradient(ours, logits, labels), with_gradient(theirs, logits, inside), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_softmax_focal_is_monais_summed_over_channels(monai_losses, plain, gamma):
    theirs = monai_losses.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=gamma)
    ours = with_gradient(FocalLoss(gamma=gamma), *plain)
    # MONAI also averages over the channels, all but one of which are 0 at each voxel.
    value, gradient = with_gradient(theirs, *plain)
    torch.testing.assert_close(ours, (4 * value, 4 * gradient), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_of_regions(monai_losses, regions, alpha):
    logits, labels, inside = regions
    theirs = monai_losses.FocalLoss(gamma=2.0, alpha=alpha)
    ours = FocalLoss(REGIONS, gamma=2.0, alpha=alpha)
    torch.testing.assert_close(
        with_gradient(ours, logits, labels), with_gradient(theirs, logits, inside), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 4.0]])
def test_cross_entropy_is_torchs(plain, weights):
    logits, labels = plain
    theirs = torch.nn.CrossEntropyLoss(weight=None if weights is None else torch.tensor(weights))
    torch.testing.assert_close(CrossEntropyLoss(weights=weights)(logits, labels), theirs(logits, labels[:, 0]))


def test_cross_entropy_with_ignored_voxels_is_torchs(plain):
    logits, labels = plain
    scheme = LabelScheme.from_mapping({"a": 1, "b": 2, "c": 4}, ignore=3)
    index = torch.tensor([0, 1, 2, -100])[labels[:, 0]]
    theirs = torch.nn.functional.cross_entropy(logits, index, ignore_index=-100)
    torch.testing.assert_close(CrossEntropyLoss(scheme)(logits, labels), theirs)


def test_binary_cross_entropy_is_torchs(regions):
    logits, labels, inside = regions
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(logits, inside)
    torch.testing.assert_close(CrossEntropyLoss(REGIONS)(logits, labels), theirs)


@pytest.mark.parametrize("shape", [(2, 2, 13, 11), (2, 2, 7, 9, 6)])
def test_soft_skeletons_are_monais(monai_losses, shape):
    from monai.losses.cldice import soft_skel

    image = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    for iterations in (0, 1, 4):
        torch.testing.assert_close(soft_skeleton(image, iterations), soft_skel(image, iterations))


@pytest.mark.parametrize("shape", [(2, 2, 13, 11), (2, 2, 7, 9, 6)])
def test_soft_cldice_per_patch_is_monais(monai_losses, shape):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape, generator=generator)
    labels = torch.randint(2, (2, 1, *shape[2:]), generator=generator)
    theirs = monai_losses.SoftclDiceLoss(iter_=3, smooth=1e-9, include_background=False, softmax=True, to_onehot_y=True)
    ours = ClDiceLoss(iterations=3, batch=False)
    torch.testing.assert_close(with_gradient(ours, logits, labels), with_gradient(theirs, logits, labels))


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_generalised_dice_is_monais(monai_losses, plain, batch, background):
    theirs = monai_losses.GeneralizedDiceLoss(
        softmax=True, to_onehot_y=True, include_background=background, batch=batch, smooth_nr=1e-12, smooth_dr=1e-12
    )
    ours = GeneralizedDiceLoss(background=background, batch=batch, smooth=1e-9)
    torch.testing.assert_close(with_gradient(ours, *plain), with_gradient(theirs, *plain), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.5, 0.5), (1.0, 0.0)])
def test_tversky_is_monais(monai_losses, plain, batch, alpha, beta):
    theirs = monai_losses.TverskyLoss(
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        alpha=alpha,
        beta=beta,
        batch=batch,
        smooth_nr=1.0,
        smooth_dr=1.0,
    )
    ours = TverskyLoss(alpha=alpha, beta=beta, batch=batch)
    torch.testing.assert_close(with_gradient(ours, *plain), with_gradient(theirs, *plain), rtol=1e-5, atol=1e-8)


def test_sigmoid_tversky_and_generalised_dice_of_regions(monai_losses, regions):
    logits, labels, inside = regions
    theirs = monai_losses.TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    torch.testing.assert_close(
        with_gradient(TverskyLoss(REGIONS), logits, labels), with_gradient(theirs, logits, inside), rtol=1e-5, atol=1e-8
    )
    theirs = monai_losses.GeneralizedDiceLoss(sigmoid=True, batch=True, smooth_nr=1e-12, smooth_dr=1e-12)
    ours = GeneralizedDiceLoss(REGIONS, smooth=1e-9)
    torch.testing.assert_close(
        with_gradient(ours, logits, labels), with_gradient(theirs, logits, inside), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 4.0]])
@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_label_smoothing_is_torchs(plain, weights, smoothing):
    logits, labels = plain
    tensor = None if weights is None else torch.tensor(weights)
    theirs = torch.nn.CrossEntropyLoss(weight=tensor, label_smoothing=smoothing)
    ours = CrossEntropyLoss(weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(ours(logits, labels), theirs(logits, labels[:, 0]))


def test_label_smoothing_with_ignored_voxels_is_torchs(plain):
    logits, labels = plain
    scheme = LabelScheme.from_mapping({"a": 1, "b": 2, "c": 4}, ignore=3)
    index = torch.tensor([0, 1, 2, -100])[labels[:, 0]]
    theirs = torch.nn.functional.cross_entropy(logits, index, ignore_index=-100, label_smoothing=0.2)
    torch.testing.assert_close(CrossEntropyLoss(scheme, label_smoothing=0.2)(logits, labels), theirs)


def test_label_smoothing_of_regions_is_torchs(regions):
    logits, labels, inside = regions
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(logits, inside * 0.8 + 0.1)
    torch.testing.assert_close(CrossEntropyLoss(REGIONS, label_smoothing=0.2)(logits, labels), theirs)


@pytest.mark.parametrize("percent", [10, 37.5, 100])
def test_the_hardest_voxels_are_those_of_a_sorted_list(plain, percent):
    logits, labels = plain
    each = torch.nn.functional.cross_entropy(logits, labels[:, 0], reduction="none").flatten().sort().values
    count = -int(-len(each) * percent // 100)
    torch.testing.assert_close(TopKCrossEntropyLoss(percent=percent)(logits, labels), each[-count:].mean())
