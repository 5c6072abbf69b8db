"""What the parts of a configuration share: frozen models that refuse unknown keys, and the usual ranges of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Count", "Fraction", "Part", "Positive", "Range", "ascending"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def ascending(values: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose first value is above its second."""
    if values[0] > values[1]:
        raise ValueError("the first value must not be above the second")
    return values


Range = Annotated[tuple[Positive, Positive], AfterValidator(ascending)]
"""Two positive numbers, the smaller first."""


class Part(BaseModel):
    """Base of the parts: frozen, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
