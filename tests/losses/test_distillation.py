"""Distillation: by hand, against torch's own divergence, and what counts in it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medseg.augmentation import mixed_loss
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import BoundaryLoss, DistillationLoss, DistilledLoss, build_loss, distances_for, over_ranks
from medseg.sample_labels import SampleLabels

PLAIN = LabelScheme.from_mapping({"liver": 1, "spleen": 2}, ignore=9)
REGIONS = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]}, ignore=9)


def logits(channels: int, seed: int, shape: tuple[int, ...] = (4, 5)) -> torch.Tensor:
    return torch.randn(2, channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def labels(shape: tuple[int, ...] = (4, 5)) -> torch.Tensor:
    return torch.randint(0, 3, (2, 1, *shape), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_of_plain_labels_is_that_of_torch(temperature: float, shape: tuple[int, ...]) -> None:
    student, teacher = logits(3, 0, shape), logits(3, 1, shape)
    found = DistillationLoss(PLAIN, temperature=temperature).divergence(student, teacher, labels(shape))
    soft = [(each / temperature).movedim(1, -1).reshape(-1, 3).log_softmax(1) for each in (student, teacher)]
    wanted = temperature**2 * F.kl_div(*soft, log_target=True, reduction="batchmean")
    torch.testing.assert_close(found, wanted)


def test_the_divergence_of_regions_is_that_of_inside_and_outside_of_each() -> None:
    student, teacher = logits(2, 0), logits(2, 1)
    found = DistillationLoss(REGIONS, temperature=2.0).divergence(student, teacher, labels())
    p, q = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    wanted = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_ignored_voxels_neither_count_nor_have_a_gradient(scheme: LabelScheme) -> None:
    loss, channels = DistillationLoss(scheme), scheme.out_channels
    student, teacher = logits(channels, 0).requires_grad_(), logits(channels, 1)
    some = labels()
    some[:, :, 2:] = 9
    value = loss.divergence(student, teacher, some)
    torch.testing.assert_close(value, loss.divergence(student[:, :, :2].detach(), teacher[:, :, :2], some[:, :, :2]))
    value.backward()
    assert student.grad is not None
    assert not student.grad[:, :, 2:].any() and student.grad[:, :, :2].any()
    assert loss.divergence(student.detach(), teacher, torch.full_like(some, 9)).item() == 0


def test_what_a_case_lacks_belongs_to_the_background_of_both_networks() -> None:
    samples = SampleLabels.of(PLAIN, [("liver",), None])
    codes = torch.from_numpy(samples.marking(("liver",)))[labels().clamp_max(1)]
    student, teacher = logits(3, 0).requires_grad_(), logits(3, 1)
    found = DistillationLoss(samples).divergence(student, teacher, codes)

    def merged(each: torch.Tensor) -> torch.Tensor:
        p = each.softmax(1)
        return torch.stack([p[:, 0] + p[:, 2], p[:, 1]], 1).log()

    two = LabelScheme.from_mapping({"liver": 1})
    wanted = DistillationLoss(two).divergence(merged(student), merged(teacher), labels().clamp_max(1))
    torch.testing.assert_close(found, wanted)
    (gradient,) = torch.autograd.grad(found, student)
    assert gradient.isfinite().all() and gradient.any()


def test_regions_that_a_case_lacks_do_not_count() -> None:
    samples = SampleLabels.of(REGIONS, [("whole",), None])
    codes = torch.from_numpy(samples.marking(("whole",)))[labels().clamp_max(1)]
    student, teacher = logits(2, 0), logits(2, 1)
    found = DistillationLoss(samples).divergence(student, teacher, codes)
    one = LabelScheme.from_mapping({"whole": [1, 2]})
    wanted = DistillationLoss(one).divergence(student[:, :1], teacher[:, :1], labels().clamp_max(1))
    torch.testing.assert_close(found, wanted)


def test_the_gradient_of_an_equal_network_is_zero_and_its_size_does_not_grow_with_the_temperature() -> None:
    teacher = logits(3, 1)
    same = teacher.clone().requires_grad_()
    DistillationLoss(PLAIN).divergence(same, teacher, labels()).backward()
    assert same.grad is not None and same.grad.abs().max() < 1e-15
    sizes = []
    for temperature in (20.0, 40.0):
        student = logits(3, 0).requires_grad_()
        DistillationLoss(PLAIN, temperature=temperature).divergence(student, teacher, labels()).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_half_precision_is_softened_in_single_precision() -> None:
    student, teacher = logits(3, 0).bfloat16(), logits(3, 1).bfloat16()
    loss = DistillationLoss(PLAIN, temperature=3.0)
    found = loss.divergence(student, teacher, labels())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss.divergence(student.float(), teacher.float(), labels()))


def test_the_labels_loss_and_the_distillation_share_the_weight_and_auxiliary_logits_see_labels_alone() -> None:
    heads = (logits(3, 0).requires_grad_(), logits(3, 2).requires_grad_())
    teacher, ordinary, distillation = logits(3, 1), build_loss("dice_ce", PLAIN), DistillationLoss(PLAIN)
    both = DistilledLoss(ordinary, distillation, 0.3)((heads, teacher), labels())
    wanted = 0.7 * ordinary(heads, labels()) + 0.3 * distillation.divergence(heads[0], teacher, labels())
    torch.testing.assert_close(both, wanted)
    alone = DistilledLoss(ordinary, distillation, 1.0)((heads, teacher), labels())
    torch.testing.assert_close(alone, distillation.divergence(heads[0], teacher, labels()))
    first = DistilledLoss(ordinary, distillation, 0.0)((heads[0], teacher), labels())
    assert first.item() == ordinary(heads[0], labels()).item()


def test_a_loss_with_distance_maps_can_be_distilled() -> None:
    loss = DistilledLoss(BoundaryLoss(PLAIN), DistillationLoss(PLAIN), 0.5)
    complete = distances_for(loss, (1.0, 1.0))
    assert complete is not None
    student, teacher = logits(3, 0), logits(3, 1)
    torch.testing.assert_close(
        loss((student, teacher), complete(labels())), loss((student, teacher), labels()), check_dtype=False
    )


def test_blended_images_are_taught_once_and_count_for_both_samples() -> None:
    student, teacher = logits(3, 0), logits(3, 1)
    loss = DistilledLoss(build_loss("dice_ce", PLAIN), DistillationLoss(PLAIN), 1.0)
    ignoring = torch.full_like(labels(), 9)
    whole = loss((student, teacher), labels())
    torch.testing.assert_close(mixed_loss(loss, (student, teacher), labels(), labels(), 0.25), whole)
    torch.testing.assert_close(mixed_loss(loss, (student, teacher), labels(), ignoring, 0.25), 0.25 * whole)


@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_the_ranks_of_a_batch_get_the_loss_of_the_whole(scheme: LabelScheme) -> None:
    student, teacher, some = logits(scheme.out_channels, 0), logits(scheme.out_channels, 1), labels()
    some[1, :, 1:] = 9

    def built() -> DistilledLoss:
        return DistilledLoss(build_loss("dice_ce", scheme), DistillationLoss(scheme), 0.5)

    wanted = built()((student, teacher), some)
    # A recording of the sums of each rank; then each is answered with the total, as all_reduce does.
    heard: list[list[torch.Tensor]] = [[], []]
    totals: list[torch.Tensor] = []
    for _ in range(20):
        values = []
        for rank in range(2):
            heard[rank] = []

            def all_sum(value: torch.Tensor, rank: int = rank) -> torch.Tensor:
                heard[rank].append(value)
                n = len(heard[rank]) - 1
                return totals[n] if n < len(totals) else value

            loss = over_ranks(built(), all_sum)
            values.append(loss((student[rank : rank + 1], teacher[rank : rank + 1]), some[rank : rank + 1]))
        if len(totals) == len(heard[0]):
            break
        totals.append(heard[0][len(totals)] + heard[1][len(totals)])
    torch.testing.assert_close(values[0], wanted)
    torch.testing.assert_close(values[1], wanted)


def test_impossible_weights_and_temperatures_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature is 0"):
        DistillationLoss(temperature=0)
    with pytest.raises(ConfigError, match=r"weight of the distillation is 1\.5"):
        DistilledLoss(build_loss("dice"), DistillationLoss(), 1.5)
