"""The loss of a batch that ranks share is that of one process, in value and gradient, however the batch is divided."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medseg.labels import LabelScheme
from medseg.losses import DiceLoss, build_loss, build_loss_sum, over_ranks
from medseg.losses.ranks import MeanOfRanks
from medseg.losses.voxels import VoxelLoss

PLAIN = LabelScheme.from_mapping({"one": 1, "two": 2}, ignore=255)
REGIONS = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]}, ignore=255)


class _Ranks:
    """Ranks as threads: `all_sum` waits for all and adds up, with the gradient of the own values."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=20), [torch.zeros(())] * size

    def all_sum(self, rank: int) -> Callable[[Tensor], Tensor]:
        def total(value: Tensor) -> Tensor:
            self.values[rank] = value.detach()
            self.barrier.wait()
            others = sum(each for n, each in enumerate(self.values) if n != rank)
            self.barrier.wait()
            return value + others

        return total


def shared(
    build: Callable[[], nn.Module], logits: Tensor, labels: Tensor, sizes: list[int]
) -> tuple[list[float], Tensor]:
    """The loss on every rank, and the gradients of their logits beside each other."""
    ranks, losses = _Ranks(len(sizes)), [0.0] * len(sizes)
    parts = [part.detach().requires_grad_() for part in logits.split(sizes)]

    def work(rank: int) -> None:
        loss = over_ranks(build(), ranks.all_sum(rank))
        value = loss(parts[rank], labels.split(sizes)[rank])
        value.backward()
        losses[rank] = value.item()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return losses, torch.cat([part.grad for part in parts])


def batch(channels: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (5, 1, 6, 7), generator=random)
    labels[1, 0, :2] = 255  # unevenly over the samples
    labels[3] = 0  # a label that one rank has and another lacks
    return torch.randn(5, channels, 6, 7, generator=random), labels


OPTIONS = {
    "dice": [{}, {"batch": False}, {"background": True}],
    "cross_entropy": [{}, {"weights": [0.1, 1.0, 4.0]}],
    "focal": [{}, {"alpha": 0.7}],
    "dice_ce": [{}],
    "dice_focal": [{}],
    "dice_cldice": [{}, {"batch": False}],
}


@pytest.mark.parametrize("sizes", [[5], [2, 3], [1, 1, 3]])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("scheme", [PLAIN, REGIONS], ids=["plain", "regions"])
def test_every_loss_of_ours_is_that_of_the_whole_batch(name: str, scheme: LabelScheme, sizes: list[int]) -> None:
    logits, labels = batch(scheme.out_channels)
    for options in OPTIONS[name]:
        if "weights" in options and scheme.is_regions:
            options = {"weights": [2.0, 5.0]}
        whole = logits.clone().requires_grad_()
        expected = build_loss(name, scheme, **options)(whole, labels)
        expected.backward()
        losses, gradient = shared(lambda o=options: build_loss(name, scheme, **o), logits, labels, sizes)
        assert losses == pytest.approx([expected.item()] * len(sizes), rel=1e-6)
        torch.testing.assert_close(gradient, whole.grad, rtol=1e-5, atol=1e-8)


def test_a_mean_of_the_ranks_losses_would_be_another_dice() -> None:
    logits, labels = batch(3)
    means = [DiceLoss(PLAIN)(a, b).item() for a, b in zip(logits.split([2, 3]), labels.split([2, 3]), strict=True)]
    assert abs(0.4 * means[0] + 0.6 * means[1] - DiceLoss(PLAIN)(logits, labels).item()) > 1e-4


def test_terms_of_a_sum_are_shared_each_in_its_way() -> None:
    logits, labels = batch(3)
    terms = [("dice", 1.0, {}), ("cross_entropy", 0.5, {"weights": [1.0, 2.0, 3.0]})]
    whole = logits.clone().requires_grad_()
    expected = build_loss_sum(terms, PLAIN)(whole, labels)
    expected.backward()
    losses, gradient = shared(lambda: build_loss_sum(terms, PLAIN), logits, labels, [1, 4])
    assert losses == pytest.approx([expected.item()] * 2, rel=1e-6)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-5, atol=1e-8)


class _OwnMean(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (logits[:, :1] - labels.clamp(max=2)).square().mean()


class _OwnDice(DiceLoss):
    def compute(self, voxels: object) -> Tensor:
        return super().compute(voxels) * 2  # may also divide what it has not summed over the ranks


def test_a_loss_that_knows_nothing_of_ranks_is_averaged_over_the_samples() -> None:
    logits, labels = batch(3)
    whole = logits.clone().requires_grad_()
    expected = _OwnMean()(whole, labels)
    expected.backward()
    losses, gradient = shared(_OwnMean, logits, labels, [2, 3])
    assert losses == pytest.approx([expected.item()] * 2, rel=1e-6)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-5, atol=1e-8)
    for own in (_OwnDice(PLAIN), VoxelLoss()):
        assert isinstance(over_ranks(own, lambda value: value), MeanOfRanks)
