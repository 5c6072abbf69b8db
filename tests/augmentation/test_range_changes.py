"""Changes before normalisation: known answers of window, hue and saturation, and the way back to stored grey levels."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch

from medseg.augmentation import DrawnChange, Hue, RandomWindow, SampleAugment, Saturation
from medseg.config import AugmentationConfig, HueConfig, RandomWindowConfig, SaturationConfig
from medseg.errors import ConfigError

WINDOW, HUE, SATURATION = RandomWindow(RandomWindowConfig()), Hue(HueConfig()), Saturation(SaturationConfig())


def rgb(*colour: float) -> torch.Tensor:
    return torch.tensor(colour).view(3, 1, 1)


def through(entry: dict[str, Any], image: torch.Tensor, ranges: list[tuple[float, float]]) -> torch.Tensor:
    augment = SampleAugment(AugmentationConfig(extra=[{"probability": 1, **entry}]))
    return augment.before_normalization(np.random.default_rng(0), image, ranges)


def test_a_window_twice_as_wide_halves_the_contrast_and_shows_what_lay_beyond() -> None:
    image = torch.tensor([[[-0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 9.0]]])
    result = WINDOW.apply(image, DrawnChange((2.0,), shifts=(0.0,)))
    assert result.flatten().tolist() == [0.0, 0.25, 0.375, 0.5, 0.75, 1.0, 1.0]


def test_a_window_moved_up_darkens_each_channel_by_its_own_shift() -> None:
    result = WINDOW.apply(torch.full((2, 1, 1), 0.5), DrawnChange((1.0, 1.0), shifts=(0.25, -0.25)))
    assert result.flatten().tolist() == [0.25, 0.75]


def test_a_window_of_the_plan_itself_only_clips() -> None:
    image = torch.tensor([[[-1.0, 0.2, 2.0]]])
    assert WINDOW.apply(image, DrawnChange((1.0,), shifts=(0.0,))).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_windows_are_drawn_within_their_settings() -> None:
    rng = np.random.default_rng(0)
    window = RandomWindow(RandomWindowConfig(probability=1.0, shift=0.3, width=(0.5, 2.0)))
    drawn = [each for _ in range(500) if (each := window.draw(rng, 1)) is not None]
    widths, shifts = (np.array([each.strengths for each in drawn]), np.array([each.shifts for each in drawn]))
    assert widths.min() >= 0.5 and widths.max() <= 2.0 and np.log(widths).mean() == pytest.approx(0, abs=0.06)
    assert np.abs(shifts).max() <= 0.3 and shifts.mean() == pytest.approx(0, abs=0.03)


def test_hounsfield_units_go_to_the_range_and_back() -> None:
    image = torch.tensor([[[-2000.0, -1000.0, -300.0, 400.0, 1100.0]]])
    entry = {"name": "random_window", "shift": 0, "width": [2, 2]}
    # The window from -1000 to 400 becomes one from -1700 to 1100.
    assert through(entry, image, [(-1000.0, 400.0)]).flatten().tolist() == pytest.approx(
        [-1000.0, -650.0, -300.0, 50.0, 400.0], abs=1e-3
    )
    assert image[0, 0, 0] == -2000


@pytest.mark.parametrize("turn", [-0.4, -1 / 3, 0.1, 1 / 6, 0.5])
def test_hue_turns_a_colour_as_far_as_asked_and_keeps_its_mean(turn: float) -> None:
    # A weak colour, which no turn brings out of the range.
    red, green, blue = HUE.apply(rgb(0.56, 0.5, 0.44), DrawnChange((turn,) * 3)).flatten().tolist()
    assert (red + green + blue) / 3 == pytest.approx(0.5, abs=1e-6)
    before, after = (
        np.dot([1, np.exp(2j * np.pi / 3), np.exp(-2j * np.pi / 3)], c) for c in ((0.56, 0.5, 0.44), (red, green, blue))
    )
    assert np.angle(after / before) / (2 * np.pi) % 1 == pytest.approx(turn % 1, abs=1e-5)
    assert abs(after) == pytest.approx(abs(before), abs=1e-6)


def test_a_third_of_a_turn_is_the_next_primary_colour_as_in_hsv() -> None:
    for turn in (1 / 3, -1 / 3):
        expected = colorsys.hsv_to_rgb(turn % 1, 1, 1)
        result = HUE.apply(rgb(1.0, 0.0, 0.0), DrawnChange((turn,) * 3))
        assert result.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_grey_has_no_hue_and_no_saturation() -> None:
    grey = rgb(0.3, 0.3, 0.3).expand(3, 4, 5).clone()
    assert torch.allclose(HUE.apply(grey.clone(), DrawnChange((0.2,) * 3)), grey)
    assert torch.allclose(SATURATION.apply(grey.clone(), DrawnChange((1.9,) * 3)), grey)


def test_saturation_multiplies_the_distance_from_grey_and_stays_in_the_range() -> None:
    # Grey of (0.6, 0.4, 0.4): 0.299 * 0.6 + 0.701 * 0.4 = 0.4598
    result = SATURATION.apply(rgb(0.6, 0.4, 0.4), DrawnChange((2.0,) * 3)).flatten().tolist()
    assert result == pytest.approx([0.7402, 0.3402, 0.3402], abs=1e-6)
    assert SATURATION.apply(rgb(1.0, 0.0, 0.0), DrawnChange((3.0,) * 3)).flatten().tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(SATURATION.apply(rgb(0.6, 0.4, 0.4), DrawnChange((1.0,) * 3)), rgb(0.6, 0.4, 0.4))


def test_all_channels_of_a_colour_take_the_same_draw() -> None:
    for change in (Hue(HueConfig(probability=1)), Saturation(SaturationConfig(probability=1))):
        drawn = change.draw(np.random.default_rng(3), 3)
        assert drawn is not None and len(set(drawn.strengths)) == 1
        low, high = change.strength
        assert low <= drawn.strengths[0] <= high


@pytest.mark.parametrize("change", [HUE, SATURATION])
def test_an_image_that_is_no_photograph_has_no_colours_to_change(change: Any) -> None:
    with pytest.raises(ConfigError, match="1 channel"):
        change.apply(torch.zeros(1, 2, 2), DrawnChange((1.0,)))


@pytest.mark.parametrize("name", ["random_window", "hue", "saturation"])
@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 5, 4)])
def test_the_same_draw_gives_the_same_image_within_the_range(name: str, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape) * 255
    before = image.clone()
    first, again = (through({"name": name}, image, [(0.0, 255.0)] * 3) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(image, before) and not torch.allclose(first, image)
    assert first.min() >= 0 and first.max() <= 255.001


def test_what_is_not_drawn_leaves_grey_levels_beyond_the_range() -> None:
    image = torch.full((1, 2, 2), 5000.0)
    assert through({"name": "random_window", "probability": 0}, image, [(0.0, 1.0)]) is image
