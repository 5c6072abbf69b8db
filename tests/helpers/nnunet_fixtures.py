"""The models of tests/fixtures/nnunet, and changes of a model folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medseg
from medseg.disk.archive import unpack
from medseg.volume import Volume

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nnunet"
KINDS = sorted(path.name for path in FIXTURES.iterdir() if (path / "model.zip").is_file())


def image_of(kind: str) -> Volume:
    channels = [medseg.read(path) for path in sorted((FIXTURES / kind).glob("case_*.nii.gz"))]
    return channels[0].with_array(np.stack([each.array for each in channels]), channels=len(channels))


def folder_of(kind: str, target: Path) -> Path:
    target.mkdir()
    unpack(FIXTURES / kind / "model.zip", target)
    (folder,) = target.iterdir()
    return folder


def edited(name: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """A change of one value in a JSON file; None removes the key."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        part = content
        for key in keys[:-1]:
            part = part[key]
        if value is None:
            del part[keys[-1]]
        else:
            part[keys[-1]] = value
        (folder / name).write_text(json.dumps(content))

    return change


def checkpoint(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "fold_0" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=False)
        torch.save({**content, **changes}, path)

    return change
