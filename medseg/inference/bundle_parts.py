"""Parts of `model.json` beside labels, plan and network: the stored network, its source, and models made of others."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from medseg.config import Labels, PostprocessConfig
from medseg.labels import LabelScheme

__all__ = [
    "COMPOSITES",
    "CompositeInfo",
    "CropInfo",
    "InfoPart",
    "Int8Info",
    "KeepLargest",
    "Line",
    "NetworkInfo",
    "ParityInfo",
    "SourceInfo",
    "TeacherInfo",
    "WorkingGrid",
]

# Models made of others, and what a message calls several of them.
COMPOSITES = {"ensemble": "ensembles", "cascade": "cascades", "parts": "models made of parts"}
MOST_MEMBERS = 100
MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _on_one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("expected text without line breaks and other control characters")
    return value


Ignored = Annotated[int, Field(ge=0, le=65535)]
"""A value to ignore."""

Line = Annotated[str, Field(max_length=200), AfterValidator(_on_one_line)]


KeepLargest = Annotated[
    tuple[Annotated[tuple[Line, ...], Field(min_length=1, max_length=1024)], ...], Field(max_length=1024)
]
"""Groups of labels of which only the largest component stays, see `medseg.inference.postprocess.keep_largest`."""


class InfoPart(BaseModel):
    """A part of `model.json`: frozen, without unknown keys, infinities or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ParityInfo(InfoPart):
    """How an exported network compares with the one that it was made of, over all folds.

    Args:
        windows: how many were compared in each fold.
        seen: 'cases': windows of prepared cases; 'noise': blurred noise, where none were at hand.
        probability: largest difference of a probability, 0 to 1.
        changed: share of the voxels that get another label, 0 to 1.
    """

    windows: Annotated[int, Field(ge=1)]
    seen: Literal["cases", "noise"]
    probability: Annotated[float, Field(ge=0, le=1)]
    changed: Annotated[float, Field(ge=0, le=1)]


class Int8Info(InfoPart):
    """What a network in INT8 costs and saves; of several folds the worst.

    Args:
        loss: mean Dice that it loses.
        against: what Dice was measured against: 'labels', or what the network finds in 'float32'.
        cases: how many it was measured on.
        size: of the files, as a share of those in float32.
        speed: how many times as fast a window is as in float32, on the machine of the export.
        floating: layers that stay float.
        seven_bits: whether weights keep to 7 bits, for processors whose 8-bit sums overflow.
    """

    loss: Annotated[float, Field(ge=-1, le=1)]
    against: Literal["labels", "float32"]
    cases: Annotated[int, Field(ge=1)]
    size: Annotated[float, Field(gt=0)]
    speed: Annotated[float, Field(gt=0)]
    floating: Annotated[tuple[Line, ...], Field(max_length=1024)] = ()
    seven_bits: bool = False


class NetworkInfo(InfoPart):
    """How the network is stored.

    Args:
        format: of the files: 'safetensors' are weights of a network that is built; 'onnx' and 'openvino' are networks
            as `medseg export` writes them.
        precision: of the weights; None where it was never recorded.
        engines_passed: engines whose masks were found to be those of the network itself.
        parity: of an exported network with the original; None for what was not exported.
        int8: of a network of this precision.
    """

    format: Literal["safetensors", "onnx", "openvino"] = "safetensors"
    precision: Literal["float32", "float16", "bfloat16", "int8"] | None = None
    engines_passed: Annotated[tuple[Line, ...], Field(max_length=32)] = ()
    parity: ParityInfo | None = None
    int8: Int8Info | None = None


class SourceInfo(InfoPart):
    """Where a model comes from.

    Args:
        kind: 'medseg': trained here; else the program whose model was imported.
        hash: SHA-256 of what was imported or exported, in hexadecimal digits; '' for models trained here.
        licence: of what was imported, "unknown" where not stated.
    """

    kind: Literal["medseg", "nnunet", "totalsegmentator", "monai", "deepbet"] = "medseg"
    hash: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    licence: Line = "unknown"


class TeacherInfo(InfoPart):
    """The model that a network learned from, beside the labels, see `medseg.losses.DistillationLoss`.

    Args:
        name: of its folder or file.
        hash: its `model_hash`: SHA-256 of `model.json` and weights.
        weight: of the distillation in the loss.
        temperature: of the probabilities.
    """

    name: Line
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    weight: Annotated[float, Field(ge=0, le=1)]
    temperature: Annotated[float, Field(gt=0)]


class WorkingGrid(InfoPart):
    """A grid that members see in place of the image's; the image is turned to RAS first.

    Args:
        spacing_mm: of the grid, with round(n * spacing / this) voxels; or
        shape: its voxels, whatever the image has. One of the two is given.
        method: 'corners': splines between the centres of the outermost voxels, which stay where they are, as
            `scipy.ndimage.zoom` has it (TotalSegmentator); 'nearest': of each voxel the nearest one, half-way the
            upper, with the outer edges kept (`torch.nn.functional.interpolate(mode="nearest-exact")`).
        order: of the splines.
        whole_numbers: whether grey levels lose what follows the decimal point, as if they were stored as int32.
    """

    spacing_mm: (
        Annotated[tuple[Annotated[float, Field(gt=0.01, le=100)], ...], Field(min_length=3, max_length=3)] | None
    ) = None
    shape: Annotated[tuple[Annotated[int, Field(ge=8, le=1024)], ...], Field(min_length=3, max_length=3)] | None = None
    method: Literal["corners", "nearest"] = "corners"
    order: Literal[0, 1, 3] = 1
    whole_numbers: bool = False

    @model_validator(mode="after")
    def _one(self) -> WorkingGrid:
        if (self.spacing_mm is None) == (self.shape is None):
            raise ValueError("a grid has either spacing_mm or shape")
        return self


class CropInfo(InfoPart):
    """The box in which all members but one work, and the member that finds it.

    Args:
        member: its name; its labels do not enter the result.
        labels: those of it that the box holds; () for all.
        rule: 'all': every voxel of these labels, on the image's grid; 'bulk': of their largest component on the
            member's grid, the rows of which more than 2 % are labelled.
        grid: that this member works on; None: the image's.
        margin_mm: beside the box on each side, in whole voxels of the image, rounded down.
        margin_share: the same as a share of the box.
    """

    member: str
    labels: Annotated[tuple[Line, ...], Field(max_length=1024)] = ()
    rule: Literal["all", "bulk"] = "all"
    grid: WorkingGrid | None = None
    margin_mm: Annotated[float, Field(ge=0, le=1000)] = 0.0
    margin_share: Annotated[float, Field(ge=0, le=1)] = 0.0


Share = Annotated[float, Field(ge=0, le=1)]


class CompositeInfo(InfoPart):
    """`model.json` of a model made of others, each a bundle of its own in `members/<name>/`.

    Args:
        kind: 'ensemble': the mean of the members' probabilities; 'cascade': each member sees the labels of the one
            before; 'parts': each member finds other labels, which are merged by their names; where two members label
            a voxel, the later one wins.
        labels, ignore: of the whole.
        members: names of the members, in order: letters, digits, `.`, `_` and `-`.
        source: where it comes from.
        data_license, weight_license: as of `BundleInfo`.
        grid: of 'parts', what the members work on; None: the image's.
        crop: of 'parts', where they work; None: everywhere.
        levels: of 'parts': grey levels are limited to these two quantiles of the image as `crop.member` sees it.
        postprocess: of 'parts', what is corrected in every mask.
        postprocess_on: where: on `grid`, or on the image's own.
        keep_largest: of 'ensemble', as of a single model's prediction.
    """

    format_version: Literal[2] = 2
    kind: Literal["ensemble", "cascade", "parts"]
    labels: Labels
    ignore: Ignored | Annotated[tuple[Ignored, ...], Field(max_length=1024)] | None = None
    members: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    source: SourceInfo = SourceInfo()
    data_license: Line = "unknown"
    weight_license: Line = "unknown"
    grid: WorkingGrid | None = None
    crop: CropInfo | None = None
    levels: tuple[Share, Share] | None = None
    postprocess: PostprocessConfig = PostprocessConfig()
    postprocess_on: Literal["grid", "image"] = "grid"
    keep_largest: KeepLargest = ()

    @property
    def scheme(self) -> LabelScheme:
        """The labels as a scheme, as the masks of this model are written."""
        return LabelScheme.from_mapping(self.labels, self.ignore).written

    @property
    def finders(self) -> tuple[str, ...]:
        """The members whose labels are those of the result."""
        return tuple(name for name in self.members if self.crop is None or name != self.crop.member)

    def to_json(self) -> str:
        """`model.json`."""
        return self.model_dump_json(indent=2) + "\n"

    @field_validator("members")
    @classmethod
    def _members(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not MEMBER.fullmatch(name):
                raise ValueError(f"{name[:80]!r} is not a member's name: expected letters, digits, '.', '_' and '-'")
        # Some file systems do not distinguish upper and lower case.
        if len({name.casefold() for name in value}) < len(value):
            raise ValueError("two members have the same name")
        return value

    @model_validator(mode="after")
    def _fits(self) -> CompositeInfo:
        if self.kind != "parts":
            if len(self.members) < 2:
                raise ValueError(f"members: of {COMPOSITES[self.kind]} there are two or more")
            if (self.grid, self.crop, self.levels, self.postprocess) != (None, None, None, PostprocessConfig()):
                raise ValueError("grid, crop, levels and postprocess belong to models of the kind 'parts'")
        elif LabelScheme.from_mapping(self.labels).is_regions:
            raise ValueError("labels: those of a model made of parts are plain values, no regions")
        if self.keep_largest and self.kind != "ensemble":
            raise ValueError("keep_largest belongs to models of the kind 'ensemble', and to members")
        if self.crop is not None and (self.crop.member not in self.members or not self.finders):
            raise ValueError("crop.member is to be one of the members, and not the only one")
        if self.levels is not None and (self.crop is None or self.levels[0] >= self.levels[1]):
            raise ValueError("levels are two rising shares, and need crop.member")
        return self

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        usual: dict[str, Any] = {"grid": None, "crop": None, "levels": None}
        usual |= {"postprocess": PostprocessConfig(), "postprocess_on": "grid", "keep_largest": ()}
        return {key: each for key, each in values.items() if key not in usual or getattr(self, key) != usual[key]}
