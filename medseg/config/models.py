"""The parts of a run's configuration: frozen pydantic models, composed in `RunConfig`; `medseg.config` reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # the patterns as the engine sees them; nothing public shows that
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from medseg.labels import LabelScheme, check_label_bounds
from medseg.lookup import nearest_hint
from medseg.windowing import PRESETS

__all__ = [
    "LONGEST_TEXT",
    "MOST_OVERLAP",
    "MOST_VOXELS",
    "AugmentationConfig",
    "DataConfig",
    "Labels",
    "LossConfig",
    "NetConfig",
    "NetOptions",
    "Overlap",
    "PatchSize",
    "PlanConfig",
    "PostprocessConfig",
    "PredictionConfig",
    "RunConfig",
    "SelectRule",
    "Spacing",
    "SplitConfig",
    "TrainingConfig",
    "WindowConfig",
]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
# What a plan, a configuration or a bundle may ask for; far beyond every use, and far below what exhausts a machine.
# A patch of 400 x 400 x 400, or 8192 x 8192.
MOST_VOXELS = 2**26
# Windows that overlap by more are so many that an image takes days.
MOST_OVERLAP = 0.95
MOST_RULES = 1024
# Characters of the texts that patterns are matched with: DICOM's LO has 64. Four `.*` in a row are taken: 0.1 s.
LONGEST_TEXT = 64
MOST_STEPS = 2e9
Spacing = Annotated[float, Field(ge=1e-5, le=1e4)]
"""Millimetres between voxel centres: from 10 nm to 10 m."""


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError("the first value must not be above the second")
    return values


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]


def _few_voxels(value: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(value) > MOST_VOXELS:
        raise ValueError(f"a patch of more than {MOST_VOXELS} voxels fits into no memory")
    return value


def _below_one(value: float) -> float:
    if value > MOST_OVERLAP:
        raise ValueError(f"windows overlap by {MOST_OVERLAP} at most")
    return value


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    check_label_bounds(value)
    return value


def _own_options(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if len(key) > 64 or not key.isprintable():
            raise ValueError(f"{key[:64]!r} is no name of an option")
        if key in ("name", "dims", "in_channels", "out_channels", "backbone", "width"):
            raise ValueError(f"{key!r} stands beside the options, not among them")
    return value


PatchSize = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MOST_VOXELS)], ...], Field(max_length=3), AfterValidator(_few_voxels)
]
"""Voxels per axis, at most 2^26 together."""
Overlap = Annotated[float, Field(ge=0, lt=1), AfterValidator(_below_one)]
"""Least overlap of windows, from 0 to 0.95."""
NetOptions = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_own_options)]
"""What the builder of a network takes beside name, sizes, backbone and width."""
Labels = Annotated[dict[str, int | tuple[int, ...]], AfterValidator(_bounded)]
"""Name -> value or values, within the bounds of `medseg.labels.check_label_bounds`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class SplitConfig(_Part):
    """Which cases validate: by name, or every n-th of the sorted cases, beginning with `start` (from 0)."""

    validation: tuple[str, ...] | None = None
    every: Annotated[int, Field(ge=2)] | None = None
    start: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_way(self) -> SplitConfig:
        if (self.validation is None) == (self.every is None):
            raise ValueError("give either validation: [case names] or every: n")
        if self.every is not None and self.start >= self.every:
            raise ValueError("start must be smaller than every")
        return self


class WindowConfig(_Part):
    """A fixed grey-level window in place of normalisation from the data."""

    center: float
    width: Positive
    function: Literal["LINEAR", "LINEAR_EXACT"] = "LINEAR"

    @model_validator(mode="after")
    def _wide_enough(self) -> WindowConfig:
        if self.function == "LINEAR" and self.width < 1:
            raise ValueError("a LINEAR window is at least 1 wide")
        return self


def _pattern(value: str) -> str:
    try:
        re.compile(value)
        steps = _steps(_parser.parse(value), LONGEST_TEXT)[1] * LONGEST_TEXT
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{value!r} is no regular expression ({error})") from None
    if steps > MOST_STEPS:
        raise ValueError(f"{value!r} may take for ever to match; use fewer repeats (*, +, {{}}), and none of a repeat")
    return value


def _steps(pattern: Iterable[tuple[Any, Any]], longest: int) -> tuple[float, float]:
    """In how many ways a parsed pattern may match at one place, and a bound of the steps to try them all.

    Python's engine goes back over every way in which the repeats before a place can share the text among them.
    """
    ways, steps = 1.0, 0.0
    for kind, value in pattern:
        inner, tried = 1.0, 1.0
        if kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT):
            least, most, part = value
            most = min(int(most), longest)
            inner, tried = _steps(part, longest)
            # Of one way: as many ways as there are counts. Of several: as many for each time anew.
            if inner <= 1:
                inner = max(1.0, most - least + 1.0)
            else:
                inner = math.inf if most * math.log(inner) > 60 else inner**most + 1
            tried *= max(1.0, inner)
        elif kind is _parser.BRANCH:
            parts = [_steps(each, longest) for each in value[1]]
            inner, tried = sum(way for way, _ in parts), sum(step for _, step in parts)
        elif kind is _parser.SUBPATTERN:
            inner, tried = _steps(value[-1], longest)
        elif kind in (_parser.ASSERT, _parser.ASSERT_NOT):
            tried = _steps(value[1], longest)[1]
        elif kind not in (_parser.LITERAL, _parser.NOT_LITERAL, _parser.ANY, _parser.IN, _parser.AT):
            raise re.error("back references, conditions and atomic groups are not taken")
        steps += ways * tried
        ways *= inner
        if steps > MOST_STEPS:
            break
    return ways, steps


Short = Annotated[str, Field(max_length=200)]


class SelectRule(_Part):
    """Which series of a DICOM study is a channel of the model's input; what is not given does not matter.

    `name`: of the channel; 'FLAIR', 'T1c', 'CT' and the like also say which series. `modality`: of DICOM (CT, MR, PT).
    `body_part`, `description`: regular expressions for the first 64 characters of BodyPartExamined and
    SeriesDescription, in any case; one that could take for ever to match is refused.
    `thickness_mm`: lowest and highest. `contrast`: whether a contrast agent was given. `derived`: whether derived and
    secondary images are taken like originals. `reference`: the other channels are brought to this one's grid.
    """

    name: Short = ""
    modality: Short | None = None
    body_part: Annotated[Short, AfterValidator(_pattern)] | None = None
    description: Annotated[Short, AfterValidator(_pattern)] | None = None
    min_slices: Annotated[int, Field(ge=1, le=10**6)] | None = None
    thickness_mm: Range | None = None
    orientation: Literal["axial", "coronal", "sagittal"] | None = None
    contrast: bool | None = None
    derived: bool = False
    reference: bool = False


class DataConfig(_Part):
    """Where the cases are and what their labels mean. `root`: the folder of the data. `layout`: how it lies there.

    `csv`: the list of the cases. `labels`: name to integer in the label maps, or to several (a region); else those of
    dataset.json. `ignore`: the integer of voxels that take no part. `label_threshold`: for 0/255 and soft-edged masks:
    what is above it is label 1. `modality`: of each channel; CT keeps Hounsfield units comparable. `window`: its name,
    or centre and width; else grey levels are normalised as the data are. `split`: which cases validate; else a fold
    drawn with the seed, each patient on one side. `select`: a rule for each channel, for prediction on studies.
    """

    root: Path
    layout: Literal["auto", "msd", "nnunet", "folders", "csv"] = "auto"
    csv: Path | None = None
    labels: Labels | None = None
    ignore: int | None = None
    label_threshold: float | None = None
    modality: str | tuple[str, ...] | None = None
    window: str | WindowConfig | None = None
    split: SplitConfig | None = None
    select: tuple[SelectRule, ...] = ()

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        if isinstance(self.window, str) and self.window not in PRESETS:
            hint = nearest_hint(self.window, PRESETS)
            raise ValueError(f"window {self.window!r} is not a preset; there are: {', '.join(PRESETS)}{hint}")
        if self.labels is not None:
            LabelScheme.from_mapping(self.labels, self.ignore)
        return self


class PlanConfig(_Part):
    """Fixed points for planning; what is not given is derived from the data and the memory at hand.

    `spacing_mm`: of the network's grid. `patch_size`: voxels that the network sees at once. `memory_gb`: of the device.
    """

    spacing_mm: tuple[Spacing, ...] | None = None
    patch_size: PatchSize | None = None
    memory_gb: Positive | None = None


class NetConfig(_Part):
    """The network. `name`: see medseg nets. `dims`: 2 or 3, else as the data. `backbone`: for nets with a choice.

    `residual`, `deep_supervision`: for U-Nets. `options` are passed to the builder of the net as they are.

    `norm`: the net's own default where it is not given (instance, but for monai's). `width` likewise: 1, and in 3D a
    quarter for FCN-32s to 8s, and on a CPU for every net with a backbone. `channels` is for U-Nets.
    """

    name: str = "unet"
    dims: Literal[2, 3] | None = None
    backbone: str | None = None
    width: Positive | None = None
    channels: tuple[Count, ...] | None = None
    norm: Literal["instance", "batch", "group", "none"] | None = None
    residual: bool = False
    deep_supervision: bool = False
    options: NetOptions = Field(default_factory=dict)


class LossConfig(_Part):
    """The loss; `options` are passed to its builder as they are."""

    name: str = "dice_ce"
    options: dict[str, Any] = Field(default_factory=dict)


class AugmentationConfig(_Part):
    """How training samples vary. Probabilities are per sample; angles in degrees, lengths as fractions.

    `mirror`: true for every axis that keeps the labels right (never across left/right pairs), or a list of axes of the
    prepared case, e.g. [0] for left-right where its orientation is RAS; test-time mirroring follows it.
    """

    enabled: bool = True
    spatial_probability: Fraction = 0.9
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: Range = (0.75, 1.33)
    elastic_probability: Fraction = 0.3
    elastic_magnitude: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 4
    mirror: bool | tuple[Annotated[int, Field(ge=0, le=2)], ...] = True
    noise_probability: Fraction = 0.15
    noise_std: Annotated[float, Field(ge=0)] = 0.15
    blur_probability: Fraction = 0.1
    blur_sigma: Range = (0.5, 1.0)
    brightness_probability: Fraction = 0.15
    brightness: Range = (0.75, 1.25)
    contrast_probability: Fraction = 0.15
    contrast: Range = (0.75, 1.25)
    gamma_probability: Fraction = 0.25
    gamma: Range = (0.7, 1.5)
    low_resolution_probability: Fraction = 0.1
    low_resolution: Range = (0.5, 1.0)
    custom: str | None = None


class TrainingConfig(_Part):
    """How long and how to train. `max_minutes`, `max_iterations`: the first that is reached; with neither, one hour.

    `init`: a bundle, or public weights, to start from. `batch_size`: patches per step, else planned. `learning_rate`,
    `weight_decay`: else those usual for the optimizer. `momentum`: of SGD. `schedule`: poly lets the learning rate fall
    as (1 - progress)^`poly_power`. `warmup_iterations`: in these the learning rate rises. `gradient_clip`: largest norm
    of the gradient. `ema_decay`: of the running average of the weights. `foreground_fraction`: share of patches around
    a label. `mixed_precision`: where the device gains by it. `checkpoint`: which weights become the model.
    `validate_every`: iterations between two validations. `save_every`: iterations between two checkpoints.
    `validation_cases`: how many cases a validation during training looks at. `folds`: parts that the cases are split
    into. `fold`: the part that validates, from 0, or all in turn.
    """

    init: Path | None = None
    max_minutes: Positive | None = None
    max_iterations: Count | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    learning_rate: Positive | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    schedule: Literal["poly", "constant"] = "poly"
    poly_power: Positive = 0.9
    warmup_iterations: Annotated[int, Field(ge=0)] = 20
    gradient_clip: Positive = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    foreground_fraction: Fraction = 0.33
    mixed_precision: bool = True
    checkpoint: Literal["last", "best"] = "last"
    validate_every: Count | None = None
    validation_cases: Count | None = None
    save_every: Count = 100
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] | Literal["all"] = 0


class PostprocessConfig(_Part):
    """What is mended in a predicted mask, by the name of a label or region; applied in this order.

    `inside`: label -> the label it lies in or beside; components that touch that one nowhere are removed.
    `minimum_volume_ml`: smaller components are removed. `keep_components`: how many of the largest stay.
    `fill_holes`: labels whose enclosed background joins them. Volumes go up to 1000 litres, counts to a million.
    """

    inside: dict[str, str] = Field(default_factory=dict, max_length=MOST_RULES)
    minimum_volume_ml: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default_factory=dict, max_length=MOST_RULES
    )
    keep_components: dict[str, Annotated[int, Field(ge=1, le=10**6)]] = Field(
        default_factory=dict, max_length=MOST_RULES
    )
    fill_holes: tuple[str, ...] = Field(default=(), max_length=MOST_RULES)


class PredictionConfig(_Part):
    """How a model is applied. `overlap`: of windows; null: the plan's. `mirror`: mirrored images are averaged in.

    `postprocess`: 'choose' keeps, per label, what helps on the validation cases; 'off'; or rules of one's own.
    `crf`: 'fit' tries a dense CRF on a few validation cases after the training and keeps it where it gains.
    `quality`: 'calibrate' makes `predict --estimate-quality` possible, from damaged copies of the validation cases.
    """

    overlap: Overlap | None = None
    mirror: bool = True
    postprocess: Literal["choose", "off"] | PostprocessConfig = "choose"
    crf: Literal["off", "fit"] = "off"
    quality: Literal["off", "calibrate"] = "off"


class RunConfig(_Part):
    """One run: everything that decides its result.

    `output`: folder of the run. `seed`: same seed, machine and iterations, same result. `device`: auto, cpu or cuda.
    `task`: vessel, lung or tumor: its defaults, and what is measured.
    """

    format_version: Literal[1] = 1
    output: Path | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    task: str | None = None
    data: DataConfig
    plan: PlanConfig = PlanConfig()
    net: NetConfig = NetConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()
    prediction: PredictionConfig = PredictionConfig()

    def label_scheme(self) -> LabelScheme | None:
        """The label scheme that `data.labels` gives, or None where the data set itself must name its labels."""
        return None if self.data.labels is None else LabelScheme.from_mapping(self.data.labels, self.data.ignore)
