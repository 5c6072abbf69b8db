"""`training`: how long and how a network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.config.part import Count, Fraction, Part, Positive

__all__ = ["DEFAULT_MINUTES", "TrainingConfig"]

DEFAULT_MINUTES = 60.0
"""How long a training runs where neither `max_minutes` nor `max_iterations` is given."""


class TrainingConfig(Part):
    """How long and how to train.

    `init`: a model bundle, a model folder of nnU-Net, or public weights, to start from.
    `keep_classes`: labels are added to those of the bundle `init`, which it keeps: where cases lack them, it teaches
    them itself, with `distill.weight` (0.9 if not given). data.labels names the new ones; the network and its input
    are those of `init`.
    `frozen`: parts of the network, such as backbone.layer1, that stay as `init` gives them, batch statistics included.
    `layer_rates`: part of the network -> factor on the learning rate of its weights, such as {backbone: 0.1}; of
    several that apply, the most specific one counts.
    `batch_statistics`: of batch norms whose running statistics came with `init`: frozen ones are used as they are,
    updated ones follow the batches of the training; auto freezes them where a batch has fewer than 8 samples.
    `max_minutes`, `max_iterations`: the training ends at the first limit that is reached; without any, after one hour.
    `max_epochs`: the same limit in passes over the training cases: ceil(cases / batch size) iterations are an epoch.
    `patience`: the training also ends after this many validations in a row without a better score.
    `batch_size`: patches per step, on all devices together, else planned.
    `accumulate`: a step computes its batch in this many parts, one after the other; needs the memory of one part.
    `learning_rate`: the highest, else the usual one for the optimizer.
    `optimizer`: AdamW, or SGD with Nesterov momentum.
    `weight_decay`: else the usual one for the optimizer.
    `momentum`: of SGD.
    `schedule`: the learning rate falls as (1 - progress)^`poly_power` or as half a cosine, stays, or rises and falls.
    `warmup_iterations`: the learning rate rises linearly during these; one_cycle has a rise of its own.
    `gradient_clip`: largest norm of the gradient.
    `ema_decay`: decay of the running average of the weights.
    `foreground_fraction`: share of the patches that are centred on a label.
    `mixed_precision`: used where it makes the device faster.
    `channels_last`: images and weights lie in memory with the channels last, which is faster on some devices.
    `compile`: the network is compiled by torch.compile before the first step, where that works.
    `checkpoint`: which weights become the model, the last or those with the best validation score.
    `validate_every`: iterations between two validations.
    `validation_cases`: number of cases that a validation during training uses, else all.
    `save_every`: iterations between two checkpoints.
    `folds`: number of parts that the cases are split into.
    `fold`: the part that validates, from 0, or all in turn; full: none, all cases train.
    `logger`: writes the log for TensorBoard, too, into the folder `tensorboard` of the run.
    """

    init: Path | None = None
    keep_classes: bool = False
    frozen: tuple[str, ...] = ()
    layer_rates: dict[str, Positive] = Field(default_factory=dict)
    batch_statistics: Literal["auto", "frozen", "updated"] = "auto"
    max_minutes: Positive | None = None
    max_iterations: Count | None = None
    max_epochs: Count | None = None
    patience: Count | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    accumulate: Count = 1
    learning_rate: Positive | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    schedule: Literal["poly", "cosine", "one_cycle", "constant"] = "poly"
    poly_power: Positive = 0.9
    warmup_iterations: Annotated[int, Field(ge=0)] = 20
    gradient_clip: Positive = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    foreground_fraction: Fraction = 0.33
    mixed_precision: bool = True
    channels_last: bool = False
    compile: bool = False
    checkpoint: Literal["last", "best"] = "last"
    validate_every: Count | None = None
    validation_cases: Count | None = None
    save_every: Count = 100
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] | Literal["all", "full"] = 0
    logger: Literal["tensorboard"] | None = None

    @model_validator(mode="after")
    def _starts_from_weights(self) -> TrainingConfig:
        for key, wanted in (("frozen", bool(self.frozen)), ("batch_statistics", self.batch_statistics == "frozen")):
            if wanted and self.init is None:
                raise ValueError(f"{key} keeps what a training starts from, so give init: WEIGHTS as well")
        if self.keep_classes and self.init is None:
            raise ValueError("keep_classes keeps the labels of a model, so give init: BUNDLE as well")
        return self
