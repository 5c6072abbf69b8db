"""From a trained model and images to masks on the patient's own grid.

Loaded on first use: training needs the sliding window, but neither bundles nor readers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.inference.bundle import Bundle, load_bundle, save_bundle
    from medseg.inference.bundle_info import BundleInfo, NetInfo, PredictionInfo, Provenance
    from medseg.inference.predictor import Model, load_model
    from medseg.inference.probabilities import to_probabilities
    from medseg.inference.restore import to_label_map
    from medseg.inference.studies.options import PredictOptions
    from medseg.inference.studies.results import StudiesResult
    from medseg.inference.studies.run import predict_studies
    from medseg.inference.tta import allowed_mirror_axes

# `sliding_window` is also the name of its module, which would hide a function that is looked up late.
from medseg.inference.sliding_window import sliding_window

_HOME = {
    "Bundle": "bundle",
    "BundleInfo": "bundle_info",
    "Model": "predictor",
    "NetInfo": "bundle_info",
    "PredictOptions": "studies.options",
    "PredictionInfo": "bundle_info",
    "Provenance": "bundle_info",
    "StudiesResult": "studies.results",
    "allowed_mirror_axes": "tta",
    "load_bundle": "bundle",
    "load_model": "predictor",
    "predict_studies": "studies.run",
    "save_bundle": "bundle",
    "to_label_map": "restore",
    "to_probabilities": "probabilities",
}

__all__ = [
    "Bundle",
    "BundleInfo",
    "Model",
    "NetInfo",
    "PredictOptions",
    "PredictionInfo",
    "Provenance",
    "StudiesResult",
    "allowed_mirror_axes",
    "load_bundle",
    "load_model",
    "predict_studies",
    "save_bundle",
    "sliding_window",
    "to_label_map",
    "to_probabilities",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"medseg.inference.{_HOME[name]}"), name)
    raise AttributeError(f"module 'medseg.inference' has no attribute {name!r}")
