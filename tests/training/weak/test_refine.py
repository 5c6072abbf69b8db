"""Rough places of labels, moved to edges, and the label map that is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.config import WeakConfig
from medseg.nets.classifier import Classifier
from medseg.nets.random_walk import random_walk
from medseg.training.weak.maps import cam, grad_cam
from medseg.training.weak.pictures import empty_places
from medseg.training.weak.refine import from_boxes, from_maps, label_map_of, labels_of, scaled_together

SHAPE = (24, 24)


def square() -> tuple[np.ndarray, np.ndarray]:
    """A bright square, and a map that covers half of it."""
    image, maps = np.zeros((1, *SHAPE), np.float32), np.zeros((1, *SHAPE), np.float32)
    image[0, 6:16, 6:16] = 3
    maps[0, 8:14, 6:11] = 1
    return image, maps


@pytest.mark.parametrize("steps", [{"crf": False}, {}])
def test_every_refinement_brings_a_map_nearer_to_the_edges_of_the_image(steps: dict[str, object]) -> None:
    image, maps = square()
    (found,) = from_maps([maps], [image], [np.ones_like(maps, bool)], WeakConfig(map_threshold=0.3, **steps))
    inside = image[0] > 0

    def dice(mask: np.ndarray) -> float:
        return 2 * (mask & inside).sum() / (mask.sum() + inside.sum())

    assert dice(found.last[0] > 0) > dice(found.log_odds["maps"][0] > 0) + 0.05


def test_labels_are_only_where_they_may_be() -> None:
    image, maps = square()
    allowed = np.zeros((1, *SHAPE), bool)
    allowed[0, :, :9] = True
    weak = WeakConfig()
    for steps in (*from_maps([maps], [image], [allowed], weak), from_boxes(8 * maps - 4, image, allowed, weak)):
        for odds in steps.log_odds.values():
            assert not (odds[0, :, 9:] > 0).any()


def test_maps_of_slices_are_divided_by_the_maximum_of_the_case_and_labels_by_their_own() -> None:
    maps = [np.array([[[4.0, 2.0]], [[0.0, 1.0]]]), np.array([[[1.0, 9.0]], [[0.0, 2.0]]])]
    allowed = [np.ones((2, 1, 2), bool), np.array([[[True, False]], [[True, True]]])]
    found = scaled_together(maps, allowed)
    assert found[0].tolist() == [[[1.0, 0.5]], [[0.0, 0.5]]]
    assert found[1].tolist() == [[[0.25, 0.0]], [[0.0, 1.0]]]


def test_a_label_map_ignores_what_is_uncertain() -> None:
    odds = np.array([[[5.0, 0.2, -0.2, -5.0]]])
    allowed = np.ones((1, 1, 4), bool)
    assert label_map_of(odds, allowed, (7,), 255, 0.7).tolist() == [[7, 255, 255, 0]]
    assert label_map_of(odds, allowed, (7,), 255, 0.0).tolist() == [[7, 7, 0, 0]]
    assert labels_of(odds, allowed).tolist() == [[1, 1, 0, 0]]


def test_the_most_likely_of_several_labels_is_taken() -> None:
    odds = np.array([[[5.0, 1.0, -1.0]], [[0.0, 6.0, -1.0]]])
    assert label_map_of(odds, np.ones((2, 1, 3), bool), (3, 9), 255, 0.0).tolist() == [[3, 9, 0]]


def test_a_random_walk_keeps_constant_maps_and_the_range_of_others() -> None:
    image = torch.randn(2, 9, 8)
    assert torch.allclose(random_walk(torch.full((1, 9, 8), 0.4), image), torch.full((1, 9, 8), 0.4))
    walked = random_walk(torch.rand(2, 9, 8), image)
    assert 0 <= float(walked.min()) <= float(walked.max()) <= 1


@pytest.mark.parametrize("stage", [1, 3, 5])
def test_maps_of_mirrored_images_are_mirrored_maps(stage: int) -> None:
    torch.manual_seed(0)
    net = Classifier(2, 1, 2, width=0.125, stage=stage).eval()
    x = torch.randn(1, 32, 40)
    for way in (cam, grad_cam):
        assert torch.allclose(way(net, x.flip(1), (1.0, 1.5)), way(net, x, (1.0, 1.5)).flip(1), atol=1e-5)
        assert way(net, x, (1.0,), mirrored=False).shape == (2, 32, 40)


def test_outside_of_the_patient_no_label_can_be_but_air_inside_counts() -> None:
    array = np.full((1, 20, 20), -1000.0)
    array[0, 4:16, 4:16] = 30
    array[0, 8:10, 8:10] = -900
    empty = empty_places(array, "air")
    assert empty[0, 0]
    assert not empty[8:10, 8:10].any()
    assert not empty[5, 5]
    assert not empty_places(array, "none").any()
