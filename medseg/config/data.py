"""`data`: where the cases are, what their labels mean, which of them validate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from medseg.config.part import Part, Positive
from medseg.config.select import SelectRule
from medseg.labels import LabelScheme, check_label_bounds
from medseg.lookup import nearest_hint
from medseg.windowing import PRESETS

__all__ = ["DataConfig", "Labels", "SplitConfig", "WindowConfig"]


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
            _ = LabelScheme.from_mapping(self.labels, self.ignore).written
        return self
