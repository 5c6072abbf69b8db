"""Windowing against the text of the standard, against pydicom, and at the edges."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from medseg.errors import ConfigError
from medseg.volume import Volume
from medseg.windowing import PRESETS, WindowFunction, window

FUNCTIONS: tuple[WindowFunction, ...] = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
HU = np.arange(-1100, 1200, 3).astype(np.int16)


def as_in_the_standard(x: float, c: float, w: float, function: str) -> float:
    """The pseudo-code of PS3.3 C.11.2.1.2.1 and the formulas of C.11.2.1.3, with ymin 0 and ymax 1."""
    if function == "SIGMOID":
        return float(1 / (1 + np.exp(-4 * (x - c) / w)))
    if function == "LINEAR_EXACT":
        if x <= c - w / 2:
            return 0.0
        if x > c + w / 2:
            return 1.0
        return (x - c) / w + 0.5
    if x <= c - 0.5 - (w - 1) / 2:
        return 0.0
    if x > c - 0.5 + (w - 1) / 2:
        return 1.0
    return (x - (c - 0.5)) / (w - 1) + 0.5


@pytest.mark.parametrize("function", FUNCTIONS)
@given(x=st.integers(-3000, 3000), c=st.integers(-1000, 1000), w=st.one_of(st.integers(1, 4), st.integers(5, 4000)))
def test_every_function_follows_the_pseudo_code_of_the_standard(
    function: WindowFunction, x: int, c: int, w: int
) -> None:
    with np.errstate(over="ignore"):
        expected = as_in_the_standard(x, c, w, function)
    assert_allclose(window(np.array([x]), center=c, width=w, function=function), [expected], atol=2e-6)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_agrees_with_pydicom(function: WindowFunction, preset: str) -> None:
    image = Dataset()
    image.PhotometricInterpretation, image.BitsStored, image.PixelRepresentation = "MONOCHROME2", 16, 1
    image.WindowCenter, image.WindowWidth = PRESETS[preset].center_hu, PRESETS[preset].width_hu
    image.VOILUTFunction = function
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = apply_windowing(HU, image)
    theirs = (theirs + 32768) / 65535  # pydicom maps to the range of the stored pixels
    assert_allclose(window(HU, preset, function=function), theirs, atol=2e-5)


def test_linear_window_of_the_lung_by_hand() -> None:
    # Centre -600, width 1500: from -600.5 - 749.5 = -1350 up to 149.
    assert_allclose(window(np.array([-1350, -600.5, 149]), "lung"), [0, 0.5, 1], atol=1e-6)


def test_a_linear_window_of_width_one_is_a_threshold() -> None:
    assert window(np.array([39, 39.5, 39.6, 40]), center=40, width=1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_output_is_float32_between_zero_and_one_and_never_falls(function: WindowFunction) -> None:
    result = window(HU, "soft_tissue", function=function)
    assert result.dtype == np.float32
    assert result.min() >= 0 and result.max() <= 1
    assert (np.diff(result) >= 0).all()


def test_the_input_is_left_as_it_is() -> None:
    values = np.array([0.0, 10.0], dtype=np.float32)
    window(values, "brain")
    assert values.tolist() == [0.0, 10.0]


def test_a_volume_stays_in_its_place_and_keeps_its_channels() -> None:
    volume = Volume(np.zeros((2, 3, 4, 5), np.int16), np.diag([2.0, 2, 3, 1]), channels=2)
    result = window(volume, "lung")
    assert isinstance(result, Volume) and result.channels == 2
    assert result.same_geometry(volume) and result.array.dtype == np.float32


def test_extreme_values_do_not_overflow() -> None:
    assert window(np.array([-1e30, 1e30]), center=0, width=0.5, function="SIGMOID").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "lnug"}, "there are: lung, "),
        ({}, "preset name, or both"),
        ({"center": 40}, "both center and width"),
        ({"preset": "lung", "center": 1}, "not both"),
        ({"center": 1, "width": 0.5}, "at least 1"),
        ({"center": 1, "width": 0, "function": "SIGMOID"}, "above 0"),
        ({"center": 1, "width": float("nan")}, "at least 1"),
        ({"center": 1, "width": 2, "function": "CUBIC"}, "LINEAR, LINEAR_EXACT, SIGMOID"),
    ],
)
def test_a_window_that_cannot_be_is_refused_with_the_mend(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        window(HU, **arguments)  # type: ignore[call-overload]


def test_every_preset_names_its_source() -> None:
    assert {"lung", "mediastinum", "soft_tissue", "bone", "brain", "stroke", "liver", "angio"} == set(PRESETS)
    assert all(each.source for each in PRESETS.values())
