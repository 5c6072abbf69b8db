"""Files numbered from `_0000`: frames of a model with one channel are cases; other counts are refused by name."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from inference_bundles import make_info, make_plan, threshold_weights
from PIL import Image

import medseg
from medseg.inference import save_bundle
from medseg.preparation.plan import ChannelPlan
from medseg.studies import predict_studies

FRAMES = [f"scan_{n:04d}" for n in range(4)]


def model(tmp_path: Path, channels: int, **plan: object) -> Path:
    kept = (ChannelPlan(kind="clip", low=-1e6, high=1e6, mean=0.0, std=1.0),) * channels
    info = make_info(
        make_plan(in_channels=channels, normalization=kept, **plan), "inference_nets:build_threshold", {"spot": 1}
    )
    return save_bundle(tmp_path / f"model{channels}", info, {0: threshold_weights(2, 0.5)})


def frames(folder: Path, count: int, shape: tuple[int, ...] = (9, 8, 7)) -> Path:
    folder.mkdir(parents=True)
    for n in range(count):
        nib.save(nib.Nifti1Image(np.full(shape, n % 2, np.int16), np.eye(4)), folder / f"scan_{n:04d}.nii.gz")
    return folder


def test_a_model_of_one_channel_takes_numbered_files_for_cases_and_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        rows = predict_studies(model(tmp_path, 1), [frames(tmp_path / "in", 4)], tmp_path / "out").rows
    assert [(row.case, row.error) for row in rows] == [(name, "") for name in FRAMES]
    assert [medseg.read(tmp_path / "out" / f"{name}.nii.gz").array.mean() for name in FRAMES] == [0, 1, 0, 1]
    assert "scan_0000.nii.gz to scan_0003.nii.gz are 4 cases" in caplog.text and "channels of one case" in caplog.text


def test_as_many_numbered_files_as_channels_are_one_case(tmp_path):
    (row,) = predict_studies(model(tmp_path, 2), [frames(tmp_path / "in", 2)], tmp_path / "out").rows
    assert (row.case, row.error) == ("scan", "")


@pytest.mark.parametrize("count", [3, 4])
def test_another_number_of_files_than_channels_is_refused_with_both_readings(tmp_path, count):
    (row,) = predict_studies(model(tmp_path, 2), [frames(tmp_path / "in", count)], tmp_path / "out").rows
    assert (row.case, row.state) == ("scan", "failed")
    assert f"look like {count} channels of one case, and the model takes 2" in row.error and "other names" in row.error


def test_numbered_files_that_each_hold_all_channels_are_cases(tmp_path):
    rows = predict_studies(model(tmp_path, 2), [frames(tmp_path / "in", 4, (9, 8, 7, 2))], tmp_path / "out").rows
    assert [(row.case, row.error) for row in rows] == [(name, "") for name in FRAMES]


@pytest.mark.parametrize("count", [3, 4])
def test_frames_in_colour_are_cases_whatever_their_number(tmp_path, count):
    (tmp_path / "in").mkdir()
    for n in range(count):
        Image.new("RGB", (9, 8), (n % 2,) * 3).save(tmp_path / "in" / f"scan_{n:04d}.png")
    flat = {"dims": 2, "orientation": None, "spacing_mm": None, "patch_size": (8, 8), "strides": ((1, 1), (2, 2))}
    rows = predict_studies(model(tmp_path, 3, **flat), [tmp_path / "in"], tmp_path / "out").rows
    assert [(row.case, row.error) for row in rows] == [(name, "") for name in FRAMES[:count]]
