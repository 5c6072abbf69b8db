"""No engine may lose or invent a finding, whatever share of the image the finding is."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from medseg.inference import engine as engine_module
from medseg.inference.engine import NetworkEngine
from medseg.inference.same_labels import LabelEvidence, holds_labels, same_labels
from medseg.inference.trial_windows import trial_batches

CPU = torch.device("cpu")


def _organ(lesion=(3, 3, 3), at=(30, 30, 30)):
    labels = np.zeros((1, 96, 96, 96), np.uint8)
    labels[:, 8:88, 8:88, 8:88] = 1
    labels[(0, *(slice(a, a + n) for a, n in zip(at, lesion, strict=True)))] = 2
    return labels


@pytest.mark.parametrize("share", [1e-4, 0.02, 1.0])
def test_a_connected_part_above_ten_voxels_neither_vanishes_nor_appears(share):
    lesion, without = _organ(), _organ(lesion=(0, 0, 0))
    # 27 of 512,000 labelled voxels: fewer than the share that may change.
    assert (lesion != without).sum() < 1e-4 * (lesion > 0).sum()
    assert not same_labels(lesion, without, share=share) and not same_labels(without, lesion, share=share)


def test_a_lesion_that_shrinks_to_less_than_half_has_vanished():
    assert not same_labels(_organ((3, 3, 3)), _organ((3, 3, 1)))
    assert same_labels(_organ((3, 3, 3)), _organ((3, 3, 2)))


def test_a_lesion_that_gets_another_label_has_vanished():
    lesion = _organ()
    other = np.where(lesion == 2, 3, lesion)
    assert not same_labels(lesion, other)


def test_specks_of_ten_voxels_and_borders_may_change_within_the_share():
    lesion, speck = _organ(), _organ()
    speck[0, 60, 60, 60:70] = 2
    assert same_labels(lesion, speck)
    border = _organ()
    border[0, 8, 8:15, 8:15] = 0
    assert same_labels(lesion, border)
    border[0, 8, 8:20, 8:20] = 0
    assert not same_labels(lesion, border) and same_labels(lesion, border, share=0.001)


def test_changes_are_counted_against_labelled_voxels_with_a_floor_of_four():
    reference = np.zeros((1, 128, 128, 128), np.uint8)
    reference[0, 60:70, 60:70, 60:70] = 1
    # 1e-4 of all voxels would be 209, of the labelled ones 0.1.
    for changed, same in ((4, True), (5, False)):
        other = reference.copy()
        other[0, 60, 60, 60 : 60 + changed] = 0
        assert same_labels(reference, other) is same


def test_a_part_does_not_reach_from_one_window_into_the_next():
    big = np.zeros((2, 40, 40), np.uint8)
    big[0, 5:35, 5:35] = 1
    lost = big.copy()
    lost[1, 5:17, 5] = 1
    assert not same_labels(lost, big, share=0.1)


def test_each_region_is_judged_by_itself_and_a_voxel_counts_once():
    whole = np.zeros((1, 2, 100, 100), bool)
    whole[:, 0, 10:90, 10:90] = True
    core = whole.copy()
    core[:, 1, 50:54, 50:54] = True
    assert not same_labels(core, whole, regions=True, share=0.02)
    both = core.copy()
    both[:, :, 50, 50:54] = False
    assert same_labels(core, both, regions=True)
    both[:, :, 51, 50] = False
    assert not same_labels(core, both, regions=True)


def test_other_shapes_are_not_the_same():
    assert not same_labels(np.zeros((1, 4, 4)), np.zeros((2, 4, 4)))


def test_a_window_of_one_label_alone_is_no_evidence():
    windows = np.zeros((3, 6, 6), np.uint8)
    windows[1] = 1
    windows[2, :3] = 1
    assert holds_labels(windows).tolist() == [False, False, True]
    regions = np.zeros((2, 2, 6, 6), bool)
    regions[0, 0], regions[1, 1, 2] = True, True
    assert holds_labels(regions, regions=True).tolist() == [False, True]


def test_batches_are_looked_at_until_three_windows_hold_labels_or_eight_were_seen():
    empty, full = np.zeros((2, 6, 6), np.uint8), np.tile(np.arange(6, dtype=np.uint8), (2, 6, 1))
    for batches, looked_at, windows in (
        ([full] * 9, 2, 4),
        ([empty] * 9, 4, 0),
        ([empty, full, empty, full, full], 4, 4),
        ([empty, full], 2, 2),
    ):
        ran = []
        evidence = LabelEvidence.gather(batches, lambda batch, ran=ran: ran.append(batch) or batch)
        assert (len(ran), evidence.windows, evidence.is_enough) == (looked_at, windows, windows >= 2)


class Lesions(nn.Module):
    """Organ where the image is above 0.5, lesion where it is above 1.5; `bias` is what an engine does to the second."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.bias = bias

    def forward(self, x):
        time.sleep(0.002)
        return torch.cat([0.5 - x, (x - 0.5).clamp(max=1), 2 * x - 2 + self.bias], 1)


def _image(lesion=True, organ=True):
    image = torch.zeros(1, 96, 96, 96)
    if organ:
        image[:, 20:80, 20:80, 20:80] = 1
    if lesion:
        image[:, 30:33, 60:63, 30:33] = 1.6
    return image


def _chosen(monkeypatch, images, fast_engine):
    """The names after each image, where winograd is an engine that takes no time."""
    monkeypatch.setattr(engine_module, "VOXELS_WORTH_MEASURING", 0)
    monkeypatch.setattr(engine_module, "_run_by", lambda name, net, regions: fast_engine if name == "winograd" else net)
    engine, names = NetworkEngine(CPU, images=100), []
    for image in images:
        engine.networks([Lesions()], lambda image=image: trial_batches(image, (48, 48, 48), 2), 50)
        names.append(engine.name)
    return names


def _fast(bias):
    return lambda x: torch.cat([0.5 - x, (x - 0.5).clamp(max=1), 2 * x - 2 + bias], 1)


def test_an_engine_that_loses_a_small_lesion_is_refused(monkeypatch):
    assert _chosen(monkeypatch, [_image()], _fast(0.0)) == ["winograd"]
    assert _chosen(monkeypatch, [_image()], _fast(-0.5)) == ["eager"]


def test_an_engine_is_not_accepted_on_windows_of_background_but_decided_at_a_later_image(monkeypatch):
    empty = _image(lesion=False, organ=False)
    assert _chosen(monkeypatch, [empty, _image()], _fast(0.0)) == [None, "winograd"]
    assert _chosen(monkeypatch, [empty, _image()], _fast(-0.5)) == [None, "eager"]


def test_after_three_images_without_labels_the_network_stays_as_it_is(monkeypatch):
    empty = _image(lesion=False, organ=False)
    assert _chosen(monkeypatch, [empty] * 3 + [_image()], _fast(0.0)) == [None, None, "eager", "eager"]


def test_a_graph_is_not_accepted_on_background_either():
    class OnlyEmptyIsRight(nn.Module):
        def forward(self, x):
            # Tracing keeps the branch of the batch it saw.
            return torch.cat([0.5 - x, x - 0.5], 1) if bool(x.max() <= 0.5) else torch.cat([x - x + 0.2, x - 0.5], 1)

    torch.manual_seed(0)
    net = OnlyEmptyIsRight().eval()
    engine = NetworkEngine(CPU, "frozen")
    empty, full = torch.zeros(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        frozen = engine.networks([net], lambda: iter([empty]), 1)[0]
        for batch in (empty, full, empty, full):
            assert torch.equal(frozen(batch), net(batch))


def test_trial_windows_lie_at_different_places_the_first_in_the_middle():
    image = torch.arange(40 * 30 * 20, dtype=torch.float32).reshape(1, 40, 30, 20)
    windows = torch.cat(list(trial_batches(image, (8, 8, 8), 2)))
    assert windows.shape == (8, 1, 8, 8, 8) and torch.equal(windows[0, 0], image[0, 16:24, 11:19, 6:14])
    corners = windows[:, 0, 0, 0, 0].tolist()
    assert len(set(corners)) == 8
    starts = np.array(np.unravel_index(np.array(corners, int), image.shape[1:]))
    assert (np.ptp(starts, axis=1) >= np.array([32, 22, 12]) / 2).all()
    # One place only: it is repeated, so that a batch has its size.
    assert [len(each) for each in trial_batches(image, (40, 30, 20), 2)] == [2]
    # Slices of a volume for a network of images.
    assert next(trial_batches(image, (8, 8), 2)).shape == (2, 1, 8, 8)


def test_judging_costs_less_than_a_tenth_of_a_pass():
    rng = np.random.default_rng(0)
    reference = np.zeros((2, 64, 64, 64), np.int16)
    for label in range(1, 15):
        at = rng.integers(0, 40, 3)
        reference[(slice(None), *(slice(a, a + 20) for a in at))] = label
    other = reference.copy()
    borders = np.argwhere(reference != np.roll(reference, 1, 1))[:20]
    other[tuple(borders.T)] = 0
    start = time.perf_counter()
    same_labels(reference, other)
    # A pass of a small U-Net over two such windows takes about two seconds on one core.
    assert time.perf_counter() - start < 0.2
