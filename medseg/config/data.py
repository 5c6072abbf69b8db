"""`data`: where the cases are, what their labels mean, which of them validate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from medseg.config.part import Part, Positive
from medseg.config.patterns import Pattern
from medseg.config.select import SelectRule
from medseg.labels import LabelScheme, check_label_bounds, label_table
from medseg.lookup import nearest, nearest_hint
from medseg.windowing import PRESETS

__all__ = ["NORMALIZATIONS", "DataConfig", "Labels", "SplitConfig", "WindowConfig"]


NORMALIZATIONS = ("auto", "zscore", "clip", "window", "unit", "rgb", "imagenet", "none")
"""Choices of `data.normalization`; those but 'auto' and 'imagenet' are kinds of a plan."""


def _known_normalization(value: str) -> str:
    if value not in NORMALIZATIONS:
        hint = nearest_hint(value, NORMALIZATIONS)
        raise ValueError(f"choose one of {', '.join(NORMALIZATIONS)}{hint}")
    return value


Normalization = Annotated[
    str, AfterValidator(_known_normalization), Field(json_schema_extra={"enum": list(NORMALIZATIONS)})
]


# Modalities of DICOM (PS3.3 C.7.3.1.1.1) and kinds of images; other names of channels are accepted unless they resemble
# one of these.
_MODALITIES = (
    *("CT", "MR", "MRI", "MRA", "PT", "PET", "NM", "SPECT", "US", "IVUS", "XA", "XR"),
    *("RF", "CR", "DX", "MG", "CBCT", "OP", "OPT", "OCT", "SM", "ES", "GM", "RGB"),
    *("T1", "T1W", "T1C", "T1CE", "T1GD", "T1N", "T2", "T2W", "T2F", "T2S", "FLAIR", "PD"),
    *("PDW", "DWI", "DTI", "ADC", "SWI", "PWI", "DCE", "DSC", "BOLD", "EM", "IR", "UV"),
)


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    check_label_bounds(value)
    return value


Labels = Annotated[dict[str, int | tuple[int, ...]], AfterValidator(_bounded)]
"""Name -> value or values, within the bounds of `medseg.labels.check_label_bounds`."""


class SplitConfig(Part):
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


class WindowConfig(Part):
    """A fixed grey-level window in place of normalisation from the data."""

    center: float
    width: Positive
    function: Literal["LINEAR", "LINEAR_EXACT"] = "LINEAR"

    @model_validator(mode="after")
    def _wide_enough(self) -> WindowConfig:
        if self.function == "LINEAR" and self.width < 1:
            raise ValueError("a LINEAR window is at least 1 wide")
        return self


class DataConfig(Part):
    """Where the cases are and what their labels mean.

    `root` is the folder of the data. `layout` is how it lies there: auto finds out. `csv` is a list of the cases,
    used instead of folders. `labels` gives each name its integer in the label maps, or several integers (a region);
    without it, those of dataset.json count. `ignore` is the integer, or the integers, of voxels that take no part.
    `others` is what becomes of integers that no label names: they are refused, or become background. `nan` is the
    grey level that voxels without a number get; without it, such images are refused. `label_threshold` is for masks
    of 0 and 255 or with soft edges: what is above it is label 1. `modality` is that of each channel; CT keeps
    Hounsfield units comparable. `window` is a window's name, or its centre and width, in place of a normalisation
    from the data.

    `normalization` is one choice for all channels, or a list with one for each: zscore (each image by mean and
    standard deviation of what is not background), clip (to the range of the labelled voxels of all images), window
    (the one given as data.window), unit (each image's minimum to maximum become 0 to 1), rgb (0 to 255 become 0 to
    1), imagenet (as rgb, then by mean and standard deviation of ImageNet), none, or auto: window where one is
    given, clip for CT, imagenet for photographs where training starts from public weights, else zscore.

    `annotated` is for data sets of which cases lack labels: case name, or a pattern with * for several, and the names
    of the labels that are annotated there; a case that is not named has all labels. In a CSV, the column annotated
    says it (names joined by ;). What is not annotated may be anything: neither loss nor scores use it. `taught` are
    labels that no case needs to have annotated, as a model teaches them: training.keep_classes names them by itself.

    `split` says which cases validate; without it, a fold is drawn with the seed, each patient on one side. `group`
    is a regular expression whose group, or whole match, in a case's name is its patient; 'none' makes every case a
    patient of its own; without it, patients are found by PatientID and by names. `select` has a rule for each
    channel that finds its series in a DICOM study, for prediction. `corrected` is the list of corrected label maps
    that medseg correct writes; it brings its own split.
    """

    root: Path
    layout: Literal["auto", "msd", "nnunet", "folders", "csv", "dicom"] = "auto"
    csv: Path | None = None
    labels: Labels | None = None
    ignore: int | tuple[int, ...] | None = None
    others: Literal["refuse", "background"] = "refuse"
    nan: float | None = None
    label_threshold: float | None = None
    modality: str | tuple[str, ...] | None = None
    window: str | WindowConfig | None = None
    normalization: Normalization | tuple[Normalization, ...] = "auto"
    annotated: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    taught: tuple[str, ...] = ()
    split: SplitConfig | None = None
    group: Pattern | None = None
    select: tuple[SelectRule, ...] = ()
    corrected: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _tables(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "regions" in values:
            raise ValueError(
                "regions are labels given as lists, e.g. data.labels: {whole: [1, 2], core: [2]}; move them there"
            )
        if not isinstance(values.get("labels"), Mapping):
            return values
        labels, ignore = label_table(values["labels"], values.get("ignore"))
        return {**values, "labels": labels, "ignore": ignore}

    @field_validator("annotated")
    @classmethod
    def _named(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        empty = next((case for case, names in value.items() if not names), None)
        if empty is not None:
            raise ValueError(f"{empty!r} names no label; take the case out of the data set, or name what is annotated")
        return value

    @field_validator("modality")
    @classmethod
    def _modality(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for name in (value,) if isinstance(value, str) else value or ():
            near = [] if name.upper() in _MODALITIES or len(name) > 5 else nearest(name, _MODALITIES, alike=0.75)
            if near:
                raise ValueError(f"{name!r} is not a modality; did you mean {near[0]!r}?")
        return value

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        if isinstance(self.window, str) and self.window not in PRESETS:
            hint = nearest_hint(self.window, PRESETS)
            raise ValueError(f"window {self.window!r} is not a preset; there are: {', '.join(PRESETS)}{hint}")
        if self.group is not None and re.compile(self.group).groups > 1:
            raise ValueError(
                f"group {self.group!r} has several groups; mark the patient with one, and the others as (?:...)"
            )
        asked = (self.normalization,) if isinstance(self.normalization, str) else self.normalization
        if self.window is None and "window" in asked:
            raise ValueError("normalization 'window' needs data.window; give its name, or centre and width")
        if self.window is not None and not {"auto", "window"} & set(asked):
            raise ValueError(f"window is given, but normalization is {', '.join(asked)}; leave one of them out")
        if self.corrected is not None and self.split is not None:
            raise ValueError("corrected brings the split of the run before; leave out split")
        check_label_bounds({}, self.ignored)
        if self.labels is not None:
            _ = LabelScheme.from_mapping(self.labels, self.ignore).written
        return self

    @property
    def ignored(self) -> tuple[int, ...]:
        """The values of voxels that take no part, where they are given here."""
        return self.ignore if isinstance(self.ignore, tuple) else () if self.ignore is None else (self.ignore,)
