"""The boundary loss and the distance maps that it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import BoundaryLoss, build_loss, build_loss_sum, distances_for
from medseg.losses.boundary import signed_distances
from medseg.losses.combined import resize_labels
from medseg.sample_labels import SampleLabels

PLAIN = LabelScheme.from_mapping({"a": 3, "b": 1}, ignore=9)
REGIONS = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]}, ignore=9)


def test_distances_around_one_voxel_by_hand() -> None:
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    root = math.sqrt(2)
    np.testing.assert_allclose(signed_distances(mask, (1, 1)), [[root, 1, root], [1, 0, 1], [root, 1, root]], rtol=1e-6)
    np.testing.assert_allclose(signed_distances(mask, (1, 3))[1], [3, 0, 3])
    np.testing.assert_allclose(
        signed_distances(~mask, (1, 1)), [[1 - root, 0, 1 - root], [0, 1, 0], [1 - root, 0, 1 - root]], rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(7, 6), (5, 4, 6)])
def test_distances_are_those_of_every_pair_of_voxels(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.3
    spacing = (1.0, 2.5, 1.5)[: len(shape)]
    places = np.argwhere(np.ones(shape)) * spacing
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    flat = mask.ravel()
    expected = np.where(flat, 1.0 - apart[:, ~flat].min(1), apart[:, flat].min(1))
    np.testing.assert_allclose(signed_distances(mask, spacing), expected.reshape(shape), rtol=1e-5, atol=1e-6)


def test_the_loss_by_hand() -> None:
    # Three of four voxels are a; the distances are 0, 0 | 1 of a border between the third and the fourth.
    labels = torch.tensor([[[3, 3, 3, 0]]])
    logits = torch.tensor([0.5, 0.25, 0.25]).log()[None, :, None].expand(1, 3, 4)
    # a: -2, -1, 0, 1 with p = 1/4; b does not occur and has distance 0.
    assert BoundaryLoss(PLAIN)(logits, labels).item() == pytest.approx(0.25 * (-2 - 1 + 0 + 1) / 8)
    assert BoundaryLoss(PLAIN, largest=1)(logits, labels).item() == pytest.approx(0.25 * (-1 - 1 + 0 + 1) / 8)


@pytest.mark.parametrize("scheme", [PLAIN, REGIONS])
def test_the_right_prediction_costs_least(scheme: LabelScheme) -> None:
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    labels[..., 2:6, 2:6] = 1
    labels[..., 3:5, 3:5] = 3 if scheme is PLAIN else 2
    names = [torch.from_numpy(scheme.mask(labels[0, 0].numpy(), name)) for name in scheme.names]
    inside = torch.stack(names if scheme is REGIONS else [~torch.stack(names).any(0), *names])[None]
    loss = BoundaryLoss(scheme)
    right = loss(20.0 * (2 * inside - 1.0), labels)
    moved = loss(20.0 * (2 * inside.roll(2, -1) - 1.0), labels)
    assert right < moved < loss(-20.0 * (2 * inside - 1.0), labels)
    assert right < 1e-6


def test_maps_may_come_with_the_labels_in_physical_units() -> None:
    labels = torch.zeros(2, 1, 6, 5, dtype=torch.int16)
    labels[0, 0, 2:4, 1:3], labels[1, 0, :, 2] = 3, 1
    logits = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    for loss in (build_loss("boundary", PLAIN), build_loss_sum([("dice", 1, {}), ("boundary", 0.1, {})], PLAIN)):
        complete = distances_for(loss, (2.0, 2.0))
        assert complete is not None
        given = complete(labels)
        assert given.shape == (2, 3, 6, 5)
        assert given.dtype == torch.float32
        # Of equal voxels, the unit is one voxel.
        torch.testing.assert_close(loss(logits, given), loss(logits, labels))
        assert torch.equal(given[:, 2:], distances_for(loss, (1.0, 1.0))(labels)[:, 2:])  # type: ignore[misc]
        assert not torch.equal(given, distances_for(loss, (1.0, 2.0))(labels))  # type: ignore[misc]
    assert distances_for(build_loss("dice_ce"), (1.0, 1.0)) is None


def test_coarser_heads_take_the_distances_at_the_centres_of_their_voxels() -> None:
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    labels[..., 2:6, 1:7] = 3
    outputs = (torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4))
    loss = build_loss_sum([("cross_entropy", 1, {}), ("boundary", 1, {})], PLAIN)
    given = distances_for(loss, (1.0, 1.0))(labels)  # type: ignore[misc]
    expected = (2 * loss(outputs[0], given) + loss(outputs[1], resize_labels(given, (4, 4)))) / 3
    torch.testing.assert_close(loss(outputs, labels), expected)


def test_a_loss_of_ones_own_beside_it_is_given_labels_alone() -> None:
    shapes = []

    class Own(torch.nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(labels.shape))
            return logits.mean()

    from medseg.losses import SumLoss

    SumLoss([(1.0, BoundaryLoss()), (1.0, Own())])(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    assert shapes == [(1, 1, 4, 4)]


def test_labels_without_annotation_have_no_border() -> None:
    samples = SampleLabels.of(PLAIN, [("a",)])
    assert isinstance(samples, SampleLabels)
    labels = torch.from_numpy(samples.marking(("a",)))[torch.tensor([[[0, 3, 0, 0]]])]
    maps = BoundaryLoss(samples).with_distances(labels, (1.0,))
    assert maps[0, 1].tolist() == [1, 0, 1, 2]
    assert maps[0, 2].tolist() == [0, 0, 0, 0]


def test_a_largest_distance_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="largest is 0; expected a distance above 0"):
        BoundaryLoss(largest=0)
