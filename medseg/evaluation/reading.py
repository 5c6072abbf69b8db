"""The files of one case, brought onto one grid."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, MedsegError, ReadError
from medseg.evaluation.pairs import Pair
from medseg.geometry import Reorientation, describe
from medseg.io import read
from medseg.io.formats import is_probability_file
from medseg.io.images import read_image
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.labels import LabelScheme
from medseg.preparation.deskew import empty_volume, is_orthogonal, straight_grid
from medseg.resampling import resample_like
from medseg.volume import Finding, Volume

__all__ = ["CaseFiles", "read_case", "read_pair"]

_SAME_PLACE_MM = 1e-2


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Everything about one case, on one grid with axes at right angles; what there is not is None.

    Args:
        pred, ref, second: label maps; `second` is another observer's reference.
        image: channels first where there are several, none where there is one.
        probabilities: `(labels, I, J[, K])` as `medseg predict` writes them, channels as `TaskCase` wants them.
        fov: voxels that count, same shape as the reference.
        findings: what could not be used, and why.
    """

    pred: Volume
    ref: Volume
    second: Volume | None = None
    image: Volume | None = None
    probabilities: Volume | None = None
    fov: NDArray[np.bool_] | None = None
    findings: tuple[Finding, ...] = ()


def read_pair(
    pair: Pair,
    threshold: float | None = None,
    resample_prediction: bool = False,
    scheme: LabelScheme | None = None,
) -> tuple[Volume, Volume]:
    """Prediction and reference of a case, on one grid.

    Args:
        pair: the files; without a prediction an empty one is made.
        threshold: voxels above it become label 1; for 0/255 masks. A file of 0 and 1 is left as it is.
        resample_prediction: bring the prediction to the reference's grid (nearest) where the grids differ.
        scheme: of several values to ignore in it, the reference gets the first in place of the others.

    Raises:
        ReadError: for a file that cannot be read.
        DatasetError: for a file that is not a label map.
        GeometryError: for grids that differ in more than the order and direction of their axes, with both printed.
    """
    ref = read_label_map([LabelSource(pair.ref)], threshold)
    if scheme is not None:
        ref = ref.with_array(scheme.with_one_ignored(ref.array))
    if pair.pred is None:
        return ref.with_array(np.zeros(ref.shape, np.uint8)), ref
    return _label_map_on(ref, pair, pair.pred, "prediction", threshold, resample_prediction), ref


def read_case(
    pair: Pair, scheme: LabelScheme | None, threshold: float | None, resample_prediction: bool, with_images: bool
) -> CaseFiles:
    """All files of a case.

    Args:
        pair: the files.
        scheme: what the integers mean, for the values to ignore and the number of probability channels.
        threshold, resample_prediction: see `read_pair`.
        with_images: also the image, which only tasks measure in.

    Raises:
        ReadError, DatasetError, GeometryError: see `read_pair`; also for probabilities, a field of view or a second
            reference that cannot be used. An image that does not fit becomes a finding.
    """
    pred, ref = read_pair(pair, threshold, resample_prediction, scheme)
    second = (
        None if pair.second is None else _label_map_on(ref, pair, pair.second, "second reference", threshold, False)
    )
    probabilities = None if pair.probabilities is None else _probabilities(pair, pair.probabilities, ref, scheme)
    fov = None if pair.fov is None else _label_map_on(ref, pair, pair.fov, "field of view", None, False)
    image, findings = _image(pair, ref) if with_images else (None, ())
    if ref.dims == 3 and ref.spacing_known and not is_orthogonal(ref.affine, ref.shape):
        # Distances need axes at right angles, and a gantry tilt shears them.
        affine, shape = straight_grid(ref)
        grid = empty_volume(shape, affine)
        pred, ref = resample_like(pred, grid, order=0), resample_like(ref, grid, order=0)
        second, fov = (None if v is None else resample_like(v, grid, order=0) for v in (second, fov))
        image, probabilities = (None if v is None else resample_like(v, grid, order=1) for v in (image, probabilities))
    return CaseFiles(pred, ref, second, image, probabilities, None if fov is None else fov.array > 0, findings)


def _label_map_on(
    ref: Volume, pair: Pair, path: Path, what: str, threshold: float | None, resample_prediction: bool
) -> Volume:
    found = _turned_like(read_label_map([LabelSource(path)], threshold), ref)
    if found.same_geometry(ref, tolerance_mm=_SAME_PLACE_MM):
        return found
    if resample_prediction:
        return resample_like(found, ref, order=0)
    remedy = (
        "predict on the reference's image, or bring the prediction to the reference's grid with --resample-prediction "
        "(resample_prediction=True)"
        if what == "prediction"
        else "it must lie on the reference's grid"
    )
    raise GeometryError(
        f"case {pair.case!r}: the {what} {path} and the reference {pair.ref} are not on one grid: {describe(found)} "
        f"against {describe(ref)}; {remedy}"
    )


def _turned_like(volume: Volume, ref: Volume) -> Volume:
    """The volume with its axes in the order and direction of the reference's, if its voxels then lie on that grid.

    Programs store one mask as RAS, LPS or with other axes first. Moving the axes is exact, so that it needs no consent.
    """
    if volume.dims != 3 or ref.dims != 3 or volume.same_geometry(ref, tolerance_mm=_SAME_PLACE_MM):
        return volume
    if volume.spacing_known != ref.spacing_known or not abs(np.linalg.det(volume.affine)) > 0:
        return volume
    # Voxels of the reference, in voxels of the volume: one axis each, where the grids are the same.
    steps = np.linalg.solve(volume.affine[:3, :3], ref.affine[:3, :3])
    axes = tuple(int(a) for a in np.abs(steps).argmax(axis=0))
    if sorted(axes) != [0, 1, 2]:
        return volume
    move = Reorientation(axes, tuple(bool(steps[axis, n] < 0) for n, axis in enumerate(axes)))
    array = np.ascontiguousarray(move.apply(volume.array, volume.channels))
    turned = replace(volume, array=array, affine=move.move_affine(volume.affine, volume.shape))
    return turned if turned.same_geometry(ref, tolerance_mm=_SAME_PLACE_MM) else volume


def _probabilities(pair: Pair, path: Path, ref: Volume, scheme: LabelScheme | None) -> Volume:
    """Probabilities per label; a background channel is added in front where labels exclude each other."""
    if is_probability_file(path):
        try:
            with np.load(path) as stored:
                array = stored["probabilities"].astype(np.float32)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ReadError(
                f"{path}: expected an array 'probabilities' as medseg predict writes it ({error})"
            ) from None
    else:
        volume = _turned_like(read(path), ref)
        array = (volume.array if volume.channels else volume.array[None]).astype(np.float32)
        if volume.array.dtype.kind in "ui":
            if array.max(initial=0.0) == 1.0:
                raise ReadError(
                    f"{path}: holds only 0 and 1, a mask; probabilities are floats in [0, 1], or integers up to "
                    f"{np.iinfo(volume.array.dtype).max}"
                )
            array /= np.float32(np.iinfo(volume.array.dtype).max)
    names = 1 if scheme is None else len(scheme.names)
    if array.shape[1:] != ref.shape or array.shape[0] not in (names, names + 1):
        raise GeometryError(
            f"case {pair.case!r}: the probabilities {path} have shape {array.shape}, expected {names} label(s) on the "
            f"reference's grid, ({names}, {', '.join(map(str, ref.shape))})"
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= -1e-3 and high <= 1.0 + 1e-3):
        raise ReadError(f"{path}: probabilities lie in [0, 1], found {low:g} to {high:g}; are these logits?")
    if scheme is not None and array.shape[0] == len(scheme.names) and not scheme.is_regions:
        array = np.concatenate([1.0 - array.sum(axis=0, keepdims=True), array])
    return ref.with_array(array, channels=array.shape[0])


def _image(pair: Pair, ref: Volume) -> tuple[Volume | None, tuple[Finding, ...]]:
    if not pair.images:
        return None, ()
    try:
        image = _turned_like(read_image(pair.images), ref)
    except MedsegError as error:
        return None, (Finding("image_unusable", f"{error}"),)
    if not image.same_geometry(ref, tolerance_mm=_SAME_PLACE_MM):
        return None, (Finding("image_unusable", "the image does not lie on the reference's grid"),)
    return (image.with_array(image.array[0]) if image.channels == 1 else image), ()
