"""A network that tells left from right perfectly keeps doing so under test-time mirroring."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from inference_bundles import make_info, make_plan
from inference_nets import Sides

from medseg.errors import CheckpointError
from medseg.inference import PredictionInfo, load_model, save_bundle
from medseg.metrics import score_case
from medseg.preparation.plan_fields import UnmirroredAxis
from medseg.volume import Volume

LAST_RELEASE = Path(__file__).parents[1] / "fixtures" / "last_release"
EVERY_AXIS = PredictionInfo(overlap=0.5, mirror_axes=(0, 1, 2))
TWINS = (UnmirroredAxis(axis=0, reason="sides as measured"),)


def _dice(folder: Path, labels: dict[str, int], **plan) -> list[float]:
    """Of both labels, for a bundle that permits to mirror every axis."""
    info = make_info(make_plan(patch_size=(24, 16, 16), **plan), "inference_nets:build_sides", labels)
    info = info.model_copy(update={"prediction": EVERY_AXIS})
    model = load_model(save_bundle(folder, info, {0: Sides().state_dict()}), "cpu")
    image, truth = np.zeros((24, 16, 16), np.float32), np.zeros((24, 16, 16), np.uint8)
    for value, (start, stop) in enumerate(((3, 10), (14, 21)), start=1):
        truth[start:stop, 4:12, 4:12] = value
    image[truth > 0] = 1
    found = model.predict(Volume(image, np.eye(4))).array
    scores = score_case(found, truth, (1.0, 1.0, 1.0), labels=(1, 2), metrics=("dice",))
    return [scores[value]["dice"] for value in (1, 2)]


@pytest.mark.parametrize(
    "names",
    [("LeftLung", "RightLung"), ("Lunge links", "Lunge rechts"), ("kidneyL", "kidneyR"), ("rim esq", "rim dir")],
)
def test_named_sides_keep_a_dice_of_1_through_mirroring(tmp_path: Path, names: tuple[str, str]) -> None:
    labels = {names[0]: 1, names[1]: 2}
    assert _dice(tmp_path / "names", labels) == [1.0, 1.0]
    assert _dice(tmp_path / "plan", labels, unmirrored=TWINS) == [1.0, 1.0]


def test_measured_sides_keep_a_dice_of_1_through_mirroring(tmp_path: Path) -> None:
    assert _dice(tmp_path / "measured", {"a": 1, "b": 2}, unmirrored=TWINS) == [1.0, 1.0]
    assert min(_dice(tmp_path / "mirrored", {"a": 1, "b": 2}, unmirrored=())) < 0.5, "without it, sides are lost"


def test_a_bundle_of_version_1_mirrors_what_it_mirrored(tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(LAST_RELEASE / "zscore" / "model", old)
    content = json.loads((old / "model.json").read_text())
    content["prediction"]["mirror_axes"] = [0, 1, 2]
    for names, axes in ((("LeftLung", "RightLung"), (0, 1, 2)), (("left_lung", "right_lung"), (1, 2))):
        content["labels"] = {name: n for n, name in enumerate(names, start=1)}
        (old / "model.json").write_text(json.dumps(content))
        model = load_model(old, "cpu")
        assert model.mirror_axes() == axes and model.info.prediction.side_names == "few"
    content["prediction"]["side_names"] = "all"
    (old / "model.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="side_names is a key of format_version 2"):
        load_model(old, "cpu")
