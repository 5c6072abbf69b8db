"""torchvision's own models, where the package is installed, also beside a torch that it was not built for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest
import torch

_kept: list[torch.library.Library] = []


def torchvision_models() -> ModuleType:
    """`torchvision.models`; the test is skipped where there is none.

    Importing torchvision describes two of its compiled operators, and fails where those are built for another torch.
    Models call neither, so their names alone are declared.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed (its model files are the oracle)")
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)  # the declarations last as long as the object
    for name in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision.models")
