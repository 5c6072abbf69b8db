"""`weak`: how `medseg pseudo-label` makes label maps from image-level labels or boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.config.part import Fraction, Part, Positive

__all__ = ["WeakConfig"]


class WeakConfig(Part):
    """Pseudo-labels from weaker annotations, which `medseg pseudo-label` writes.

    `source`: what is given. table: a CSV (`data.csv`) with the columns case, image, where it matters slice and group,
    and one of 0 and 1 for each label; folders: a folder for each label, and one called normal, negative, healthy,
    background or none for images without any; masks: label maps, of which only what occurs in an image is used, for
    experiments; boxes: `boxes`, or label maps whose labels are filled boxes. auto: boxes, table or folders where the
    data are so, else masks.
    `boxes`: a CSV with the columns case, label, i_min, i_max, j_min, j_max and in volumes k_min, k_max (first and last
    voxel, counted from 0), or an annotation file or folder of Labelme, CVAT, Supervisely or COCO.
    `backbone`: of the classifier that learns which labels an image shows; one of medseg nets.
    `width`: factor on its features.
    `stage`: which of the five maps of the backbone, at strides 2 to 32, tells where a label is: an early one where grey
    levels and texture tell it, a late one where its shape does.
    `classifier_minutes`: that the classifier trains; without it, as long as `training` says.
    `longest`: voxels along the longest side of the images that it sees; larger ones are averaged.
    `scales`: enlargements of the image whose class activation maps are averaged, each mirrored, too.
    `method`: cam, grad_cam, or both, whose mean counts.
    `map_threshold`: share of the maximum of a case's maps above which a voxel is taken for the label.
    `walk_steps`: of the random walk that spreads the maps over voxels which look alike; 0 leaves it out.
    `grey_levels`: whether labels in boxes move to voxels with the grey levels of their middle, not of what is around.
    `crf`: whether the dense CRF moves labels to the edges of the image.
    `certainty`: probability of its label below which a voxel is ignored.
    `background`: where no label can be. frame: the grey level around what images show, outside of it; air: outside of
    the patient in CT; auto: air where `data.modality` is CT, else frame; none: nothing is ruled out.
    """

    source: Literal["auto", "table", "folders", "masks", "boxes"] = "auto"
    boxes: Path | None = None
    backbone: str = "resnet18"
    width: Positive = 0.5
    stage: Annotated[int, Field(ge=1, le=5)] = 1
    classifier_minutes: Positive | None = None
    longest: Annotated[int, Field(ge=16, le=1024)] = 128
    scales: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8)] = (1.0, 1.5, 2.0)
    method: Literal["cam", "grad_cam", "both"] = "cam"
    map_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.6
    walk_steps: Annotated[int, Field(ge=0, le=1000)] = 20
    grey_levels: bool = True
    crf: bool = True
    certainty: Fraction = 0.7
    background: Literal["auto", "frame", "air", "none"] = "auto"

    @model_validator(mode="after")
    def _boxes_are_used(self) -> WeakConfig:
        if self.boxes is not None and self.source not in ("auto", "boxes"):
            raise ValueError(f"boxes are given, but source is {self.source}; leave one of them out")
        return self
