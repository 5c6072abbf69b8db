"""What a training sees beside an image that is smaller than its patch."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.config import load_config
from medseg.labels import LabelScheme
from medseg.preparation.prepare import prepare
from medseg.preparation.store import open_case
from medseg.training.data import BatchSource


@pytest.mark.parametrize("padding", ["minimum", "zero"])
def test_beside_a_small_image_lies_what_the_plan_pads_with(tiny_dataset: Path, padding: str) -> None:
    changes = {"plan.patch_size": [32, 32, 32], "augmentation.enabled": False}
    preparation = prepare(load_config(tiny_dataset / "config.yaml", changes), workers=1)
    cases = [open_case(folder) for folder in preparation.cases.values()]
    plan = preparation.plan.model_copy(update={"padding": padding})
    config = load_config(tiny_dataset / "config.yaml", changes)
    batch = BatchSource(cases[:1], plan, LabelScheme.from_mapping({"ball": 1}), config, 0).batch(0)
    (scale,) = cases[0].scales
    expected = 0.0 if padding == "zero" else (float(cases[0].image.min()) - scale.mean) / scale.std
    for sample in batch.images:
        assert sample[0, 0, 0, 0].item() == pytest.approx(expected, abs=1e-5)
        assert sample.std() > 0.1
