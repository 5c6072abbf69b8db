"""Where TotalSegmentator's weights lie, and a sentence for those that do not."""

from __future__ import annotations

import re
from pathlib import Path

from medseg.errors import CheckpointError
from medseg.inference.importing.totalsegmentator.tasks import Task

__all__ = ["model_folder", "weights_folder"]

PUBLISHED = "https://github.com/wasserth/TotalSegmentator/releases"
LICENCE_SERVER = "https://backend.totalsegmentator.com/license-academic/"


def weights_folder(given: str | Path | None) -> Path:
    """The folder of weights: the given one, else where TotalSegmentator puts them."""
    return Path("~/.totalsegmentator/nnunet/results").expanduser() if given is None else Path(given)


def model_folder(weights: Path, number: int, task: Task) -> Path:
    """The nnU-Net folder of a data set, `DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION`.

    Raises:
        CheckpointError: a folder or file that is absent; nothing is fetched.
    """
    where = (
        f"medseg fetches nothing; the weights are published at {PUBLISHED}"
        if task.is_free
        else f"medseg fetches nothing; the weights ({task.licence}) need a licence from {LICENCE_SERVER}"
    )
    if not weights.is_dir():
        raise CheckpointError(
            f"{weights} does not exist; give the folder of TotalSegmentator's weights by --weights. {where}"
        )
    named = re.compile(rf"Dataset0*{number}_.+")
    found = sorted(each for each in weights.iterdir() if named.fullmatch(each.name))
    if len(found) != 1:
        problem = "more than one folder" if found else "no folder"
        raise CheckpointError(f"{weights} contains {problem} Dataset{number:03d}_*, which the task needs. {where}")
    inner = sorted(each for each in found[0].iterdir() if each.name.endswith(f"__{task.configuration}"))
    # Names of trainers changed between releases; they only decide where there are several.
    exact = inner if len(inner) == 1 else [each for each in inner if each.name.startswith(f"{task.trainer}__")]
    if len(exact) != 1:
        held = ", ".join(each.name for each in inner) or "nothing"
        raise CheckpointError(
            f"{found[0]} contains no folder {task.trainer}__*__{task.configuration} (it holds {held}). {where}"
        )
    for name in ("plans.json", "dataset.json"):
        if not (exact[0] / name).is_file():
            raise CheckpointError(f"{exact[0] / name} is missing. {where}")
    return exact[0]
