"""Grey-level windows: DICOM PS3.3 C.11.2.1.2 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT).

Output is float32 in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError
from medseg.lookup import nearest_hint
from medseg.volume import Volume

__all__ = ["PRESETS", "Window", "WindowFunction", "window"]

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True, slots=True)
class Window:
    """A named window: centre and width in Hounsfield units, and the source of the pair."""

    center_hu: float
    width_hu: float
    source: str


_RADIOPAEDIA = "Murphy A, Windowing (CT), Radiopaedia.org, rID 52108"

PRESETS: dict[str, Window] = {
    "lung": Window(-600, 1500, _RADIOPAEDIA),
    "mediastinum": Window(50, 350, _RADIOPAEDIA),
    "soft_tissue": Window(50, 400, _RADIOPAEDIA),
    "bone": Window(400, 1800, _RADIOPAEDIA),
    "brain": Window(40, 80, _RADIOPAEDIA),
    "stroke": Window(40, 40, _RADIOPAEDIA),
    "liver": Window(30, 150, _RADIOPAEDIA),
    "angio": Window(300, 600, "customary CT angiography preset of viewers; no published standard"),
}


@overload
def window(
    image: Volume,
    preset: str | None = None,
    *,
    center: float | None = None,
    width: float | None = None,
    function: WindowFunction = "LINEAR",
) -> Volume: ...


@overload
def window(
    image: NDArray[Any],
    preset: str | None = None,
    *,
    center: float | None = None,
    width: float | None = None,
    function: WindowFunction = "LINEAR",
) -> NDArray[np.float32]: ...


def window(
    image: Volume | NDArray[Any],
    preset: str | None = None,
    *,
    center: float | None = None,
    width: float | None = None,
    function: WindowFunction = "LINEAR",
) -> Volume | NDArray[np.float32]:
    """Grey levels mapped through a window to [0, 1].

    Args:
        image: a `Volume` or an array of any shape, in Hounsfield units or the scanner's own values.
        preset: a name in `PRESETS`; or give `center` and `width`.
        center: window centre, in the image's units.
        width: window width; at least 1 for LINEAR, above 0 for the others.
        function: LINEAR (DICOM's default: the window spans width - 1 grey levels), LINEAR_EXACT or SIGMOID.

    Returns:
        float32 of the same shape, in [0, 1]; a `Volume` for a `Volume`.

    Raises:
        ConfigError: for an unknown preset or function, a width out of range, or neither preset nor centre and width.

    Source:
        DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Example:
        >>> window(np.array([-1350.0, -600.0, 150.0]), "lung").round(2).tolist()
        [0.0, 0.5, 1.0]
    """
    if preset is not None:
        if center is not None or width is not None:
            raise ConfigError("give a window preset or center and width, not both")
        if preset not in PRESETS:
            names = ", ".join(PRESETS)
            raise ConfigError(f"unknown window preset {preset!r}; there are: {names}{nearest_hint(preset, PRESETS)}")
        center, width = PRESETS[preset].center_hu, PRESETS[preset].width_hu
    if center is None or width is None:
        raise ConfigError("a window needs a preset name, or both center and width")
    if not (width >= 1.0 if function == "LINEAR" else width > 0.0):
        least = "at least 1" if function == "LINEAR" else "above 0"
        raise ConfigError(f"window width {width} is too small for {function}: it must be {least}")
    array = image.array if isinstance(image, Volume) else np.asarray(image)
    values = array.astype(np.float32)
    if function == "LINEAR":
        # PS3.3 equation C.11-2a; a width of 1 is a threshold at center - 0.5.
        if width == 1.0:
            values = (values > center - 0.5).astype(np.float32)
        else:
            values -= np.float32(center - 0.5)
            values /= np.float32(width - 1.0)
            values += np.float32(0.5)
    elif function == "LINEAR_EXACT":
        values -= np.float32(center)
        values /= np.float32(width)
        values += np.float32(0.5)
    elif function == "SIGMOID":
        values -= np.float32(center)
        values *= np.float32(-4.0 / width)
        with np.errstate(over="ignore"):
            np.exp(values, out=values)
        values += np.float32(1.0)
        np.reciprocal(values, out=values)
    else:
        raise ConfigError(f"unknown window function {function!r}; there are: LINEAR, LINEAR_EXACT, SIGMOID")
    np.clip(values, 0.0, 1.0, out=values)
    return image.with_array(values, image.channels) if isinstance(image, Volume) else values
