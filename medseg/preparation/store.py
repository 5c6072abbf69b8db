"""Prepared cases on disk: memory-mapped arrays on the network grid, written whole or not at all.

prepared/<case>/image.npy        (C, I, J, K) or (C, I, J), int16 or float32, not normalised
                labels.npy       (I, J, K) or (I, J), the data set's own label values
                foreground.npz   label value -> (n, 3 or 2) voxel coordinates, n <= 5000
                case.json        stamp, spacing, scales, label counts
                native.json      the image's own grid, and what is lost on the way from it
                native.npz       the label map there, compressed; absent where only the order of the axes differs
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_error
from medseg.errors import DatasetError
from medseg.preparation.deskew import empty_volume
from medseg.preparation.fingerprint import count_labels
from medseg.preparation.label_losses import LabelLoss
from medseg.preparation.normalize import Scale
from medseg.volume import Volume

__all__ = [
    "CaseNotes",
    "CaseOrigin",
    "NativeLabels",
    "PreparedArrays",
    "PreparedCase",
    "case_folder",
    "case_notes",
    "is_current",
    "open_case",
    "remove_leftovers",
    "sample_foreground",
    "write_case",
]

FORMAT_VERSION = 1
SAMPLES_PER_LABEL = 5000
NOTES, NATIVE = "native.json", "native.npz"
_DAMAGED = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(EOFError, RecursionError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, slots=True, eq=False)
class NativeLabels:
    """The label map of a case on the image's own grid; read when it is needed.

    Args:
        grid: of the image, without voxels.
        path: of the file that holds the label map.
    """

    grid: Volume
    path: Path

    def read(self) -> NDArray[np.unsignedinteger[Any]]:
        """`grid.shape`, the data set's label values.

        Raises:
            DatasetError: if the file is missing or damaged.
        """
        try:
            with np.load(self.path) as stored:
                labels: NDArray[np.unsignedinteger[Any]] = stored["labels"]
            if labels.shape != self.grid.shape:
                raise ValueError(f"shape {labels.shape}, expected {self.grid.shape}")
            return labels
        except _DAMAGED as error:
            raise _damaged(self.path.parent, error) from None


@dataclass(frozen=True, slots=True, eq=False)
class CaseNotes:
    """What is known of a case's way from its own grid to the network's.

    Args:
        inside_body: whether all labels lie in the body's box on the network's grid, see `medseg.preparation.body`.
        losses: label value -> what of it is lost; only labels that lose something.
    """

    inside_body: bool
    losses: Mapping[int, LabelLoss]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCase:
    """One case on the network grid.

    Args:
        name: of the case.
        group: patient; '' where not known.
        image: `(C, I, J, K)` or `(C, I, J)`, int16 or float32, memory-mapped, read-only, not normalised.
        labels: `(I, J, K)` or `(I, J)`, the data set's label values, memory-mapped, read-only.
        spacing_mm: per spatial axis; 1 per pixel where none is known.
        scales: per channel, for `normalize`.
        foreground: label value -> `(n, spatial axes)` int32 voxel coordinates, at most 5000 drawn per label.
        label_voxels: label value -> voxels on this grid, background (0) included.
        native: the labels on the image's own grid; None where that differs by the order of the axes at most, so that
            `labels` are they.
        annotated: names of the labels that are annotated; None: all of them.
        codes: label value -> code of `SampleLabels`, in samples of a case without some labels; None: values stay.
    """

    name: str
    group: str
    image: NDArray[Any]
    labels: NDArray[Any]
    spacing_mm: tuple[float, ...]
    scales: tuple[Scale, ...]
    foreground: Mapping[int, NDArray[np.int32]]
    label_voxels: Mapping[int, int]
    native: NativeLabels | None = None
    annotated: tuple[str, ...] | None = None
    codes: NDArray[np.int64] | None = None


def case_folder(prepared: Path, name: str) -> Path:
    """Folder of a case below `prepared`; unusual characters in a name are replaced, a short hash keeps it unique."""
    plain = re.sub(r"[^\w.+-]+", "_", name).lstrip(".")
    if plain != name or not name:
        plain = f"{plain or 'case'}-{zlib.crc32(name.encode()):08x}"
    return prepared / plain


def open_case(folder: Path) -> PreparedCase:
    """A prepared case; the arrays are memory-mapped, so opening is cheap and only what is used is read.

    Args:
        folder: as `Preparation.cases` gives it.

    Raises:
        DatasetError: if the folder is missing or damaged.
    """
    try:
        content = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        with np.load(folder / "foreground.npz") as stored:
            foreground = {int(key): stored[key] for key in stored.files}
        return PreparedCase(
            name=content["name"],
            group=content["group"],
            image=np.load(folder / "image.npy", mmap_mode="r"),
            labels=np.load(folder / "labels.npy", mmap_mode="r"),
            spacing_mm=tuple(content["spacing_mm"]),
            scales=tuple(_scale_from_json(scale) for scale in content["scales"]),
            foreground=foreground,
            label_voxels={int(k): v for k, v in content["label_voxels"].items()},
            native=_native_labels(folder),
        )
    except _DAMAGED as error:
        raise _damaged(folder, error) from None


def case_notes(folder: Path) -> CaseNotes:
    """What was noted when a case was prepared.

    Raises:
        DatasetError: if the folder is missing or damaged.
    """
    try:
        content = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        losses = {int(value): LabelLoss(**loss) for value, loss in content["losses"].items()}
        return CaseNotes(bool(content["inside_body"]), losses)
    except _DAMAGED as error:
        raise _damaged(folder, error) from None


def is_current(folder: Path, stamp: str) -> bool:
    """Whether `folder` holds a whole case with this stamp: nothing needs to be prepared again."""
    try:
        content = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in content["sizes"]}
        # Cases of older versions were stored without their own grid.
        return bool(content["stamp"] == stamp and sizes == content["sizes"] and NOTES in sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


@dataclass(frozen=True, slots=True)
class CaseOrigin:
    """What a prepared case was made from: case, patient ('' where not known), and the stamp of files and plan."""

    name: str
    group: str
    stamp: str


@dataclass(frozen=True, slots=True, eq=False)
class PreparedArrays:
    """A case on the network's grid.

    Args:
        image: `(C, I, J, K)` or `(C, I, J)`.
        labels: `(I, J, K)` or `(I, J)`.
        spacing_mm: per spatial axis.
        scales: per channel.
    """

    image: NDArray[Any]
    labels: NDArray[Any]
    spacing_mm: tuple[float, ...]
    scales: tuple[Scale, ...]


def write_case(
    folder: Path,
    origin: CaseOrigin,
    arrays: PreparedArrays,
    ignore: int | None,
    notes: CaseNotes,
    native: Volume | None,
) -> None:
    """Write a prepared case into a folder beside its place, then rename: a killed run leaves no half case.

    Args:
        folder: where the case is to lie; an older one is replaced.
        origin: what it was made from.
        arrays: on the network's grid.
        ignore: label value that gets no foreground coordinates.
        notes: for `case_notes`.
        native: the label map on the image's own grid, where that differs by more than the order of the axes.

    Raises:
        WriteError: disk full, no permission.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    foreground = sample_foreground(arrays.labels, ignore, np.random.default_rng(zlib.crc32(origin.name.encode())))
    # mypy takes the keys for np.savez's own options.
    coordinates: dict[str, Any] = {str(value): where for value, where in foreground.items()}
    values, counts = count_labels(arrays.labels)
    try:
        temporary.mkdir(parents=True)
        np.save(temporary / "image.npy", arrays.image)
        np.save(temporary / "labels.npy", arrays.labels)
        np.savez(temporary / "foreground.npz", **coordinates)
        _write_native(temporary, notes, native)
        content = {
            "format_version": FORMAT_VERSION,
            "name": origin.name,
            "group": origin.group,
            "stamp": origin.stamp,
            "spacing_mm": arrays.spacing_mm,
            "scales": [_scale_to_json(scale) for scale in arrays.scales],
            "label_voxels": {str(v): int(n) for v, n in zip(values, counts, strict=True)},
            "sizes": {file.name: file.stat().st_size for file in sorted(temporary.iterdir())},
        }
        (temporary / "case.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            # case.json goes first: if this is killed half-way, what is left does not pass for a case.
            (folder / "case.json").unlink(missing_ok=True)
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise write_error(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sample_foreground(
    labels: NDArray[Any], ignore: int | None, rng: np.random.Generator
) -> dict[int, NDArray[np.int32]]:
    """Voxel coordinates of each label value but 0 and `ignore`, at most 5000 per value, drawn without replacement.

    Args:
        labels: `(I, J, K)` or `(I, J)`.
        ignore: value to leave out.
        rng: draws.

    Returns:
        label value -> `(n, axes)`.
    """
    positions = np.flatnonzero(labels)
    if not positions.size:
        return {}
    values = labels.reshape(-1)[positions]
    order = np.argsort(values, kind="stable")
    positions, values = positions[order], values[order]
    found, counts = count_labels(values)
    result = {}
    for value, group in zip(found, np.split(positions, np.cumsum(counts)[:-1]), strict=True):
        if value == ignore:
            continue
        if group.size > SAMPLES_PER_LABEL:
            group = np.sort(rng.choice(group, SAMPLES_PER_LABEL, replace=False, shuffle=False))
        result[int(value)] = np.stack(np.unravel_index(group, labels.shape), axis=1).astype(np.int32)
    return result


def remove_leftovers(prepared: Path) -> None:
    """Delete half-written cases of processes that no longer live."""
    for folder in prepared.glob(".*.tmp"):
        owner = folder.name.split(".")[-2]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name == "nt":
        # There, signal 0 is Ctrl-C.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_native(folder: Path, notes: CaseNotes, native: Volume | None) -> None:
    grid = None
    if native is not None:
        np.savez_compressed(folder / NATIVE, labels=native.array)
        grid = {
            "shape": native.shape,
            "affine": native.affine.tolist(),
            "spacing_known": native.spacing_known,
        }
    losses = {str(value): asdict(loss) for value, loss in notes.losses.items()}
    content = {"format_version": 1, "grid": grid, "inside_body": notes.inside_body, "losses": losses}
    (folder / NOTES).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _native_labels(folder: Path) -> NativeLabels | None:
    grid = json.loads((folder / NOTES).read_text(encoding="utf-8"))["grid"]
    if grid is None:
        return None
    volume = empty_volume(tuple(grid["shape"]), np.array(grid["affine"], dtype=np.float64))
    return NativeLabels(replace(volume, spacing_known=bool(grid["spacing_known"])), folder / NATIVE)


def _damaged(folder: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{folder}: not a prepared case of this version ({type(error).__name__}: {error}); delete the folder and "
        "prepare again"
    )


def _scale_to_json(scale: Scale) -> list[float | None]:
    low = None if math.isinf(scale.low) else scale.low
    return [low, None if math.isinf(scale.high) else scale.high, scale.mean, scale.std]


def _scale_from_json(values: list[float | None]) -> Scale:
    low, high, mean, std = values
    return Scale(
        -math.inf if low is None else low, math.inf if high is None else high, float(mean or 0.0), float(std or 1.0)
    )
