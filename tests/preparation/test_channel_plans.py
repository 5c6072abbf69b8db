"""`data.normalization`: what is asked for is planned, and auto chooses what suits data and training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.commands.config import explain_key
from medseg.config import RunConfig, load_config
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.preparation import Plan, make_plan, normalize, scales_for
from medseg.preparation.fingerprint import Fingerprint, fingerprint_case
from medseg.preparation.planning import check_plan_fits
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"thing": 1})
PHOTO = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
HU = np.random.default_rng(0).integers(-1024, 1500, (1, 16, 16, 16)).astype(np.int16)


def fingerprint_of(array: np.ndarray, names: tuple[str, ...] = ()) -> Fingerprint:
    image = Volume(array, np.eye(4), channels=len(array), spacing_known=array.ndim == 4)
    labels = np.zeros(array.shape[1:], np.uint8)
    labels[: len(labels) // 2] = 1
    return Fingerprint((fingerprint_case("a", "", image, image.with_array(labels), SCHEME),), names)


def plan_for(array: np.ndarray, names: tuple[str, ...] = (), init: Path | None = None, **data) -> Plan:
    config = RunConfig(data={"root": "x", **data}, training={"init": init})
    return make_plan(fingerprint_of(array, names), config, SCHEME, memory_gb=4, on_gpu=False)


def kinds(plan: Plan) -> list[str]:
    return [channel.kind for channel in plan.normalization]


@pytest.mark.parametrize("kind", ["zscore", "clip", "unit", "rgb", "none"])
def test_one_kind_is_for_all_channels(kind) -> None:
    assert kinds(plan_for(PHOTO, normalization=kind)) == [kind] * 3


def test_a_list_gives_each_channel_its_own() -> None:
    assert kinds(plan_for(PHOTO, normalization=["rgb", "auto", "unit"])) == ["rgb", "zscore", "unit"]
    both = np.concatenate([HU, np.abs(HU)])
    assert kinds(plan_for(both, window="lung", normalization=["window", "zscore"])) == ["window", "zscore"]
    with pytest.raises(ConfigError, match=r"data\.normalization names 2 channels, but the images have 3"):
        plan_for(PHOTO, normalization=["rgb", "rgb"])


def test_imagenet_is_what_torchvision_gives_its_networks() -> None:
    plan = plan_for(PHOTO, normalization="imagenet")
    mean, std = (np.array(each).reshape(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = normalize(PHOTO, scales_for(PHOTO, plan))
    np.testing.assert_allclose(found, (PHOTO / 255 - mean) / std, atol=1e-5)
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


def test_photographs_are_normalised_by_imagenet_where_training_starts_from_public_weights(tmp_path: Path) -> None:
    weights = tmp_path / "resnet18.pth"
    imagenet = plan_for(PHOTO, normalization="imagenet")
    assert plan_for(PHOTO, init=weights).normalization == imagenet.normalization
    assert plan_for(PHOTO, ("R", "G", "B"), init=weights).normalization == imagenet.normalization
    assert kinds(plan_for(PHOTO, init=weights, normalization="zscore")) == ["zscore"] * 3


def test_nothing_else_is_normalised_by_imagenet_unasked(tmp_path: Path) -> None:
    weights, bundle = tmp_path / "resnet18.pth", tmp_path / "model"
    bundle.mkdir()
    assert kinds(plan_for(PHOTO)) == ["zscore"] * 3
    assert kinds(plan_for(PHOTO, init=bundle)) == ["zscore"] * 3
    assert kinds(plan_for(PHOTO, init=tmp_path / "model.zip")) == ["zscore"] * 3
    assert kinds(plan_for(PHOTO[:1], init=weights)) == ["zscore"]
    assert kinds(plan_for(PHOTO.astype(np.uint16) * 16, init=weights)) == ["zscore"] * 3
    assert kinds(plan_for(PHOTO, ("flair", "t1", "t2"), init=weights)) == ["zscore"] * 3
    assert kinds(plan_for(HU, init=weights)) == ["clip"]


@pytest.mark.parametrize("kind", ["rgb", "imagenet"])
def test_grey_levels_beyond_8_bits_are_refused_where_colours_are_asked_for(kind) -> None:
    with pytest.raises(ConfigError, match=f"'{kind}', which takes grey levels from 0 to 255, but case a has 0 to 2"):
        plan_for(PHOTO.astype(np.uint16) * 8, normalization=kind)


def test_imagenet_is_refused_where_there_are_not_three_colours() -> None:
    with pytest.raises(ConfigError, match=r"is for red, green and blue, but the images have 1 channel\(s\)"):
        plan_for(PHOTO[:1], normalization="imagenet")


def test_clip_is_refused_where_the_labels_hold_one_grey_level() -> None:
    with pytest.raises(ConfigError, match="all have the grey level 7"):
        plan_for(np.full((1, 16, 16, 16), 7, np.int16), normalization="clip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"normalization": "z-score"}, "did you mean 'zscore'"),
        ({"normalization": ["rgb", "imagnet"]}, "did you mean 'imagenet'"),
        ({"normalization": "window"}, "needs data.window"),
        ({"normalization": "zscore", "window": "lung"}, "leave one of them out"),
        ({"normalization": 3}, "data.normalization"),
    ],
)
def test_what_is_unknown_or_does_not_fit_is_refused_with_the_nearest_name(tmp_path: Path, data, message) -> None:
    (tmp_path / "c.yaml").write_text("data: {root: x}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "c.yaml", {f"data.{key}": value for key, value in data.items()})


def test_the_key_is_explained() -> None:
    explained = explain_key("data.normalization")
    assert "default: auto" in explained and "meaning: `normalization` is" in explained
    assert "zscore or clip or window or unit or rgb or imagenet or none" in explained


def test_a_kept_plan_that_contradicts_what_is_asked_for_is_refused() -> None:
    plan, fingerprint = plan_for(PHOTO, normalization="imagenet"), fingerprint_of(PHOTO)
    for asked in ("imagenet", "auto"):
        check_plan_fits(plan, fingerprint, RunConfig(data={"root": "x", "normalization": asked}), Path("plan.yaml"))
    with pytest.raises(ConfigError, match=r"normalization of channel 0 is imagenet, but .* ask for zscore"):
        check_plan_fits(plan, fingerprint, RunConfig(data={"root": "x", "normalization": "zscore"}), Path("plan.yaml"))
