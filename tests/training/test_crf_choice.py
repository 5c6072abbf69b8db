"""A CRF is fitted on validation cases and kept only where it gains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.inference import to_label_map
from medseg.labels import LabelScheme
from medseg.nets.crf import dense_crf
from medseg.nets.crf_fit import CrfCase
from medseg.preparation.deskew import empty_volume
from medseg.preparation.normalize import Scale
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.preparation.store import NativeLabels, PreparedCase
from medseg.training.crf_choice import MOST_CASES, CrfChoice, choose_crf, crf_candidates

SCHEME = LabelScheme.from_mapping({"disc": 1})
CPU = torch.device("cpu")
PLAN = Plan(
    dims=2,
    orientation=None,
    spacing_mm=None,
    patch_size=(48, 48),
    batch_size=2,
    in_channels=1,
    normalization=(ChannelPlan(kind="zscore"),),
    channels=(4,),
    strides=((1, 1),),
)


class Coarse(nn.Module):
    """Every voxel says what its block of the image is: at `block` 1 the truth, above it a staircase."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        small = x[..., self.block // 2 :: self.block, self.block // 2 :: self.block]
        score = F.interpolate(small, x.shape[2:]) * 2 - 1
        return torch.cat([-score, score], dim=1)


def disc(n: int, radius: float = 12.0) -> PreparedCase:
    rows, columns = np.mgrid[:48, :48]
    inside = (rows - 20 - n % 7) ** 2 + (columns - 25) ** 2 < radius**2
    return PreparedCase(
        name=f"case{n}",
        group="",
        image=inside[None].astype(np.float32),
        labels=inside.astype(np.uint8),
        spacing_mm=(1.0, 1.0),
        scales=(Scale(-np.inf, np.inf, 0.0, 1.0),),
        foreground={},
        label_voxels={0: int((~inside).sum()), 1: int(inside.sum())},
    )


def test_a_staircase_is_sharpened_and_the_gain_is_that_of_new_masks() -> None:
    cases = [disc(n) for n in range(3)]
    choice = choose_crf(Coarse(6), cases, PLAN, SCHEME, CPU)
    assert choice.options is not None
    assert choice.cases == 3
    gains = []
    for case in cases:
        image, truth = torch.from_numpy(case.image), torch.from_numpy(case.labels) == 1
        before = Coarse(6)(image[None])[0]
        after = dense_crf(before, image, (1.0, 1.0), choice.options)
        first, second = (
            2 * (found & truth).sum() / (found.sum() + truth.sum())
            for found in (before.argmax(0) == 1, after.argmax(0) == 1)
        )
        gains.append(float(second - first))
    assert choice.gain == pytest.approx(np.mean(gains), abs=1e-6)
    assert choice.gain > 0.03


def test_the_gain_is_measured_on_the_images_own_grid(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"spacing_mm": (2.0, 2.0)})
    cases, native = [], []
    for n in range(2):
        case = disc(n)
        rows, columns = np.mgrid[:96, :96]
        truth = ((rows - 40.5 - 2 * (n % 7)) ** 2 + (columns - 50.5) ** 2 < 24**2).astype(np.uint8)
        np.savez_compressed(tmp_path / f"{n}.npz", labels=truth)
        own = NativeLabels(empty_volume((96, 96), np.eye(4)), tmp_path / f"{n}.npz")
        cases.append(replace(case, native=own, spacing_mm=(2.0, 2.0)))
        native.append(truth == 1)
    choice = choose_crf(Coarse(6), cases, plan, SCHEME, CPU)
    assert choice.options is not None
    gains = []
    for case, truth in zip(cases, native, strict=True):
        image = torch.from_numpy(case.image)
        before = Coarse(6)(image[None])[0]
        after = dense_crf(before, image, (2.0, 2.0), choice.options)
        masks = [to_label_map(each, (96, 96), SCHEME) == 1 for each in (before, after)]
        first, second = (2 * (found & truth).sum() / (found.sum() + truth.sum()) for found in masks)
        gains.append(float(second - first))
    assert choice.gain == pytest.approx(np.mean(gains), abs=1e-9)


def test_perfect_masks_get_no_crf() -> None:
    assert choose_crf(Coarse(1), [disc(n) for n in range(2)], PLAN, SCHEME, CPU) == CrfChoice(None, 0.0, 2)


def test_cases_without_the_label_say_nothing() -> None:
    assert choose_crf(Coarse(6), [disc(0, radius=0)], PLAN, SCHEME, CPU) == CrfChoice(None, 0.0, 0)
    assert choose_crf(Coarse(6), [], PLAN, SCHEME, CPU) == CrfChoice(None, 0.0, 0)
    assert choose_crf(Coarse(1), [disc(0, radius=0), disc(1)], PLAN, SCHEME, CPU).cases == 1


@pytest.mark.parametrize(("given", "taken"), [(6, 6), (7, 4), (13, 5), (60, 6)])
def test_at_most_six_cases_are_tried(given: int, taken: int) -> None:
    assert taken <= MOST_CASES
    assert choose_crf(Coarse(1), [disc(n) for n in range(given)], PLAN, SCHEME, CPU).cases == taken


def test_ignored_voxels_of_plain_labels_and_regions_do_not_count() -> None:
    # A false disc on ignored ground: without it the masks are perfect, and nothing is left to gain.
    case = disc(0)
    labels = case.labels.copy()
    labels[:6, :6] = 9
    image = case.image.copy()
    image[:, :6, :6] = 1
    case = replace(case, image=image, labels=labels)
    plain = LabelScheme.from_mapping({"disc": 1}, ignore=9)
    assert choose_crf(Coarse(1), [case], PLAN, plain, CPU).options is None
    logits = torch.from_numpy(image) * 2 - 1
    targets = torch.from_numpy(labels.astype(np.int8))[None]
    targets[targets == 9] = -1
    assert CrfCase(logits, torch.from_numpy(image), targets, (1.0, 1.0)).dice(logits) == 1.0


def test_candidates_scale_with_the_grid_and_end_at_the_defaults_strength() -> None:
    fine = crf_candidates(PLAN)
    coarse = crf_candidates(PLAN.model_copy(update={"orientation": "RAS", "spacing_mm": (2.0, 2.0, 5.0)}))
    assert len(fine) == len(set(fine)) == 9
    assert [c.appearance_mm for c in coarse] == [2 * c.appearance_mm for c in fine]
    assert fine[-1].smooth_weight == 3.0
    assert fine[-1].appearance_weight == 2.0


def test_a_3d_model_trained_with_crf_fit_predicts_with_crf(tiny_dataset: Path) -> None:
    overrides = {"training.max_iterations": 30, "prediction.crf": "fit", "augmentation.enabled": False}
    run = medseg.train(tiny_dataset / "config.yaml", overrides=overrides)
    info = json.loads((run.bundle / "model.json").read_text())
    scores = info["scores"]["fold0"]
    assert scores["crf_cases"] == 2
    # Noise of a fifth of the contrast and thirty steps: the masks are ragged, and smoothing gains.
    assert scores["crf_gain"] > 0.001
    assert info["prediction"]["crf"]["appearance_mm"] in (3.0, 10.0)
    image = tiny_dataset / "data" / "images" / "case2.nii.gz"
    masks = []
    for extra in ((), ("--crf",)):
        out = tiny_dataset / f"out{len(extra)}"
        result = CliRunner().invoke(
            app, ["predict", str(run.bundle), str(image), "-o", str(out), "--device", "cpu", *extra]
        )
        assert result.exit_code == 0, result.output
        masks.append(medseg.read(next(out.glob("*.nii.gz"))).array)
    assert not np.array_equal(*masks)


def test_by_default_no_crf_is_tried(tiny_dataset: Path) -> None:
    run = medseg.train(tiny_dataset / "config.yaml")
    info = json.loads((run.bundle / "model.json").read_text())
    assert info["prediction"]["crf"] is None
    assert "crf_gain" not in info["scores"]["fold0"]
