"""The parts of a plan: closed choices with a fixed meaning, read by preparation, restore and sliding window.

A choice that is part of the format but that this version cannot carry out is refused when the plan is read, so that no
plan is ever followed in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medseg.config import Overlap

__all__ = [
    "ChannelPlan",
    "ImagePlan",
    "LabelPlan",
    "LogitPlan",
    "PlanPart",
    "PlanSize",
    "UnmirroredAxis",
    "WindowPlan",
]

# Grey levels and their spread, as single precision holds them.
Level = Annotated[float, Field(ge=-1e30, le=1e30)]
Spread = Annotated[float, Field(ge=1e-30, le=1e30)]


class PlanPart(BaseModel):
    """A part of a plan: frozen, without unknown keys, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


# Where the numbers of a channel are measured: in every voxel, or in those that are not background.
Region = Literal["all", "foreground", "box", "mask"]


class ChannelPlan(PlanPart):
    """How one channel is normalised: `(clip(x, low, high) - mean) / std`.

    Args:
        kind: 'clip' and 'window': by the numbers given, the same for all cases. 'zscore': by mean and standard
            deviation of each case. 'unit': from minimum..maximum of each case to 0..1. 'rgb': from 0..255 to 0..1,
            then by mean and std where they are given. 'none': grey levels as they are.
        low, high: of 'clip' and 'window'.
        mean, std: of 'clip' and 'window', in grey levels; of 'rgb', from 0 to 1, or None.
        region: where 'zscore' and 'unit' measure a case: 'all' voxels but padding; or the 'foreground', which leaves
            out the background as well. 'box' and 'mask', of images that are cropped to their nonzero voxels: the box
            around these, or these with the holes between them; beyond the mask normalised images are 0. None:
            'foreground' for 'zscore', else 'all'.
        background: of the region 'foreground', decided once for the data set: a grey level, with all that is darker; or
            the 'frame' of each case, the level that its corners share, else its minimum. 'common' is what the first
            plans did: the most common grey level of each case if it fills at least 20 % of the image. None: 'common'
            for the region 'foreground'; nothing else has a background.
    """

    kind: Literal["zscore", "clip", "window", "unit", "rgb", "none"]
    low: Level | None = None
    high: Level | None = None
    mean: Level | None = None
    std: Spread | None = None
    region: Region = "all"
    background: Literal["common", "frame"] | Level | None = None

    @model_validator(mode="before")
    @classmethod
    def _usual_region(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if values.get("region") is None:
            values = {**values, "region": "foreground" if values.get("kind") == "zscore" else "all"}
        if values.get("background") is None and values["region"] == "foreground":
            values = {**values, "background": "common"}
        return values

    @model_validator(mode="after")
    def _complete(self) -> ChannelPlan:
        numbers = (self.low, self.high, self.mean, self.std)
        if self.kind == "rgb":
            if self.low is not None or self.high is not None or (self.mean is None) != (self.std is None):
                raise ValueError("rgb takes no low or high, and either both mean and std or neither")
        elif self.kind not in ("clip", "window"):
            if any(n is not None for n in numbers):
                raise ValueError(f"{self.kind} takes no low, high, mean or std")
        elif self.low is None or self.high is None or self.mean is None or self.std is None:
            raise ValueError(f"{self.kind} needs low, high, mean and std")
        elif self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.kind not in ("zscore", "unit") and self.region != "all":
            raise ValueError(f"{self.kind} measures nothing in a case, so its region can only be 'all'")
        if self.background is not None and self.region != "foreground":
            raise ValueError(f"the region '{self.region}' has no background; only 'foreground' leaves one out")
        return self

    @property
    def per_case(self) -> bool:
        """Whether each case is normalised by its own grey levels, so that the network sees neither scale nor unit."""
        return self.kind in ("zscore", "unit")


class ImagePlan(PlanPart):
    """How images are interpolated.

    Args:
        order: of the splines: 0 nearest neighbour (half-way to the lower index), 1 linear, 3 cubic.
        clip: cubic splines overshoot; True keeps each channel within its own minimum and maximum.
        prefilter: what averages an image along axes that get coarser than 1.5 times: 'none'; 'area': the mean over
            each new voxel, without interpolation; 'gaussian': of standard deviation (factor - 1) / 2 old voxels.
        thick_axis: 'same': all axes alike; 'nearest': slices one by one, and nearest neighbour (half-way to the upper
            index) along an axis that is more than 3 times as coarse as the others.
    """

    order: Literal[0, 1, 3] = 1
    clip: bool = True
    prefilter: Literal["none", "area", "gaussian"] = "none"
    thick_axis: Literal["same", "nearest"] = "same"


class LabelPlan(PlanPart):
    """How label maps are brought to the network's grid.

    Args:
        method: 'nearest' neighbour; the label that fills the largest 'area' of the new voxel; or 'linear', the label
            whose share is largest where each is interpolated linearly (nnU-Net).
        ties: which of two labels that fit equally well is taken: of neighbours half-way the one of 'lower' or of
            'upper' index, of equal areas the one of 'lower' or of 'upper' value. 'unbiased': of neighbours both by
            turns; areas that differ by up to a third so that each component keeps its volume and place. Of 'linear' the
            nearest neighbour decides.
    """

    method: Literal["nearest", "area", "linear"] = "nearest"
    ties: Literal["lower", "upper", "unbiased"] = "lower"


class LogitPlan(PlanPart):
    """How logits come back to the image's grid.

    Args:
        order: 0 nearest neighbour (half-way to the lower or the upper index, by turns), 1 linear.
        thick_axis: as for images.
    """

    order: Literal[0, 1] = 1
    thick_axis: Literal["same", "nearest"] = "same"


class WindowPlan(PlanPart):
    """The windows of prediction.

    Args:
        overlap: least fraction of a window that its neighbour shares, 0 to 0.95.
        starts: 'whole_step': evenly spread, as few as a step of whole voxels, rounded down, allows; 'real_step': as few
            as the unrounded step allows (nnU-Net).
        weights: 'gaussian' around the window's centre, standard deviation 1/8 of the window; 'impulse': the same around
            voxel size // 2 (nnU-Net); 'uniform': every voxel counts the same.
    """

    overlap: Overlap = 0.5
    starts: Literal["whole_step", "real_step"] = "whole_step"
    weights: Literal["gaussian", "impulse", "uniform"] = "gaussian"


class UnmirroredAxis(PlanPart):
    """An axis that is mirrored neither in training nor in prediction.

    Args:
        axis: of the network, counted from 0.
        reason: for people.
    """

    axis: Annotated[int, Field(ge=0, le=2)]
    reason: Annotated[str, Field(max_length=4000)] = ""


class PlanSize(PlanPart):
    """The size that the configuration asked for (`plan.size`).

    Args:
        name: of the size.
        reason: what it brought, for people.
    """

    name: Literal["fast", "large", "resenc_m", "resenc_l"]
    reason: Annotated[str, Field(max_length=4000)] = ""
