"""`prediction`: how a trained model is applied, and how its masks are post-processed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medseg.config.part import Part

__all__ = ["MOST_OVERLAP", "Overlap", "PostprocessConfig", "PredictionConfig"]

MOST_OVERLAP = 0.95
"""Windows that overlap by more are so many that an image takes days."""
MOST_RULES = 1024


def _below_one(value: float) -> float:
    if value > MOST_OVERLAP:
        raise ValueError(f"windows overlap by {MOST_OVERLAP} at most")
    return value


Overlap = Annotated[float, Field(ge=0, lt=1), AfterValidator(_below_one)]
"""Least overlap of windows, from 0 to 0.95."""


class PostprocessConfig(Part):
    """Post-processing of a predicted mask, per label or region by name; applied in this order.

    `inside`: label -> the label it lies in or beside; components that do not touch that one are removed.
    `minimum_volume_ml`: smaller components are removed. `keep_components`: how many of the largest stay.
    `keep_central`: how many stay of those that are large and near the middle of the image, for crops around one object.
    `fill_holes`: labels whose enclosed background is added to them. Volumes go up to 1000 litres, counts to a million.
    """

    inside: dict[str, str] = Field(default_factory=dict, max_length=MOST_RULES)
    minimum_volume_ml: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default_factory=dict, max_length=MOST_RULES
    )
    keep_components: dict[str, Annotated[int, Field(ge=1, le=10**6)]] = Field(
        default_factory=dict, max_length=MOST_RULES
    )
    keep_central: dict[str, Annotated[int, Field(ge=1, le=10**6)]] = Field(default_factory=dict, max_length=MOST_RULES)
    fill_holes: tuple[str, ...] = Field(default=(), max_length=MOST_RULES)


class PredictionConfig(Part):
    """How a model is applied.

    `overlap` is the least share by which neighbouring windows overlap; without it, the plan's. `mirror` averages
    the predictions of mirrored images, along the axes that were mirrored in training. `postprocess` is 'choose',
    which keeps for each label what helps on the validation cases, 'off', or your own rules. `crf` is 'off', or
    'fit', which tries a dense CRF on a few validation cases after the training and keeps it where it gains.
    `quality` is 'off', or 'calibrate', which makes predict --estimate-quality possible, from perturbed copies of
    the validation cases.
    """

    overlap: Overlap | None = None
    mirror: bool = True
    postprocess: Literal["choose", "off"] | PostprocessConfig = "choose"
    crf: Literal["off", "fit"] = "off"
    quality: Literal["off", "calibrate"] = "off"
