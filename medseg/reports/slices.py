"""Which slice of a case to show, and how: radiological convention, true proportions, the region around the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Reorientation
from medseg.label_grouping import grouping
from medseg.preparation.padding import Range, in_ranges, padding_of
from medseg.volume import Volume
from medseg.windowing import window

__all__ = ["SlicePicture", "pick_slice", "spread_slices"]

_VIEWS = ("sagittal", "coronal", "axial")
_MARKS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
# Thick slices are looked at in the plane they were acquired in, whatever that is.
_THICK = 1.5
_MARGIN = 0.6
# A montage shows at least this share of a slice's height and width, so that one sees where a small lesion lies.
_CONTEXT = 0.5
# Names in DICOM of the patient's axes across sagittal, coronal and axial slices, and their sign in RAS+.
_AXES = (("x", 0, -1.0), ("y", 1, -1.0), ("z", 2, 1.0))
# Lung, as opposed to tissue and to the air around the patient.
_LUNG_HU = (-970.0, -300.0)
# Pixels around the labels that tell a lesion in the lung.
_AROUND = 6


@dataclass(frozen=True, slots=True)
class SlicePicture:
    """One slice, ready to draw: rows go down, columns to the right.

    Args:
        image: `(H, W)` grey values or `(H, W, 3)` colours in [0, 1]; None to show masks only.
        pred, ref: label -> `(H, W)` bool.
        aspect: height of a pixel over its width.
        marks: letters at the left, right, top and bottom edge; "" where the orientation is not known.
        place: what is shown, in words.
    """

    image: NDArray[np.float32] | None
    pred: Mapping[str, NDArray[np.bool_]]
    ref: Mapping[str, NDArray[np.bool_]]
    aspect: float
    marks: tuple[str, str, str, str]
    place: str


def pick_slice(
    image: Volume | None,
    pred: Volume,
    ref: Volume,
    labels: Mapping[str, tuple[int, ...]],
    by: Literal["area", "difference", "reference"] = "area",
    ignore: int | None = None,
) -> SlicePicture:
    """The slice that shows most.

    Args:
        image: `(C, I, J[, K])` on the reference's grid, or None; its padding is not considered for the grey levels.
        pred: label map on the reference's grid.
        ref: label map.
        labels: label -> the integers that belong to it.
        by: the slice where the masks cover most, each label measured by its own largest area; where they differ most;
            or where the reference alone covers most, framed by it alone, so that every prediction shows the same part.
        ignore: value in the reference that counts as background in both.
    """
    padding = () if image is None else padding_of(image)
    values = sorted({v for each in labels.values() for v in each})
    if ref.dims == 2:
        return _picture(
            None if image is None else _without(np.moveaxis(image.array, 0, -1).swapaxes(0, 1), padding),
            pred.array.T, ref.array.T, labels, ignore, ref.spacing_mm[::-1], ("", "", "", ""), "whole image", by,
        )  # fmt: skip
    move = Reorientation.between(ref.affine, "LPS")
    spacing = tuple(ref.spacing_mm[a] for a in move.axes)
    pred_array, ref_array = move.apply(pred.array), move.apply(ref.array)
    axis = _axis(spacing)
    index = _most(pred_array, ref_array, axis, values, by)
    view = _VIEWS[axis]
    shown = None
    if image is not None:
        shown = _without(_upright(np.moveaxis(move.apply(image.array, image.channels), 0, -1), axis, index), padding)
    rows, columns = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[axis]
    return _picture(
        shown,
        _upright(pred_array, axis, index),
        _upright(ref_array, axis, index),
        labels,
        ignore,
        (spacing[rows], spacing[columns]),
        _MARKS[view] if ref.spacing_known else ("", "", "", ""),
        f"{view} slice {index + 1} of {ref_array.shape[axis]}",
        by,
    )


def spread_slices(image: Volume, mask: Volume, labels: Mapping[str, tuple[int, ...]], most: int) -> list[SlicePicture]:
    """Slices from one end of the labels to the other, among them the one where each label covers most.

    They share one frame around the labels and one choice of grey levels: in CT the lung or the soft tissue window.
    Axial slices run from the head down. Where there is no label, they are spread over the whole image.

    Args:
        image: on the mask's grid, with or without channels.
        mask: label map.
        labels: label -> the integers that belong to it.
        most: how many slices at most; peaks of further labels are left out.
    """
    image = image if image.channels else image.with_array(image.array[None], channels=1)
    if mask.dims == 2:
        return [pick_slice(image, mask, mask, labels)]
    move = Reorientation.between(mask.affine, "LPS")
    axis = _axis(tuple(mask.spacing_mm[a] for a in move.axes))
    rows, columns = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[axis]
    spacing = tuple(mask.spacing_mm[move.axes[a]] for a in (rows, columns))
    moved = move.apply(mask.array)
    indices = _spread(_areas(moved, axis, labels), most)
    indices = indices[::-1] if axis == 2 else indices
    planes = [_upright(moved, axis, index) for index in indices]
    box = _view_box(np.any([plane != 0 for plane in planes], axis=0), spacing, _CONTEXT)
    channels = np.moveaxis(move.apply(image.array, image.channels), 0, -1)
    shown = _grey_alike([_upright(channels, axis, index)[box] for index in indices], [p[box] for p in planes], image)
    affine, (name, world, sign) = move.move_affine(mask.affine, moved.shape), _AXES[axis]
    pictures = []
    for index, plane, grey in zip(indices, planes, shown, strict=True):
        masks = {label: np.isin(plane[box], values) for label, values in labels.items()}
        middle = [(n - 1) / 2 for n in moved.shape]
        middle[axis] = index
        place = f"{_VIEWS[axis]} {index + 1} of {moved.shape[axis]}"
        if mask.spacing_known:
            place += f", {name} {sign * float(affine[world, :3] @ middle + affine[world, 3]) + 0.0:.1f} mm"
        marks = _MARKS[_VIEWS[axis]] if mask.spacing_known else ("", "", "", "")
        pictures.append(SlicePicture(grey, masks, masks, spacing[0] / spacing[1], marks, place))
    return pictures


def _axis(spacing: Sequence[float]) -> int:
    """The LPS axis across which slices are shown."""
    thickest = int(np.argmax(spacing))
    return thickest if spacing[thickest] > _THICK * sorted(spacing)[1] else 2


def _areas(array: NDArray[Any], axis: int, labels: Mapping[str, tuple[int, ...]]) -> NDArray[np.int64]:
    """Pixels of each label in each slice: (slices, labels)."""
    values = sorted({v for each in labels.values() for v in each})
    group = grouping(values, int(array.max(initial=0)), np.uint16)
    size = len(values) + 1
    counts = np.array([np.bincount(group(plane.ravel()), minlength=size) for plane in np.moveaxis(array, axis, 0)])
    columns = [counts[:, [1 + values.index(v) for v in each]].sum(axis=1) for each in labels.values()]
    return np.stack(columns, axis=1)


def _spread(areas: NDArray[np.int64], most: int) -> list[int]:
    """Evenly spaced slices where there are labels, the nearest ones replaced by those where a label covers most."""
    held = np.flatnonzero(areas.any(axis=1))
    first, last = (int(held[0]), int(held[-1])) if held.size else (0, len(areas) - 1)
    chosen = [int(n) for n in np.unique(np.linspace(first, last, most).round())]
    free = list(range(len(chosen)))
    largest = np.argsort(-areas.max(axis=0), kind="stable")
    for peak in dict.fromkeys(int(areas[:, n].argmax()) for n in largest if areas[:, n].any()):
        if free and peak not in chosen:
            nearest = min(free, key=lambda n: abs(chosen[n] - peak))
            chosen[nearest] = peak
            free.remove(nearest)
        elif peak in chosen and chosen.index(peak) in free:
            free.remove(chosen.index(peak))
    return sorted(chosen)


def _grey_alike(
    slices: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]], image: Volume
) -> list[NDArray[np.float32]]:
    """Grey values or colours in [0, 1] of several slices, by one choice of grey levels."""
    if slices[0].shape[-1] == 3 and slices[0].dtype == np.uint8:
        return [np.asarray(each / np.float32(255.0), dtype=np.float32) for each in slices]
    grey = [each[..., 0].astype(np.float32) for each in slices]
    if image.metadata.modality == "CT":
        return [window(each, "lung" if _in_lung(grey, masks) else "soft_tissue") for each in grey]
    padding = padding_of(image)
    measured = np.concatenate([g[~in_ranges(g, padding)] if padding else g.ravel() for g in grey])
    low, high = (float(v) for v in np.percentile(measured, (1, 99))) if measured.size else (0.0, 1.0)
    return [np.asarray(np.clip((g - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32) for g in grey]


def _in_lung(slices: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[Any]]) -> bool:
    """Whether the labels of a CT are mostly lung, or mostly surrounded by it."""
    from scipy.ndimage import binary_dilation

    labelled = [mask != 0 for mask in masks]
    around = [binary_dilation(mask, iterations=_AROUND) & ~mask for mask in labelled]
    middles = [
        float(np.median(found))
        for parts in (labelled, around)
        if (found := np.concatenate([grey[part] for grey, part in zip(slices, parts, strict=True)])).size
    ]
    return any(_LUNG_HU[0] < middle < _LUNG_HU[1] for middle in middles)


def _without(shown: NDArray[Any], padding: Sequence[Range]) -> NDArray[Any]:
    """The slice with its padding masked, so that it takes no part in the choice of grey levels."""
    return np.ma.masked_array(shown, in_ranges(shown, padding)) if padding else shown


def _upright(array: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Slice `index` of an LPS array with rows running down and columns to the right."""
    plane = _slice(array, axis, index).swapaxes(0, 1)
    return np.asarray(plane if axis == 2 else plane[::-1])


def _slice(array: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """One slice as a view: `take` would first copy the whole of an array that does not lie in C order."""
    return array[(slice(None),) * axis + (index,)]


def _most(pred: NDArray[Any], ref: NDArray[Any], axis: int, values: list[int], by: str) -> int:
    """Where masks differ most, or where each label is nearest to its own largest area, so that small ones show."""
    group_pred, group_ref = (grouping(values, int(a.max(initial=0)), np.uint16) for a in (pred, ref))
    size = len(values) + 1
    counts = np.zeros((ref.shape[axis], size))
    for n in range(ref.shape[axis]):
        p, r = _slice(pred, axis, n).ravel(), _slice(ref, axis, n).ravel()
        if by == "difference":
            p, r = p[p != r], r[p != r]
        counts[n] = np.bincount(group_ref(r), minlength=size)
        if by != "reference":
            counts[n] += np.bincount(group_pred(p), minlength=size)
    shown = counts[:, 1:]
    if by != "difference":
        shown = shown / np.maximum(shown.max(axis=0), 1)
    total = shown.sum(axis=1)
    return int(np.argmax(total)) if total.any() else int(ref.shape[axis]) // 2


def _picture(
    image: NDArray[Any] | None,
    pred: NDArray[Any],
    ref: NDArray[Any],
    labels: Mapping[str, tuple[int, ...]],
    ignore: int | None,
    spacing: tuple[float, ...],
    marks: tuple[str, str, str, str],
    place: str,
    by: str,
) -> SlicePicture:
    known = ref != ignore if ignore is not None else np.ones(ref.shape, dtype=bool)
    preds = {name: np.isin(pred, values) & known for name, values in labels.items()}
    refs = {name: np.isin(ref, values) & known for name, values in labels.items()}
    framing = refs.values() if by == "reference" else (*preds.values(), *refs.values())
    box = _view_box(sum(m.astype(np.uint8) for m in framing) > 0, spacing)
    whole = all(s.start == 0 and s.stop == n for s, n in zip(box, ref.shape, strict=True))
    return SlicePicture(
        image=None if image is None else _grey_or_colour(image[box]),
        pred={name: mask[box] for name, mask in preds.items()},
        ref={name: mask[box] for name, mask in refs.items()},
        aspect=spacing[0] / spacing[1],
        marks=marks,
        place=place if whole else f"{place}, detail",
    )


def _view_box(masks: NDArray[np.bool_], spacing: tuple[float, ...], least: float = 0.0) -> tuple[slice, slice]:
    """A square (in mm) around the masks, with room to see where they lie; the whole slice where there are none.

    Args:
        masks: `(H, W)`.
        spacing: of rows and columns.
        least: share of the slice that is shown at least, along either side.
    """
    if not masks.any():
        return slice(0, masks.shape[0]), slice(0, masks.shape[1])
    where = [np.flatnonzero(masks.any(axis=1 - a)) for a in (0, 1)]
    size = max((w[-1] + 1 - w[0]) * s for w, s in zip(where, spacing, strict=True)) * (1 + 2 * _MARGIN)
    size = max(size, 48 * min(spacing), *(least * n * s for n, s in zip(masks.shape, spacing, strict=True)))
    box = []
    for w, s, n in zip(where, spacing, masks.shape, strict=True):
        center, half = (w[0] + w[-1] + 1) / 2, size / s / 2
        start = int(np.clip(np.floor(center - half), 0, max(0, n - np.ceil(2 * half))))
        box.append(slice(start, int(min(n, max(np.ceil(center + half), np.ceil(2 * half))))))
    return box[0], box[1]


def _grey_or_colour(image: NDArray[Any]) -> NDArray[np.float32]:
    """The first channel between the 1st and 99th percentile of what was measured; three of bytes are a photograph."""
    if image.shape[-1] == 3 and image.dtype == np.uint8:
        return np.asarray(image / np.float32(255.0), dtype=np.float32)
    grey = np.ma.getdata(image)[..., 0].astype(np.float32)
    padded = np.ma.getmaskarray(image)[..., 0]
    low, high = (float(v) for v in np.percentile(grey if padded.all() else grey[~padded], (1, 99)))
    return np.asarray(np.clip((grey - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)
