"""The gated CRF loss against its sum written out, and how it goes with annotations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import GatedCrfLoss, build_loss_sum, show_images


def written_out(p: torch.Tensor, image: torch.Tensor, radius: int, distance: float, intensity: float) -> float:
    total, spatial = 0.0, p.shape[2:]
    places = list(itertools.product(*map(range, spatial)))
    for sample, a, b in itertools.product(range(len(p)), places, places):
        far = [abs(x - y) for x, y in zip(a, b, strict=True)]
        if a == b or max(far) > radius:
            continue
        difference = float((image[(sample, slice(None), *a)] - image[(sample, slice(None), *b)]).square().sum())
        k = math.exp(-sum(x * x for x in far) / (2 * distance**2) - difference / (2 * intensity**2))
        total += k * (1 - float((p[(sample, slice(None), *a)] * p[(sample, slice(None), *b)]).sum()))
    return total / (len(p) * len(places))


@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 4)])
def test_the_loss_is_the_sum_over_neighbours_written_out(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, *shape, generator=generator)
    image = torch.randn(2, 2, *shape, generator=generator)
    loss = GatedCrfLoss(radius=2, distance=1.5, intensity=0.8)
    show_images(loss, image)
    labels = torch.zeros(2, 1, *shape, dtype=torch.int64)
    expected = written_out(logits.softmax(1), image, 2, 1.5, 0.8)
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_annotation_spreads_to_voxels_that_look_alike_and_stops_at_an_edge() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = 3.0
    labels = torch.full((1, 1, 8, 8), 255)
    labels[0, 0, 0, 0], labels[0, 0, 7, 7] = 0, 1
    scheme = LabelScheme.from_mapping({"bright": 1}, 255)
    loss = build_loss_sum([("cross_entropy", 1.0, {}), ("gated_crf", 0.3, {})], scheme)
    show_images(loss, image)
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, labels).backward()
        optimizer.step()
    assert logits[0].argmax(0).equal((image[0, 0] > 0).long())


def test_regions_and_coarser_auxiliary_logits_count_as_well() -> None:
    scheme = LabelScheme.from_mapping({"whole": [1, 2], "core": [2]})
    loss = build_loss_sum([("gated_crf", 1.0, {})], scheme)
    show_images(loss, torch.randn(1, 1, 8, 8))
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    value = loss((logits, torch.zeros(1, 2, 4, 4)), torch.zeros(1, 1, 8, 8, dtype=torch.int64))
    value.backward()
    assert value > 0 and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("options", [{"radius": 0}, {"radius": 40}, {"distance": 0}, {"intensity": -1.0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        build_loss_sum([("gated_crf", 1.0, options)])
