"""A trained classifier beside its label maps: a later call with the same data and settings takes it over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from medseg.config import RunConfig
from medseg.disk.atomic import atomic_path
from medseg.io.formats import is_there
from medseg.nets.classifier import Classifier
from medseg.preparation.sources import stamp_of
from medseg.training.weak.pictures import Picture

__all__ = ["FILE", "identity_of_classifier", "kept_classifier"]

FILE = "classifier.safetensors"
_SETTINGS = ("backbone", "width", "stage", "classifier_minutes", "longest", "background")


def identity_of_classifier(pictures: Sequence[Picture], names: Sequence[str], config: RunConfig) -> str:
    """A hash of all that decides a training: images, their labels, settings."""
    weak = config.weak.model_dump(mode="json", include=set(_SETTINGS))
    shown = [[p.case, p.index, sorted(p.shown), p.image.shape, float(p.image.astype("f4").sum())] for p in pictures]
    settings = [
        config.training.model_dump(mode="json", exclude={"fold"}),
        config.data.model_dump(mode="json"),
        config.seed,
    ]
    return stamp_of("classifier", 1, list(names), weak, shown, settings)


def kept_classifier(folder: Path, identity: str, empty: Classifier, train: Callable[[], Classifier]) -> Classifier:
    """The classifier of a folder, where it has that identity, else one that is trained now and kept there.

    Args:
        folder: of the label maps.
        identity: of the training.
        empty: of the same shape, to be filled.
        train: makes it.

    Raises:
        WriteError: disk full, no permission.
    """
    path = folder / FILE
    if _identity_in(path) == identity:
        with safe_open(path, "pt") as file:
            empty.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return empty.eval()
    net = train()
    weights = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights, {"medseg": json.dumps({"format_version": 1, "identity": identity})}))
    return net


def _identity_in(path: Path) -> str:
    if not is_there(path):
        return ""
    try:
        with safe_open(path, "pt") as file:
            return str(json.loads((file.metadata() or {}).get("medseg", "{}")).get("identity", ""))
    except (SafetensorError, OSError, ValueError):
        # What cannot be read is trained anew.
        return ""
