"""Several models that are given one by one, as an ensemble."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from medseg.errors import CheckpointError, ConfigError
from medseg.inference.bundle_parts import CompositeInfo
from medseg.inference.composites.loading import load_members
from medseg.inference.composites.model import CompositeModel
from medseg.inference.predictor import Model

__all__ = ["together"]


def together(models: Mapping[str, Model]) -> CompositeModel:
    """The ensemble of models with the same labels and channels, whose probabilities are averaged.

    Args:
        models: by their paths, in order.

    Raises:
        CheckpointError: models that find other labels or expect other images.
        ConfigError: one model only, given twice; or a model without probabilities.
    """
    if len(models) < 2:
        raise ConfigError(f"--ensemble names the model itself ({next(iter(models))}); give another one")
    for path, model in models.items():
        if not model.gives_probabilities:
            raise ConfigError(f"{path} is made of parts and has no probabilities that could be averaged")
    first = next(iter(models.values()))
    names = [f"member{number}" for number in range(len(models))]
    try:
        info = CompositeInfo(kind="ensemble", labels=first.info.labels, ignore=first.info.ignore, members=tuple(names))
    except ValidationError as error:
        raise ConfigError(f"too many models for an ensemble ({error.errors()[0]['msg']})") from None
    where = " and ".join(models)
    members = list(zip(names, models.values(), strict=True))
    try:
        return load_members(f"the ensemble of {where}", info, info.to_json().encode(), members, dict(info.labels))
    except CheckpointError as error:
        told = str(error)
        for name, path in zip(names, models, strict=True):
            told = told.replace(f"member {name}", path).replace(name, path)
        raise CheckpointError(told) from None
