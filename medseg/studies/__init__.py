"""Batch prediction of studies: find, read ahead, predict, write, and record each case in a ledger."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.studies.options import PredictOptions
    from medseg.studies.results import StudiesResult
    from medseg.studies.run import predict_studies

_HOME = {"PredictOptions": "options", "StudiesResult": "results", "predict_studies": "run"}

__all__ = ["PredictOptions", "StudiesResult", "predict_studies"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"medseg.studies.{_HOME[name]}"), name)
    raise AttributeError(f"module 'medseg.studies' has no attribute {name!r}")
