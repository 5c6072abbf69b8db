"""A whole run: the parts together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.config.augmentation import AugmentationConfig
from medseg.config.data import DataConfig
from medseg.config.distill import DistillConfig
from medseg.config.loss import LossConfig
from medseg.config.net import NetConfig
from medseg.config.part import Part
from medseg.config.plan import RESENC_NET, RESENC_SIZES, PlanConfig
from medseg.config.prediction import PredictionConfig
from medseg.config.semi import SemiConfig
from medseg.config.training import TrainingConfig
from medseg.config.weak import WeakConfig
from medseg.labels import LabelScheme

__all__ = ["RunConfig"]


class RunConfig(Part):
    """One run: everything that decides its result.

    `format_version` is that of the file. `output` is the folder of the run; without it, runs/ and the name of the
    data or the configuration. `seed` decides everything random: the same seed, machine and number of iterations
    give the same result. `device` is auto (a GPU if there is one), cpu, cuda, or cuda:1 and so on. `task` is
    vessel, lung or tumor: it brings defaults, and decides what is measured besides.
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
    distill: DistillConfig = DistillConfig()
    semi: SemiConfig = SemiConfig()
    prediction: PredictionConfig = PredictionConfig()
    weak: WeakConfig = WeakConfig()

    @model_validator(mode="after")
    def _net_of_size(self) -> RunConfig:
        """A size that is one of nnU-Net's residual encoders brings its network."""
        if self.plan.size not in RESENC_SIZES:
            return self
        if self.net.channels is not None:
            raise ValueError(f"plan.size {self.plan.size} has features of its own; leave net.channels out")
        if self.net.name != RESENC_NET:
            if "name" in self.net.model_fields_set:
                raise ValueError(
                    f"plan.size {self.plan.size} is of the network {RESENC_NET}, but net.name is {self.net.name!r}; "
                    "leave net.name out, or take another plan.size"
                )
            object.__setattr__(self, "net", self.net.model_copy(update={"name": RESENC_NET}))
        return self

    def label_scheme(self) -> LabelScheme | None:
        """The label scheme that `data.labels` gives, or None where the data set itself must name its labels."""
        return None if self.data.labels is None else LabelScheme.from_mapping(self.data.labels, self.data.ignore)
