"""Bundles with hand-made or random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, threshold_weights, unet_weights
from inference_nets import Sides

import medseg
from medseg.inference import save_bundle
from medseg.studies import run
from medseg.volume import Volume


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: for windows of a few voxels, more threads are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def as_for_tests() -> Iterator[None]:
    """Permits the tests' own networks as user code, and takes newly written files as complete at once."""
    # Not by the test's own monkeypatch, which the test may undo, and which must be undone before this one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSEG_ALLOW_CODE", "inference_nets,slow_net")
        patch.setattr(run, "SETTLE_SECONDS", 0.0)
        yield


@pytest.fixture
def unet_bundle(tmp_path: Path) -> Path:
    info = make_info(make_plan())
    return save_bundle(tmp_path / "unet", info, {0: unet_weights(info)})


@pytest.fixture
def threshold_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Label `value` where the image is above 0.5."""

    def make(name: str = "threshold", value: int = 1, **plan: Any) -> Path:
        plan = {"spacing_mm": None, **plan}
        info = make_info(make_plan(**plan), "inference_nets:build_threshold", {"spot": value})
        return save_bundle(tmp_path / name, info, {0: threshold_weights(2, 0.5)})

    return make


@pytest.fixture
def sides_bundle(tmp_path: Path) -> Path:
    plan = make_plan(patch_size=(32, 32, 32))
    info = make_info(plan, "inference_nets:build_sides", {"left_lung": 1, "right_lung": 2})
    return save_bundle(tmp_path / "sides", info, {0: Sides().state_dict()})


@pytest.fixture
def empty_image(tmp_path: Path) -> Path:
    """Path of a NIfTI file of zeros."""
    (tmp_path / "in").mkdir()
    medseg.write(Volume(np.zeros((12, 12, 12), np.float32), np.eye(4)), tmp_path / "in" / "case.nii.gz")
    return tmp_path / "in" / "case.nii.gz"
