"""Where the models of nnU-Net v2 lie in a folder or zip: `DatasetNNN_Name/TRAINER__PLANS__CONFIGURATION/fold_N/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.disk.archive import check_members, opened_zip, unpack
from medseg.disk.temporary import temporary_folder
from medseg.errors import CheckpointError, ReadError

__all__ = ["CHECKPOINT", "checkpoints_in", "is_nnunet", "models_in", "opened_source"]

FOLD = re.compile(r"fold_(all|[0-9]{1,3})")
CHECKPOINT = "checkpoint_final.pth"
# What is read of a zip; pickles are only seen to be there.
WANTED = (
    *(CHECKPOINT, "/plans.json", "/dataset.json", "/postprocessing.json", "/postprocessing.pkl"),
    "inference_information.json",
)


def is_nnunet(source: str | Path) -> bool:
    """Whether a source of `medseg import` is a model folder of nnU-Net, one that holds some, or a zip of it."""
    path = Path(source)
    try:
        if path.is_file():
            with opened_zip(path) as opened:
                return any(name.endswith(f"/{CHECKPOINT}") for name in opened.namelist())
        return path.is_dir() and bool(models_in(path))
    except (ReadError, OSError):
        return False


def models_in(folder: Path) -> list[Path]:
    """Folders with plans and at least one fold: the given one, else those below it, at most three levels."""
    found = [folder]
    for _ in range(4):
        models = [each for each in found if (each / "plans.json").is_file() and _has_folds(each)]
        if models:
            return models
        found = [path for each in found for path in sorted(each.iterdir()) if path.is_dir() and not path.is_symlink()]
        if len(found) > 1000:
            return []
    return []


def checkpoints_in(folder: Path) -> dict[str, Path]:
    """Fold ('0', '1' ... or 'all') -> checkpoint of a model folder; 'all' only where there are no others.

    Raises:
        CheckpointError: no fold has a final checkpoint.
    """
    held = {match[1]: path / CHECKPOINT for path in sorted(folder.iterdir()) if (match := FOLD.fullmatch(path.name))}
    found = {fold: file for fold, file in held.items() if file.exists()}
    numbered = {fold: file for fold, file in found.items() if fold != "all"}
    if not found:
        raise CheckpointError(f"{folder} has no fold_N/{CHECKPOINT}; the training did not end, or folders are missing")
    return numbered or found


@contextmanager
def opened_source(source: Path) -> Iterator[Path]:
    """The folder itself, or what is needed of a zip in a temporary one.

    Raises:
        CheckpointError: a zip that is damaged or hostile.
    """
    if source.is_dir():
        yield source
        return
    try:
        with temporary_folder() as folder:
            with opened_zip(source) as opened:
                check_members(opened, source)
                names = [name for name in opened.namelist() if name.endswith(WANTED)]
            unpack(source, folder, names)
            yield folder
    except ReadError as error:
        raise CheckpointError(str(error)) from None


def _has_folds(folder: Path) -> bool:
    return any(FOLD.fullmatch(path.name) and (path / CHECKPOINT).exists() for path in folder.iterdir())
