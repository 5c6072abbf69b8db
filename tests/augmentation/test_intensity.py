"""Grey-level augmentation: each kind by itself, replay, and what must not change."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from medseg.augmentation import CHANGES, DrawnChange, IntensityAugment, IntensityParams, build_change
from medseg.config import (
    AugmentationConfig,
    BiasFieldConfig,
    BlurConfig,
    BrightnessConfig,
    ContrastConfig,
    GammaConfig,
    IntensityConfig,
    LowResolutionConfig,
    NoiseConfig,
    SharpenConfig,
)
from medseg.errors import ConfigError

KINDS = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma")
AUGMENT = IntensityAugment()


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def only(kind: str, **options: Any) -> IntensityAugment:
    return IntensityAugment(**{f"{k}_probability": float(k == kind) for k in KINDS}, **options)


def changed(settings: IntensityConfig, image: torch.Tensor, *strengths: float, variant: int = 0) -> torch.Tensor:
    return build_change(settings).apply(image.clone(), DrawnChange(strengths, variant))


def test_every_change_with_settings_has_a_class_and_every_class_settings() -> None:
    assert {config.model_fields["name"].default for config in get_args(IntensityConfig)} == CHANGES.keys()


def test_nothing_drawn_changes_nothing_and_still_copies() -> None:
    image = picture(2, 6, 6)
    result = AUGMENT.apply(image, IntensityParams())
    assert torch.equal(result, image) and result.data_ptr() != image.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(12, 11), (12, 11, 9)])
def test_each_kind_alone_changes_the_image_alike_on_every_replay(kind: str, shape: tuple[int, ...]) -> None:
    image = picture(2, *shape)
    before = image.clone()
    augment = only(kind, low_resolution=(0.5, 0.7))
    params = augment.draw(np.random.default_rng(4), channels=2)
    assert [name for name, _ in params.changes] == [kind]
    first = augment.apply(image, params)
    again = augment.apply(image, augment.draw(np.random.default_rng(4), channels=2))
    assert torch.equal(first, again) and torch.equal(image, before)
    assert first.shape == image.shape and first.dtype == torch.float32
    assert not torch.allclose(first[0], image[0]) and not torch.allclose(first[1], image[1])


def test_noise_has_the_standard_deviation_drawn_for_each_channel() -> None:
    noisy = changed(NoiseConfig(), torch.zeros(2, 40, 40, 40), 0.1, 0.3, variant=5)
    assert noisy.flatten(1).std(dim=1).tolist() == pytest.approx([0.1, 0.3], rel=0.02)
    assert not torch.equal(noisy, changed(NoiseConfig(), torch.zeros(2, 40, 40, 40), 0.1, 0.3, variant=6))


def test_noise_leaves_torchs_own_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    changed(NoiseConfig(), torch.zeros(1, 4, 4), 0.1, variant=5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("shape", [(14, 17), (14, 17, 12)])
@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0])
def test_blur_is_scipys_gaussian(shape: tuple[int, ...], sigma: float) -> None:
    image = picture(1, *shape)
    expected = gaussian_filter(image[0].numpy(), sigma, mode="nearest", radius=int(np.ceil(2 * sigma)))
    np.testing.assert_allclose(changed(BlurConfig(), image, sigma)[0].numpy(), expected, atol=1e-5)


def test_brightness_multiplies_each_channel_by_its_factor() -> None:
    result = changed(BrightnessConfig(), torch.ones(2, 3, 3), 0.8, 1.2)
    assert torch.equal(result, torch.tensor([0.8, 1.2]).view(2, 1, 1).expand(2, 3, 3))


def test_contrast_stretches_about_the_mean_and_keeps_the_range() -> None:
    image = torch.tensor([[[0.0, 2.0, 3.0, 7.0]]])
    assert changed(ContrastConfig(), image, 0.5)[0, 0].tolist() == [1.5, 2.5, 3.0, 5.0]
    assert changed(ContrastConfig(), image, 2.0)[0, 0].tolist() == [0.0, 1.0, 3.0, 7.0]


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_mean_deviation_and_the_order_of_values(inverted: bool) -> None:
    image = picture(1, 10, 10, 10)
    result = changed(GammaConfig(), image, 1.4, variant=int(inverted))
    assert result.mean().item() == pytest.approx(image.mean().item(), abs=1e-5)
    assert result.std().item() == pytest.approx(image.std().item(), rel=1e-4)
    assert torch.equal(image.flatten().argsort(), result.flatten().argsort())
    skew = ((result - result.mean()) ** 3).mean() - ((image - image.mean()) ** 3).mean()
    assert (skew < 0) == inverted


@pytest.mark.parametrize("variant", [0, 1], ids=["plain", "inverted"])
def test_gamma_squares_what_lies_between_minimum_and_maximum(variant: int) -> None:
    # 0, 1/2, 1 become 0, 1/4, 1, or 0, 3/4, 1 inverted: mean 5/12 or 7/12, standard deviation sqrt(26)/12 both times;
    # they are brought back to mean 1 and standard deviation sqrt(2/3).
    result = changed(GammaConfig(), torch.tensor([[[0.0, 1.0, 2.0]]]), 2.0, variant=variant)
    scale = np.sqrt(2 / 3) / (np.sqrt(26) / 12)
    values, mean = ([0, 0.25, 1], 5 / 12) if variant == 0 else ([0, 0.75, 1], 7 / 12)
    assert result.flatten().tolist() == pytest.approx([(v - mean) * scale + 1 for v in values], abs=1e-5)


@pytest.mark.parametrize("shape", [(16, 18), (96, 80), (40, 56, 40)])
def test_gamma_gives_the_bits_that_torchs_mean_and_deviation_give(shape: tuple[int, ...]) -> None:
    for seed in range(6):
        image = picture(1, *shape, seed=seed) * (seed + 0.1) + seed
        low, high = (float(value) for value in image.aminmax())
        std, mean = (float(value) for value in torch.std_mean(image[0], correction=0))
        expected = image.sub(low).div_(high - low).clamp_(0, 1).pow_(1.3)
        new_std, new_mean = (float(value) for value in torch.std_mean(expected[0], correction=0))
        expected.sub_(new_mean).mul_(std / new_std).add_(mean)
        assert torch.equal(changed(GammaConfig(), image, 1.3), expected)


def test_low_resolution_of_a_half_takes_either_of_two_voxels_by_turns_and_enlarges_linearly() -> None:
    image = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7]).expand(1, 8, 8)
    result = changed(LowResolutionConfig(), image, 0.5)[0, 4]
    # Taken are 0, 3, 4 and 7; each new voxel stands between two old ones.
    assert result.tolist() == [0.0, 0.75, 2.25, 3.25, 3.75, 4.75, 6.25, 7.0]
    upper = build_change(LowResolutionConfig(), low_resolution_ties="upper").apply(image.clone(), DrawnChange((0.5,)))
    assert upper[0, 4].tolist() == [1.0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.0]


@pytest.mark.parametrize("size", [24, 30, 36, 48, 60])
@pytest.mark.parametrize("zoom", [0.5, 0.501, 0.6, 2 / 3, 0.75, 0.8, 0.83, 0.9])
@pytest.mark.parametrize("dims", [2, 3])
def test_low_resolution_moves_nothing_at_any_zoom(size: int, zoom: float, dims: int) -> None:
    ramp = torch.arange(float(size)).view(-1, *[1] * (dims - 1)).expand(size, *[6] * (dims - 1))
    moved = (changed(LowResolutionConfig(), ramp[None], zoom)[0] - ramp).reshape(size, -1)[:, 0]
    inner = moved[3 : size - 3]
    assert abs(inner.mean().item()) < 0.06


def test_sharpening_adds_the_difference_to_the_blurred_image() -> None:
    image = picture(2, 9, 8)
    blurred = np.stack([gaussian_filter(c.numpy(), 1.0, mode="nearest", radius=2) for c in image])
    result = changed(SharpenConfig(sigma=1.0), image, 0.5, 1.5).numpy()
    factors = np.array([0.5, 1.5])[:, None, None]
    np.testing.assert_allclose(result, image.numpy() + factors * (image.numpy() - blurred), atol=1e-5)
    assert torch.equal(changed(SharpenConfig(), image, 0.0, 0.0), image)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 6)])
def test_a_bias_field_is_the_exponential_of_a_polynomial_without_a_constant(shape: tuple[int, ...]) -> None:
    order, seed, strength = 2, 11, 0.4
    image = picture(1, *shape).abs()
    low = image.min()
    result = changed(BiasFieldConfig(order=order), image, strength, variant=seed)
    coefficients = np.random.default_rng(seed).uniform(-1, 1, (order + 1,) * len(shape))
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    exponent = np.zeros(shape)
    for powers in np.ndindex(*coefficients.shape):
        if 1 <= sum(powers) <= order:
            exponent += coefficients[powers] * np.prod([p**n for p, n in zip(places, powers, strict=True)], axis=0)
    expected = (image[0] - low).numpy() * np.exp(strength * exponent) + low.numpy()
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_bias_field_of_no_strength_or_of_a_flat_image_changes_nothing() -> None:
    image = picture(1, 6, 6)
    assert torch.allclose(changed(BiasFieldConfig(), image, 0.0, variant=3), image, atol=1e-6)
    assert torch.equal(
        changed(BiasFieldConfig(), torch.full((1, 6, 6), 2.0), 0.5, variant=3), torch.full((1, 6, 6), 2.0)
    )


@pytest.mark.parametrize("shape", [(2, 9, 8), (2, 9, 8, 7), (1, 1, 1)])
@pytest.mark.parametrize("settings", [SharpenConfig(probability=1), BiasFieldConfig(probability=1)])
def test_sharpening_and_bias_fields_are_the_same_for_the_same_draw(
    settings: IntensityConfig, shape: tuple[int, ...]
) -> None:
    image, change = picture(*shape), build_change(settings)
    drawn, again = (change.draw(np.random.default_rng(2), shape[0]) for _ in range(2))
    assert drawn is not None and drawn == again and len(drawn.strengths) == shape[0]
    first = change.apply(image.clone(), drawn)
    assert torch.equal(first, change.apply(image.clone(), drawn)) and first.shape == image.shape
    assert torch.isfinite(first).all() and (image.numel() == 1 or not torch.allclose(first, image))


def test_low_resolution_loses_detail_and_keeps_flat_areas() -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    image = torch.stack([board.float(), torch.full((16, 16), 3.0)])
    result = changed(LowResolutionConfig(), image, 0.5, 0.5)
    assert result[0].std() < 0.5 * image[0].std() and torch.allclose(result[1], image[1])
    assert torch.equal(changed(LowResolutionConfig(), image, 1.0, 1.0), image)


def test_kinds_come_as_often_as_asked_and_within_their_ranges() -> None:
    rng = np.random.default_rng(0)
    drawn = [dict(AUGMENT.draw(rng, 2).changes) for _ in range(3000)]
    for change in AUGMENT.changes:
        values = [params[change.settings.name].strengths for params in drawn if change.settings.name in params]
        assert len(values) / 3000 == pytest.approx(change.settings.probability, abs=0.03)
        low, high = change.strength
        assert low - 1e-9 <= np.min(values) and np.max(values) <= high + 1e-9
    gammas = np.log([params["gamma"].strengths[0] for params in drawn if "gamma" in params])
    assert gammas.mean() == pytest.approx((np.log(0.7) + np.log(1.5)) / 2, abs=0.03)
    inverted = [params["gamma"].variant for params in drawn if "gamma" in params]
    assert np.mean(inverted) == pytest.approx(0.5, abs=0.06)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    channels=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    constant=st.booleans(),
)
def test_any_image_stays_finite_under_all_kinds_at_once(
    shape: list[int], channels: int, seed: int, constant: bool
) -> None:
    augment = IntensityAugment(**{f"{kind}_probability": 1.0 for kind in KINDS})
    image = torch.full((channels, *shape), 2.0) if constant else picture(channels, *shape, seed=seed)
    result = augment.apply(image, augment.draw(np.random.default_rng(seed), channels))
    assert result.shape == image.shape and torch.isfinite(result).all()


def test_settings_come_from_the_configuration() -> None:
    config = AugmentationConfig(noise_std=0.4, gamma=(0.9, 1.1), low_resolution_probability=0.6)
    by_name = {change.settings.name: change for change in IntensityAugment.from_config(config).changes}
    assert by_name["noise"].strength == (0.0, 0.4) and by_name["gamma"].strength == (0.9, 1.1)
    assert by_name["low_resolution"].settings.probability == 0.6


def test_each_key_of_a_change_has_the_default_of_that_change() -> None:
    assert all(settings == type(settings)() for settings in AugmentationConfig().intensity())


@pytest.mark.parametrize("options", [{"gamma": (1.5, 0.7)}, {"blur_sigma": (0.0, 1.0)}, {"low_resolution": (0.5, 2.0)}])
def test_impossible_ranges_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"augmentation: {next(iter(options))}"):
        IntensityAugment(**options)


@pytest.mark.parametrize("name", ["noise_sdt", "rotation_degrees"])
def test_a_setting_that_is_none_of_an_intensity_change_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"IntensityAugment has no option '{name}'"):
        IntensityAugment(**{name: 1.0})


def test_parameters_for_another_number_of_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="drawn for 1"):
        AUGMENT.apply(torch.zeros(2, 4, 4), IntensityParams((("gamma", DrawnChange((1.1,))),)))
