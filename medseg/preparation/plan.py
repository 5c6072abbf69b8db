"""`Plan`: how cases become network input and how large the net is; written as an editable `plan.yaml`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from medseg.config import PatchSize, Range, SelectRule, Spacing, parse_yaml, read_text, validate_model
from medseg.disk.atomic import write_text_atomic
from medseg.errors import ConfigError
from medseg.preparation.patch import total_stride
from medseg.preparation.plan_fields import (
    ChannelPlan,
    ImagePlan,
    LabelPlan,
    LogitPlan,
    PlanPart,
    PlanSize,
    UnmirroredAxis,
    WindowPlan,
)
from medseg.preparation.plan_upgrade import implied, upgrade_plan

__all__ = ["ChannelPlan", "Plan", "load_plan", "save_plan"]

HEADER = """\
# How medseg prepares the cases of this run and how large its net is. Edit me: a run keeps what stands here.
# Delete this file to plan anew. Cases are prepared again where an edit matters to them.
#   orientation    the axes of a prepared case, e.g. RAS: i to the right, j anterior, k superior; null for 2D images
#   spacing_mm     per axis in that order; null: pixels are used as they are (for 2D nets, slices are not resampled)
#   patch_size     voxels the net sees at once in training; divisible by the product of the strides along each axis
#   normalization  per channel: zscore (per case), clip (to low..high, then mean and std), window, unit (minimum to
#                  maximum of each case become 0 to 1), rgb (0..255 become 0 to 1, then mean and std if given) or none;
#                  region: where zscore and unit measure a case, all or foreground; background: the grey level at and
#                  below which foreground leaves voxels out, frame (of each case, the level of its corners), or common
#                  (the most common level of a case if it fills a fifth of it, as older plans had it)
#   select         per channel: which series of a DICOM study it is (name, modality, body_part, description, min_slices,
#                  thickness_mm, orientation, contrast, derived, reference; see docs); [] leaves it to the defaults
#   channels       features per stage of the net; strides: how much each stage shrinks each axis; kernels: voxels of its
#                  convolutions along each axis (nnunet_plain and nnunet_resenc; left out: 3)
#   size           plan.size, where it was not the default, and what it brought
#   axes           RAS: turned to orientation; file: as stored (2D images, imported models); transpose: the order of
#                  the file's axes
#   normalize_on   native: grey levels are normalised before resampling; network: after it
#   image          order of interpolation (0 nearest, 1 linear, 3 cubic), clip: cubic stays within minimum and maximum;
#                  prefilter: what averages an image where it gets coarser than 1.5 times (none, area, gaussian)
#   labels         how label maps are resampled: nearest, or the label that fills most of the new voxel (area; linear as
#                  in nnU-Net); ties: lower, upper, or so that nothing moves, shrinks or grows (unbiased)
#   logits         order of interpolation on the way back to the image (0 or 1)
#   shape_rounding extent: voxels = round(n * spacing / target); ratio: round(n * (spacing / target))
#   padding        what surrounds an image smaller than the patch: its minimum, or zero after normalisation
#   low_resolution_ties   of the augmentation low_resolution: which of two equally near voxels is taken, either by turns
#                  (unbiased) or the upper one, which moves a patch by up to half a voxel (upper, as older plans had it)
#   windows        overlap (0 to 0.95), starts (whole_step, real_step), weights (gaussian, impulse, uniform)
#   unmirrored     axes of the net that are never mirrored, with the reason: mirroring would exchange left and right, or
#                  make images that point another way than all others. Take an entry out to mirror all the same; null:
#                  decided by names, as far as version 1 knew them
#   downsampling   of images without a known spacing: pixels along each axis that the net sees as one; null: 1
#   rotation_degrees   the largest rotation of a training sample where augmentation.rotation_degrees is not given;
#                  null: 30, and 180 for pictures without orientation
#   scale          the range of its magnification likewise; null: 0.75 to 1.33
#   seeding        random numbers of training: a stream for each sample, so that a batch is the same on any number of
#                  devices, or one for each batch, as older plans had it
#   crop           nonzero: images are cut to the box around their nonzero voxels; only of imported models
#   thick_axis     nearest: slices one by one where an axis is three times as coarse as the others; same: all axes alike
"""
Channels = Annotated[int, Field(ge=1, le=1024)]
MOST_STAGES = 16


class Plan(PlanPart):
    """How cases become network input.

    Args:
        dims: spatial axes of the net. 2 with an orientation: a net that sees slices of volumes along their last axis.
        orientation: axes of a prepared case, None for 2D images.
        spacing_mm: per axis of a prepared case, 1e-5 to 1e4; None where pixels are used as they are.
        downsampling: of images without a known spacing, 1 to 64: pixels along each axis of the net that become one;
            None: pixels are used as they are.
        patch_size: voxels per axis of the net, at most 2^26 together.
        batch_size: samples per training step, at most 65536.
        in_channels: of the images, at most 1024.
        normalization: per channel.
        channels: features per stage, at most 16384 each, in 16 stages at most.
        strides: per stage and axis of the net, at most 64; the first stage's are 1.
        select: per channel, which series of a study it is; () where nothing is known of the channels.
        axes: 'RAS': a case is turned to `orientation`; 'file': its axes stay as they are stored. None: what
            `orientation` implies.
        transpose: spatial axis n of a prepared case is axis `transpose[n]` of the file; the identity for 'RAS', where
            `orientation` gives the order. Its length is the number of spatial axes.
        crop: 'nonzero' cuts an image to the box around its nonzero voxels.
        normalize_on: 'network': grey levels are normalised on the network's grid; 'native': before resampling.
        image, labels, logits: how each is resampled.
        shape_rounding: voxels along an axis of n voxels after resampling: 'extent' round(n * spacing / target),
            'ratio' round(n * (spacing / target)); half goes to the even number, and 1 is the least.
        padding: what surrounds an image that is shorter than the patch: the 'minimum' of each channel, or 'zero', both
            after normalisation.
        low_resolution_ties: of two equally near voxels, the augmentation `low_resolution` takes either by turns
            ('unbiased'), or the 'upper' one, as in version 1.
        windows: of prediction and validation.
        unmirrored: the axes that are not mirrored, and why; None: as in version 1, see `mirroring.plan_axes`.
        rotation_degrees: largest rotation of a training sample about each axis, 0 to 180, where the configuration gives
            none; None: what the augmentation takes by itself.
        scale: range of the magnification of a training sample, likewise.
        kernels: voxels of the convolutions of each stage and axis, odd, at most 7, for nets that take them; None: 3.
        size: what `plan.size` asked for; None: the default. For people, it decides nothing.
        seeding: 'sample': every sample of a training batch has a stream of random numbers of its own; 'batch': those of
            a batch share one, as in version 1.

    Raises:
        pydantic.ValidationError: for parts that do not fit together; `load_plan` gives a ConfigError.
    """

    format_version: Literal[2] = 2
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
    axes: Literal["RAS", "file"] = "RAS"
    transpose: Annotated[tuple[Annotated[int, Field(ge=0, le=2)], ...], Field(min_length=2, max_length=3)] = (0, 1, 2)
    crop: Literal["none", "nonzero"] = "none"
    normalize_on: Literal["network", "native"] = "network"
    image: ImagePlan = ImagePlan()
    labels: LabelPlan = LabelPlan()
    logits: LogitPlan = LogitPlan()
    shape_rounding: Literal["extent", "ratio"] = "extent"
    padding: Literal["minimum", "zero"] = "minimum"
    low_resolution_ties: Literal["unbiased", "upper"] = "upper"
    windows: WindowPlan = WindowPlan()
    unmirrored: Annotated[tuple[UnmirroredAxis, ...], Field(max_length=3)] | None = None
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: Range | None = None
    kernels: (
        Annotated[
            tuple[Annotated[tuple[Literal[1, 3, 5, 7], ...], Field(max_length=3)], ...], Field(max_length=MOST_STAGES)
        ]
        | None
    ) = None
    size: PlanSize | None = None
    downsampling: Annotated[float, Field(ge=1, le=64)] | None = None
    seeding: Literal["batch", "sample"] = "batch"

    @property
    def spatial_dims(self) -> int:
        """Spatial axes of a prepared case, 2 or 3."""
        return len(self.transpose)

    @property
    def net_spacing_mm(self) -> tuple[float, ...] | None:
        """Spacing along the axes the net sees."""
        return None if self.spacing_mm is None else self.spacing_mm[: self.dims]

    @property
    def voxels_in_words(self) -> str:
        """The size of a voxel of the network's grid, e.g. '1 x 1 x 3 mm', 'pixels', or '2 x 2 pixels'."""
        if self.spacing_mm is not None:
            return " x ".join(f"{s:.4g}" for s in self.spacing_mm) + " mm"
        return " x ".join([f"{self.downsampling:g}"] * self.dims) + " pixels" if self.downsampling else "pixels"

    @property
    def zscored(self) -> tuple[bool, ...]:
        """Per channel, whether each case is normalised by its own grey levels, so that its scale is not seen."""
        return tuple(channel.per_case for channel in self.normalization)

    @property
    def reference_channel(self) -> int:
        """The channel whose grid the others are brought to."""
        return next((n for n, rule in enumerate(self.select) if rule.reference), 0)

    @model_validator(mode="before")
    @classmethod
    def _implied_axes(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        usual = implied(values.get("orientation"))
        left_out = {key: usual[key] for key in ("axes", "transpose") if values.get(key) is None}
        return {**values, **left_out}

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Plans without them stay as older releases wrote and hashed them.
        values: dict[str, Any] = write(self)
        return {
            key: each
            for key, each in values.items()
            if each is not None or key not in ("kernels", "size", "downsampling")
        }

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        if sorted(self.transpose) != list(range(len(self.transpose))):
            raise ValueError(f"transpose {self.transpose} does not name each axis once, counted from 0")
        if (self.axes == "file") != (self.orientation is None):
            raise ValueError(
                "orientation: a 3D net needs an orientation, e.g. RAS, where axes is 'RAS'; axes 'file' needs null"
            )
        if self.spatial_dims < self.dims:
            raise ValueError(
                "orientation: a 3D net needs an orientation, e.g. RAS; or axes 'file' and three of transpose"
            )
        if self.spacing_mm is not None:
            _expect_length(self.spacing_mm, self.spatial_dims, "axes of a prepared case", "spacing_mm: ")
        if self.axes == "RAS" and self.transpose != (0, 1, 2):
            raise ValueError(
                f"transpose {self.transpose}: with axes 'RAS' it can only be (0, 1, 2); the orientation gives the order"
            )
        measured = {channel.region for channel in self.normalization} & {"box", "mask"}
        if measured and (self.crop == "none" or self.normalize_on == "network"):
            raise ValueError("the regions 'box' and 'mask' need crop 'nonzero' and normalize_on 'native'")
        if any(each.axis >= self.dims for each in self.unmirrored or ()):
            raise ValueError(f"unmirrored names an axis that a {self.dims}D net does not have; axes count from 0")
        if self.downsampling is not None and self.spacing_mm is not None:
            raise ValueError(
                "downsampling is for images without a known spacing; spacing_mm says how coarse others are"
            )
        if self.padding == "zero":
            for n, channel in enumerate(self.normalization):
                if channel.kind in ("clip", "window") and not (channel.low or 0) <= (channel.mean or 0) <= (
                    channel.high or 0
                ):
                    raise ValueError(f"padding 'zero' needs a mean between low and high; normalization {n} has none")
        return self

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

    @field_validator("kernels")
    @classmethod
    def _kernels(
        cls, value: tuple[tuple[int, ...], ...] | None, info: ValidationInfo
    ) -> tuple[tuple[int, ...], ...] | None:
        if value is not None and "channels" in info.data and "dims" in info.data:
            _expect_length(value, len(info.data["channels"]), "stages (channels)")
            for kernel in value:
                _expect_length(kernel, info.data["dims"], "axes of the net")
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


def _expect_length(value: Sequence[Any], wanted: int, what: str, where: str = "") -> None:
    if len(value) != wanted:
        raise ValueError(f"{where}expected {wanted} entries, one for each of the {what}")


def save_plan(plan: Plan, path: Path, reasons: Sequence[str] = ()) -> None:
    """Write a plan as YAML with a line of help for each part, and sentences on why it is as it is.

    Raises:
        WriteError: if the file cannot be written.
    """
    content = plan.model_dump(mode="json")
    why = "".join(f"# {line}\n" for reason in reasons for line in textwrap.wrap(reason, 116))
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    write_text_atomic(path, HEADER + ("# Why this plan:\n" + why if why else "") + text)


def load_plan(path: Path) -> Plan:
    """A plan from its YAML file; one of format_version 1 is upgraded, see `plan_upgrade`.

    Raises:
        ConfigError: for a file that cannot be read, is not YAML, or whose parts do not fit; names file and key.
    """
    advice = "correct it, or delete it to plan anew"
    try:
        content = parse_yaml(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {advice}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}; {advice}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}; {advice}")
    try:
        return validate_model(Plan, upgrade_plan(content), str(path))
    except ConfigError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise ConfigError(f"{where}{error}; {advice}") from None
