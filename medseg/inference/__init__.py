"""From a trained model and images to masks on the patient's own grid.

Loaded on first use: training needs the sliding window, but neither bundles nor readers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any
from warnings import warn

if TYPE_CHECKING:
    from medseg.inference.bundle import Bundle, load_bundle, save_bundle
    from medseg.inference.bundle_info import BundleInfo, NetInfo, PredictionInfo, Provenance
    from medseg.inference.exporting.model import export_model
    from medseg.inference.frames.stream import FrameStream
    from medseg.inference.importing.importer import import_model
    from medseg.inference.load import load_model
    from medseg.inference.predictor import Model
    from medseg.inference.probabilities import to_probabilities
    from medseg.inference.restore import to_label_map
    from medseg.inference.tta import allowed_mirror_axes

# `sliding_window` is also the name of its module, which would hide a function that is looked up late.
from medseg.inference.sliding_window import sliding_window

_HOME = {
    "Bundle": "bundle",
    "BundleInfo": "bundle_info",
    "FrameStream": "frames.stream",
    "Model": "predictor",
    "NetInfo": "bundle_info",
    "PredictionInfo": "bundle_info",
    "Provenance": "bundle_info",
    "allowed_mirror_axes": "tta",
    "export_model": "exporting.model",
    "import_model": "importing.importer",
    "load_bundle": "bundle",
    "load_model": "load",
    "save_bundle": "bundle",
    "to_label_map": "restore",
    "to_probabilities": "probabilities",
}

_MOVED = frozenset({"PredictOptions", "StudiesResult", "predict_studies"})

__all__ = [
    "Bundle",
    "BundleInfo",
    "FrameStream",
    "Model",
    "NetInfo",
    "PredictionInfo",
    "Provenance",
    "allowed_mirror_axes",
    "export_model",
    "import_model",
    "load_bundle",
    "load_model",
    "save_bundle",
    "sliding_window",
    "to_label_map",
    "to_probabilities",
]


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        warn(f"medseg.inference.{name} has moved to medseg.studies", DeprecationWarning, stacklevel=2)
        return getattr(import_module("medseg.studies"), name)
    if name in _HOME:
        return getattr(import_module(f"medseg.inference.{_HOME[name]}"), name)
    raise AttributeError(f"module 'medseg.inference' has no attribute {name!r}")
