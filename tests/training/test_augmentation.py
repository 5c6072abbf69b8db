"""Augmentation within a training: what suits a plan, batches by the iteration alone, and a few steps with each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg.config import AugmentationConfig, RunConfig, load_config
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import build_loss
from medseg.nets import build_net
from medseg.preparation.case_features import CaseFeatures
from medseg.preparation.fingerprint import CaseFingerprint, ChannelFingerprint, Fingerprint
from medseg.preparation.normalize import Scale
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.preparation.plan_upgrade import hashed_content
from medseg.preparation.store import PreparedCase
from medseg.training.augmentation_check import check_augmentation, colours_are_shown
from medseg.training.data import MIXING, Batch, BatchSource
from medseg.training.fold import Fold, Setup
from medseg.training.loop import train_fold

SCHEME = LabelScheme.from_mapping({"one": 1, "two": 2})
PHOTO = (ChannelPlan(kind="rgb"),) * 3
CT = (ChannelPlan(kind="clip", low=-800.0, high=1000.0, mean=30.0, std=500.0),)
MR = (ChannelPlan(kind="zscore"),)
OFF: dict[str, Any] = {
    **{f"{kind}_probability": 0.0 for kind in ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")},
    "spatial_probability": 0.0,
    "elastic_probability": 0.0,
    "mirror": False,
}


def plan_for(dims: int, channels: tuple[ChannelPlan, ...], **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "dims": dims,
        "orientation": "RAS" if dims == 3 else None,
        "spacing_mm": (1.0,) * dims,
        "patch_size": (16, 16, 8)[:dims],
        "batch_size": 2,
        "in_channels": len(channels),
        "normalization": channels,
        "channels": (4, 8),
        "strides": ((1,) * dims, (2,) * dims),
    }
    return Plan(**{**values, **changes})


def configured(**augmentation: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"root": "x"}, "seed": 5, "augmentation": {**OFF, **augmentation}})


def made_cases(plan: Plan) -> list[PreparedCase]:
    rng = np.random.default_rng(3)
    shape = (20, 18, 12)[: plan.dims]
    photo = plan.normalization == PHOTO
    cases = []
    for n in range(3):
        labels = np.zeros(shape, np.uint8)
        labels[4 : 10 + n, 5:15], labels[12:18, 8:16] = 1, 2
        noise = rng.integers(0, 100, (plan.in_channels, *shape)) if photo else rng.integers(-900, 900, (1, *shape))
        image = noise.astype(np.int16) + (50 if photo else 300) * labels.astype(np.int16)
        foreground = {v: np.argwhere(labels == v).astype(np.int32) for v in (1, 2)}
        scale = Scale(-np.inf, np.inf, 0.0, 255.0) if photo else Scale(-800.0, 1000.0, 30.0, 500.0)
        counts = {v: int((labels == v).sum()) for v in range(3)}
        scales = (scale,) * plan.in_channels
        cases.append(PreparedCase(f"case{n}", "", image, labels, (1.0,) * plan.dims, scales, foreground, counts))
    return cases


def source(plan: Plan, fold: int = 0, **augmentation: Any) -> BatchSource:
    return BatchSource(made_cases(plan), plan, SCHEME, configured(**augmentation), fold)


def same(first: Batch, second: Batch) -> bool:
    others = first.others is second.others or (
        first.others is not None and second.others is not None and torch.equal(first.others, second.others)
    )
    alike = torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    return alike and others and first.share == second.share


@pytest.mark.parametrize(
    ("entry", "channels", "words"),
    [
        ({"name": "hue"}, CT, r"extra\.0: hue is for colour photographs .* with 1 channel\(s\), are not"),
        ({"name": "saturation"}, MR * 3, r"extra\.0: saturation is for colour photographs .* with 3 channel"),
        ({"name": "random_window"}, MR, "channel 0 is normalized by zscore, without a range"),
        ({"name": "random_window"}, (*CT, ChannelPlan(kind="none")), "channel 1 is normalized by none"),
    ],
)
def test_what_the_images_do_not_allow_is_refused(
    entry: dict[str, Any], channels: tuple[ChannelPlan, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        check_augmentation(AugmentationConfig(extra=[entry]), plan_for(2, channels), colours=False)
    assert "\n" not in str(refused.value)
    check_augmentation(AugmentationConfig(extra=[entry], enabled=False), plan_for(2, channels), colours=False)


@pytest.mark.parametrize("name", ["hue", "saturation"])
def test_colours_need_the_grey_levels_of_a_photograph(name: str) -> None:
    entry = AugmentationConfig(extra=[{"name": name}])
    with pytest.raises(ConfigError, match="from 0 to 255, but the plan normalizes by clip"):
        check_augmentation(entry, plan_for(2, CT * 3), colours=True)
    for channels in (PHOTO, MR * 3):
        check_augmentation(entry, plan_for(2, channels), colours=True)


@pytest.mark.parametrize(
    ("shape", "channels", "top", "modality", "expected"),
    [
        ((40, 30), 3, 255.0, None, True),
        ((40, 30), 3, 255.0, "RGB", True),
        ((40, 30), 3, 255.0, "MR", False),
        ((40, 30), 3, 255.0, ["T1", "CT", "PET"], False),
        ((40, 30), 1, 255.0, None, False),
        ((40, 30, 20), 3, 255.0, None, False),
        ((40, 30), 3, 4000.0, None, False),
    ],
)
def test_colour_photographs_are_2d_with_three_channels_of_8_bits_and_no_scanner(
    shape: tuple[int, ...], channels: int, top: float, modality: Any, expected: bool
) -> None:
    levels = ChannelFingerprint(0.0, top, True, 4.0, 1.0, (4.0,) * 200)
    features = CaseFeatures((), (), ())
    known = (1.0,) * len(shape)
    case = CaseFingerprint(
        "a", "", shape, known, False, "RAS"[: len(shape)], "", (levels,) * channels, {}, {}, features
    )
    config = RunConfig.model_validate({"data": {"root": "x", "modality": modality}})
    assert colours_are_shown(config, Fingerprint((case,), ())) == expected


@pytest.mark.parametrize("key", ["cutmix_probability", "mixup_probability"])
def test_a_batch_of_one_sample_cannot_be_mixed(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"augmentation\.{key} .* one sample; set training\.batch_size"):
        check_augmentation(AugmentationConfig(**{key: 0.5}), plan_for(2, CT, batch_size=1), colours=False)
    check_augmentation(AugmentationConfig(**{key: 0.5}), plan_for(2, CT), colours=False)


@pytest.mark.parametrize("name", ["random_window", "hue", "saturation"])
def test_what_acts_before_normalization_is_refused_where_the_store_is_normalized(name: str) -> None:
    with pytest.raises(ConfigError, match="normalize_on: native"):
        check_augmentation(
            AugmentationConfig(extra=[{"name": name}]), plan_for(2, PHOTO, normalize_on="native"), colours=True
        )


def test_what_the_images_allow_passes() -> None:
    window = {"name": "random_window"}
    for channels in (CT, CT * 2, PHOTO, (ChannelPlan(kind="unit"),)):
        check_augmentation(AugmentationConfig(extra=[window]), plan_for(2, channels), colours=False)


def test_an_augmentation_that_does_not_suit_is_refused_before_the_training(tiny_dataset: Path) -> None:
    overrides = {"augmentation.extra": [{"name": "hue"}]}
    with pytest.raises(ConfigError, match="hue is for colour photographs"):
        medseg.train(tiny_dataset / "config.yaml", overrides=overrides)
    assert not (tiny_dataset / "run" / "last.pt").exists() and not (tiny_dataset / "run" / "model").exists()


@pytest.mark.parametrize("dims", [2, 3])
def test_mixed_batches_follow_from_seed_fold_and_iteration(dims: int) -> None:
    mixing = {"cutmix_probability": 0.7, "mixup_probability": 0.7}
    plan = plan_for(dims, CT)
    first, again, other = source(plan, **mixing), source(plan, **mixing), source(plan, fold=1, **mixing)
    batches = [first.batch(n) for n in range(8)]
    assert all(same(again.batch(n), batches[n]) for n in (5, 0, 7))
    assert not same(other.batch(5), batches[5])
    assert {batch.others is None for batch in batches} == {True, False}
    plain = source(plan)
    # Mixing draws from a generator of its own: what is mixed are the samples that there would be without it.
    unmixed = plain.batch(3)
    drawn = first.mixing.apply(unmixed.images, unmixed.labels, first.mixing.draw(*_mixing_of(first, 3, unmixed)))
    assert torch.equal(drawn.images, batches[3].images) and torch.equal(drawn.labels, batches[3].labels)


def _mixing_of(batches: BatchSource, iteration: int, batch: Batch) -> tuple[Any, ...]:
    rng = np.random.default_rng([*batches.seed, iteration, MIXING])
    return rng, len(batch.images), batch.images.shape[2:]


def test_labels_of_mixed_batches_stay_those_of_the_data_set() -> None:
    batches = source(plan_for(3, CT), cutmix_probability=1.0, mixup_probability=1.0)
    for n in range(5):
        batch = batches.batch(n)
        assert batch.others is not None and batch.labels.dtype == torch.int16
        assert set(batch.labels.unique().tolist()) | set(batch.others.unique().tolist()) <= {0, 1, 2}


def test_a_random_window_shows_grey_levels_that_the_plans_window_cuts_off() -> None:
    plan = plan_for(2, CT)
    wide = {"name": "random_window", "probability": 1, "shift": 0, "width": [2, 2]}
    plain, windowed = source(plan).batch(2), source(plan, extra=[wide]).batch(2)
    lowest, highest, middle = (-800 - 30) / 500, (1000 - 30) / 500, (100 - 30) / 500
    inside = (plain.images > lowest) & (plain.images < highest)
    expected = (plain.images - middle) / 2 + middle
    # The other draws are the same only for the first sample, as the window takes numbers of the generator.
    torch.testing.assert_close(windowed.images[0][inside[0]], expected[0][inside[0]], atol=1e-4, rtol=1e-4)
    assert (windowed.images >= lowest - 1e-5).all() and (windowed.images <= highest + 1e-5).all()
    cut = plain.images[0] == highest
    assert windowed.images[0][cut].min() < highest


def test_older_plans_keep_their_ties_and_their_hash() -> None:
    older, newer = plan_for(3, CT), plan_for(3, CT, low_resolution_ties="unbiased")
    assert "low_resolution_ties" not in hashed_content(older)
    assert hashed_content(newer)["low_resolution_ties"] == "unbiased"
    half = {"low_resolution_probability": 1.0, "low_resolution": (0.5, 0.5)}
    assert not torch.equal(source(older, **half).batch(0).images, source(newer, **half).batch(0).images)


def test_new_plans_do_not_move_the_image_at_low_resolution(tiny_dataset: Path) -> None:
    preparation = medseg.preparation.prepare(load_config(tiny_dataset / "config.yaml"), workers=1)
    assert preparation.plan.low_resolution_ties == "unbiased"


def test_a_training_that_mixes_resumes_to_bitwise_the_same_weights(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_dataset / "config.yaml"
    mixing = {"augmentation.cutmix_probability": 0.5, "augmentation.mixup_probability": 0.5}
    overrides = {**mixing, "training.max_iterations": 6, "prediction.postprocess": "off"}
    whole = medseg.train(config, overrides={**overrides, "output": str(tiny_dataset / "whole")})
    step, steps = torch.optim.AdamW.step, iter(range(3))

    def stopped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", stopped)
        medseg.train(config, overrides=overrides)
    resumed = medseg.train(config, overrides=overrides, resume=True)
    weights = [load_file(run.bundle / "weights_fold0.safetensors") for run in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


KINDS: dict[str, dict[str, Any]] = {
    "rotation and scale": {"spatial_probability": 1.0},
    "elastic": {"elastic_probability": 1.0},
    "mirror": {"mirror": True},
    **{
        kind: {f"{kind}_probability": 1.0}
        for kind in ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
    },
    **{
        name: {"extra": [{"name": name, "probability": 1}]}
        for name in ("sharpen", "bias_field", "random_window", "hue", "saturation")
    },
    "cutmix": {"cutmix_probability": 1.0},
    "mixup": {"mixup_probability": 1.0},
}


def trained(plan: Plan, folder: Path, **augmentation: Any) -> dict[str, torch.Tensor]:
    config = configured(**augmentation)
    steps = config.training.model_copy(update={"max_iterations": 3, "warmup_iterations": 0})
    config = config.model_copy(update={"training": steps})
    torch.manual_seed(0)
    net = build_net("unet", dims=plan.dims, in_channels=plan.in_channels, out_channels=3, channels=plan.channels)
    fold = Fold(0, folder, training=made_cases(plan), validation=())
    setup = Setup(config, plan, SCHEME, torch.device("cpu"))
    loss = build_loss("dice_ce", SCHEME)
    return train_fold(net, loss, fold, setup, resume=False, progress=lambda *_: None).weights


@pytest.mark.parametrize(
    ("dims", "kind"),
    [(dims, kind) for dims in (2, 3) for kind in KINDS if dims == 2 or kind not in ("hue", "saturation")],
)
def test_a_few_steps_with_each_kind_give_other_finite_weights(dims: int, kind: str, tmp_path: Path) -> None:
    plan = plan_for(dims, PHOTO if kind in ("hue", "saturation") else CT)
    check_augmentation(configured(**KINDS[kind]).augmentation, plan, colours=kind in ("hue", "saturation"))
    plain = trained(plan, tmp_path / "plain")
    weights = trained(plan, tmp_path / "augmented", **KINDS[kind])
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())
    assert any(not torch.equal(value, plain[name]) for name, value in weights.items())
