"""`semi`: images without labels, which a training uses beside the labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.config.part import Count, Fraction, Part

__all__ = ["SemiConfig"]


class SemiConfig(Part):
    """Semi-supervision: a network also learns to give the same labels to differently augmented views of an image.

    `unlabelled`: a folder of images without labels, alike those of the data set; without it this part has no effect.
    `method`: mean_teacher takes the labels from the running average of the network's own weights, cross_pseudo from a
    second network that is trained beside it; by default mean_teacher. Labels are found on a weak view of a patch (moved
    and deformed, grey levels as they are), and learned on its strong view.
    `weight`: of the loss on unlabelled images, beside 1 for that on labelled ones.
    `start`: share of the training in which labelled images are learned alone, so that the first labels are of use.
    `ramp`: share of the training in which that weight then rises from almost nothing.
    `confidence`: voxels with a lower probability of their most likely label take no part.
    `cutmix`: share of the steps in which the unlabelled patches exchange a box, and their labels with it.
    `patches`: unlabelled ones per step, on all devices together; by default half as many as labelled ones.
    """

    unlabelled: Path | None = None
    method: Literal["mean_teacher", "cross_pseudo"] | None = None
    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    start: Fraction = 0.5
    ramp: Fraction = 0.2
    confidence: Fraction = 0.8
    cutmix: Fraction = 0.5
    patches: Count | None = None

    @model_validator(mode="after")
    def _has_images(self) -> SemiConfig:
        # A recorded configuration holds every key with its default.
        if self.unlabelled is None and self.model_dump() != SemiConfig.model_construct().model_dump():
            raise ValueError("unlabelled is not given; give the folder of the images without labels")
        return self
