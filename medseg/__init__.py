"""medseg: medical-image segmentation, from a folder of CT/MR studies to masks on the patient's own grid.

All names are imported on first use, so `import medseg` itself is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.errors import MedsegError
    from medseg.evaluation.evaluate import evaluate
    from medseg.inference import load_model
    from medseg.io import read, read_all, write
    from medseg.training import train
    from medseg.version import __version__
    from medseg.volume import Volume
    from medseg.windowing import window

_HOME = {
    "MedsegError": "medseg.errors",
    "Volume": "medseg.volume",
    "__version__": "medseg.version",
    "evaluate": "medseg.evaluation",
    "load_model": "medseg.inference",
    "read": "medseg.io",
    "read_all": "medseg.io",
    "train": "medseg.training",
    "window": "medseg.windowing",
    "write": "medseg.io",
}

__all__ = [
    "MedsegError",
    "Volume",
    "__version__",
    "evaluate",
    "load_model",
    "read",
    "read_all",
    "train",
    "window",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'medseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
