"""`Plan`: how cases become network input and how large the net is; written as an editable `plan.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from medseg.config import PatchSize, SelectRule, Spacing, parse_yaml, read_text, validate_model
from medseg.disk.atomic import write_text_atomic
from medseg.errors import ConfigError
from medseg.preparation.patch import total_stride

__all__ = ["ChannelPlan", "Plan", "load_plan", "save_plan"]

HEADER = """\
# How medseg prepares the cases of this run and how large its net is. Edit me: a run keeps what stands here.
# Delete this file to plan anew. Cases are prepared again where an edit matters to them.
#   orientation    the axes of a prepared case, e.g. RAS: i to the right, j anterior, k superior; null for 2D images
#   spacing_mm     per axis in that order; null: pixels are used as they are (for 2D nets, slices are not resampled)
#   patch_size     voxels the net sees at once in training; divisible by the product of the strides along each axis
#   normalization  per channel: zscore (per case), clip (to low..high, then mean and std) or window
#   select         per channel: which series of a DICOM study it is (name, modality, body_part, description, min_slices,
#                  thickness_mm, orientation, contrast, derived, reference; see docs); [] leaves it to the defaults
#   channels       features per stage of the net; strides: how much each stage shrinks each axis
"""
# Grey levels and their spread, as single precision holds them.
Level = Annotated[float, Field(ge=-1e30, le=1e30)]
Spread = Annotated[float, Field(ge=1e-30, le=1e30)]
Channels = Annotated[int, Field(ge=1, le=1024)]
MOST_STAGES = 16


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ChannelPlan(_Part):
    """How one channel is normalised.

    'zscore': mean and std of each case. 'clip' and 'window': `(clip(x, low, high) - mean) / std`, the same for all.
    """

    kind: Literal["zscore", "clip", "window"]
    low: Level | None = None
    high: Level | None = None
    mean: Level | None = None
    std: Spread | None = None

    @model_validator(mode="after")
    def _complete(self) -> ChannelPlan:
        numbers = (self.low, self.high, self.mean, self.std)
        if self.kind == "zscore":
            if any(n is not None for n in numbers):
                raise ValueError("zscore is measured per case and takes no low, high, mean or std")
        elif self.low is None or self.high is None or self.mean is None or self.std is None:
            raise ValueError(f"{self.kind} needs low, high, mean and std")
        elif self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class Plan(_Part):
    """How cases become network input.

    Args:
        dims: spatial axes of the net. 2 with an orientation: a net that sees slices of volumes along their last axis.
        orientation: axes of a prepared case, None for 2D images.
        spacing_mm: per axis of a prepared case, 1e-5 to 1e4; None where pixels are used as they are.
        patch_size: voxels per axis of the net, at most 2^26 together.
        batch_size: samples per training step, at most 65536.
        in_channels: of the images, at most 1024.
        normalization: per channel.
        channels: features per stage, at most 16384 each, in 16 stages at most.
        strides: per stage and axis of the net, at most 64; the first stage's are 1.
        select: per channel, which series of a study it is; () where nothing is known of the channels.

    Raises:
        pydantic.ValidationError: for parts that do not fit together; `load_plan` gives a ConfigError.
    """

    format_version: Literal[1] = 1
    dims: Literal[2, 3]
    orientation: str | None
    spacing_mm: Annotated[tuple[Spacing, ...], Field(max_length=3)] | None
    patch_size: PatchSize
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    in_channels: Channels
    normalization: Annotated[tuple[ChannelPlan, ...], Field(max_length=1024)]
    channels: tuple[Annotated[int, Field(ge=1, le=16384)], ...] = Field(min_length=1, max_length=MOST_STAGES)
    strides: tuple[Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(max_length=3)], ...] = Field(
        min_length=1, max_length=MOST_STAGES
    )
    select: Annotated[tuple[SelectRule, ...], Field(max_length=1024)] = ()

    @property
    def spatial_dims(self) -> int:
        """Spatial axes of a prepared case, 2 or 3."""
        return 2 if self.orientation is None else 3

    @property
    def net_spacing_mm(self) -> tuple[float, ...] | None:
        """Spacing along the axes the net sees."""
        return None if self.spacing_mm is None else self.spacing_mm[: self.dims]

    @property
    def zscored(self) -> tuple[bool, ...]:
        """Per channel, whether each case is normalised by its own mean and std, so that its scale is not seen."""
        return tuple(channel.kind == "zscore" for channel in self.normalization)

    @property
    def reference_channel(self) -> int:
        """The channel whose grid the others are brought to."""
        return next((n for n, rule in enumerate(self.select) if rule.reference), 0)

    @field_validator("select")
    @classmethod
    def _select(cls, value: tuple[SelectRule, ...], info: ValidationInfo) -> tuple[SelectRule, ...]:
        if value and "in_channels" in info.data:
            _expect_length(value, info.data["in_channels"], "channels (in_channels)")
        if sum(rule.reference for rule in value) > 1:
            raise ValueError("only one channel can be the reference")
        return value

    @field_validator("orientation")
    @classmethod
    def _orientation(cls, value: str | None, info: ValidationInfo) -> str | None:
        axes = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
        if value is not None and (len(value) != 3 or {axes.get(letter) for letter in value} != {"x", "y", "z"}):
            raise ValueError("give three letters, one each of R/L, A/P and S/I, e.g. RAS; null for 2D images")
        if value is None and info.data.get("dims") == 3:
            raise ValueError("a 3D net needs an orientation, e.g. RAS")
        return value

    @field_validator("spacing_mm")
    @classmethod
    def _spacing(cls, value: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        if value is not None and "orientation" in info.data:
            _expect_length(value, 2 if info.data["orientation"] is None else 3, "axes of a prepared case")
        return value

    @field_validator("patch_size")
    @classmethod
    def _patch(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if "dims" in info.data:
            _expect_length(value, info.data["dims"], "axes of the net")
        return value

    @field_validator("normalization")
    @classmethod
    def _normalization(cls, value: tuple[ChannelPlan, ...], info: ValidationInfo) -> tuple[ChannelPlan, ...]:
        if "in_channels" in info.data:
            _expect_length(value, info.data["in_channels"], "channels (in_channels)")
        return value

    @field_validator("strides")
    @classmethod
    def _strides(cls, value: tuple[tuple[int, ...], ...], info: ValidationInfo) -> tuple[tuple[int, ...], ...]:
        if "channels" in info.data:
            _expect_length(value, len(info.data["channels"]), "stages (channels)")
        for stride in value if "dims" in info.data else ():
            _expect_length(stride, info.data["dims"], "axes of the net")
        if any(s != 1 for s in value[0]):
            raise ValueError("the strides of the first stage must be 1")
        patch = info.data.get("patch_size", ())
        if len(patch) == len(value[0]):
            total = total_stride(value)
            if any(p % t for p, t in zip(patch, total, strict=True)):
                raise ValueError(f"patch_size {patch} is not divisible by the total stride {total}")
        return value


def _expect_length(value: Sequence[Any], wanted: int, what: str) -> None:
    if len(value) != wanted:
        raise ValueError(f"expected {wanted} entries, one for each of the {what}")


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as YAML with a line of help for each part.

    Raises:
        WriteError: if the file cannot be written.
    """
    content = plan.model_dump(mode="json")
    write_text_atomic(path, HEADER + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))


def load_plan(path: Path) -> Plan:
    """A plan from its YAML file.

    Raises:
        ConfigError: for a file that cannot be read, is not YAML, or whose parts do not fit; names file and key.
    """
    mend = "mend it, or delete it to plan anew"
    try:
        content = parse_yaml(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {mend}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}; {mend}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}; {mend}")
    try:
        return validate_model(Plan, content, str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}; {mend}") from None
