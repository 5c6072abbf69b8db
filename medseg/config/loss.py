"""`loss`: what a training minimises."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medseg.config.part import Part

__all__ = ["LossConfig", "LossTerm"]


class LossTerm(Part):
    """One term of a weighted sum of losses.

    `name`: of a built-in loss. `weight`: factor of the term, 0 or more. `options`: passed to the loss as they are.
    """

    name: str
    weight: Annotated[float, Field(ge=0)] = 1.0
    options: dict[str, Any] = Field(default_factory=dict)


class LossConfig(Part):
    """The loss that the training minimises.

    `name`: a built-in loss, or your own as package.module:builder. `options`: passed to its builder as they are.
    `terms`: a weighted sum in place of a single loss, e.g. [{name: dice}, {name: focal, weight: 0.5}]. `weights`: of
    the classes in every loss made of cross-entropy: inverse_frequency, by how many voxels each has in the training
    cases, or a number for each, the background's first (regions: one for each).
    """

    name: str = "dice_ce"
    options: dict[str, Any] = Field(default_factory=dict)
    terms: tuple[LossTerm, ...] = ()
    weights: Literal["inverse_frequency"] | tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LossConfig:
        if self.terms and (self.options or self.name != LossConfig.model_fields["name"].default):
            raise ValueError("give either name and options, or terms with options of their own")
        if self.terms and not any(term.weight for term in self.terms):
            raise ValueError("no term has a weight above 0")
        if self.weights is not None and any("weights" in options for options in self._options()):
            raise ValueError("give weights once: as loss.weights, or among the options of a loss")
        if self.weights is not None and not any(self.weights):
            raise ValueError("no weight is above 0")
        return self

    def _options(self) -> list[dict[str, Any]]:
        return [term.options for term in self.terms] or [self.options]
