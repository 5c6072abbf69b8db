"""Post-processing of predicted masks: small components, components in the wrong place, surplus ones, holes.

Components are connected over faces, edges and corners. A hole is background that is not connected over faces to the
outside of the label's bounding box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.config import PostprocessConfig
from medseg.errors import ConfigError, GeometryError
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint
from medseg.volume import Volume

__all__ = [
    "check_keep_largest",
    "check_postprocess",
    "fill_holes",
    "keep_central",
    "keep_components",
    "keep_largest",
    "postprocess",
]

Mask = NDArray[np.bool_]
# How far what an image was cut around lies from its middle, as a share of its length: a few voxels of a hundred.
CENTRAL = 0.1


def postprocess(mask: Volume, scheme: LabelScheme, rules: PostprocessConfig) -> Volume:
    """The mask with `rules` applied, label by label in the order of the scheme; the same volume where there are none.

    Of a label, components that lie in the wrong place go first, then small ones, then all but the largest, or all but
    those near the middle of the image; then holes are filled. A voxel that a plain label loses becomes background;
    one that a region loses keeps the regions around it. Holes take in background, and voxels of a region that
    surrounds this one, never another label's.

    Args:
        mask: integers `(I, J[, K])`.
        scheme: what they mean.
        rules: by label name.

    Raises:
        ConfigError: for a label that the scheme does not have.
        GeometryError: for a least volume where the spacing is not known or the mask is 2D.

    Example:
        >>> scheme = LabelScheme.from_mapping({"lesion": 1})
        >>> mask = Volume(np.array([[1, 1, 0, 1]], dtype=np.uint8), np.eye(4), spacing_known=False)
        >>> postprocess(mask, scheme, PostprocessConfig(keep_components={"lesion": 1})).array.tolist()
        [[1, 1, 0, 0]]
    """
    if rules == PostprocessConfig():
        return mask
    check_postprocess(rules, scheme)
    if rules.minimum_volume_ml and (mask.dims != 3 or not mask.spacing_known):
        raise GeometryError("minimum_volume_ml needs a volume whose voxel spacing is known; this mask has none")
    voxel_ml = abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000.0
    array = mask.array.copy()
    for index, name in enumerate(scheme.names):
        box = _box(array, scheme.values[index])
        if box is None:
            continue
        part = array[box]
        before = np.isin(part, scheme.values[index])
        after = before
        if name in rules.inside:
            after = _touching(after, scheme.mask(part, rules.inside[name]))
        if name in rules.minimum_volume_ml:
            # A hair of rounding must not decide whether a component of exactly this volume stays.
            after = keep_components(after, math.ceil(rules.minimum_volume_ml[name] / voxel_ml * (1 - 1e-9)))
        if name in rules.keep_components:
            after = keep_components(after, 1, rules.keep_components[name])
        if name in rules.keep_central:
            after = keep_central(after, rules.keep_central[name], box, array.shape)
        lost = before & ~after
        part[lost] = _without(scheme, index)[part[lost]]
        if name in rules.fill_holes:
            holes = fill_holes(after) & ~after
            part[holes] = _within(scheme, index)[part[holes]]
    return mask.with_array(array)


def check_postprocess(rules: PostprocessConfig, scheme: LabelScheme) -> None:
    """Refuse rules for labels that do not exist.

    Raises:
        ConfigError: naming the rule, the label, and the labels there are.
    """
    named = {
        "inside": (*rules.inside, *rules.inside.values()),
        "minimum_volume_ml": tuple(rules.minimum_volume_ml),
        "keep_components": tuple(rules.keep_components),
        "keep_central": tuple(rules.keep_central),
        "fill_holes": rules.fill_holes,
    }
    for rule, names in named.items():
        for name in names:
            if name not in scheme.names:
                raise ConfigError(
                    f"prediction.postprocess.{rule} names {name!r}; the labels are {', '.join(scheme.names)}"
                    f"{nearest_hint(name, scheme.names)}"
                )


def keep_largest(mask: Volume, scheme: LabelScheme, groups: Sequence[Sequence[str]]) -> Volume:
    """The mask with only the largest component of each group of labels; the same volume where there is no group.

    The labels of a group are taken together. What goes becomes background, of a region too; components of the same
    largest size all stay.

    Args:
        mask: integers `(I, J[, K])`.
        scheme: what they mean.
        groups: names of labels, worked off in order.

    Source:
        nnU-Net 2.8.1, remove_connected_components.py.

    Example:
        >>> scheme = LabelScheme.from_mapping({"a": 1, "b": 2})
        >>> mask = Volume(np.array([[1, 2, 0, 1, 0]], dtype=np.uint8), np.eye(4), spacing_known=False)
        >>> keep_largest(mask, scheme, [("a", "b")]).array.tolist()
        [[1, 2, 0, 0, 0]]
    """
    if not groups:
        return mask
    check_keep_largest(groups, scheme)
    array = mask.array.copy()
    everywhere = ndimage.generate_binary_structure(array.ndim, array.ndim)
    for names in groups:
        values = [value for name in names for value in scheme.values[scheme.names.index(name)]]
        labelled, count = ndimage.label(np.isin(array, values), everywhere)
        if count > 1:
            sizes = np.bincount(labelled.ravel())[1:]
            lost = np.concatenate([[False], sizes < sizes.max()])
            array[lost[labelled]] = 0
    return mask.with_array(array)


def check_keep_largest(groups: Sequence[Sequence[str]], scheme: LabelScheme) -> None:
    """Refuse groups of labels that do not exist.

    Raises:
        ConfigError: naming the label, and the labels there are.
    """
    for name in (name for names in groups for name in names):
        if name not in scheme.names:
            raise ConfigError(f"keep_largest names {name!r}; the labels are {', '.join(scheme.names)}")


def keep_components(mask: Mask, least_voxels: int = 1, most: int | None = None) -> Mask:
    """The components of at least `least_voxels`, and of these the `most` largest; of equal ones the first.

    Example:
        >>> keep_components(np.array([True, False, True, True]), most=1).tolist()
        [False, False, True, True]
    """
    labelled, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    if count == 0 or (least_voxels <= 1 and (most is None or count <= most)):
        return mask
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = sizes >= least_voxels
    if most is not None:
        ranked = np.argsort(-sizes, kind="stable")[:most]
        largest = np.zeros(count + 1, dtype=bool)
        largest[ranked] = True
        kept &= largest
    kept[0] = False
    return np.asarray(kept[labelled])


def keep_central(mask: Mask, most: int, box: Sequence[slice], shape: Sequence[int]) -> Mask:
    """The `most` components that are large and near the middle of the image; of equal ones the first.

    They are ranked by voxels times exp(-r^2 / (2 * 0.1^2)), r being the distance from the middle of the image to that
    of the component, in lengths of the image along each axis.

    Args:
        mask: the part of the image in `box`.
        most: how many stay.
        box: where the mask lies in the image.
        shape: of the image.

    Example:
        >>> mask = np.array([True, True, True, False, False, True, True, False, False])
        >>> keep_central(mask, 1, [slice(0, 9)], (9,)).astype(int).tolist()
        [0, 0, 0, 0, 0, 1, 1, 0, 0]
    """
    labelled, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    if count <= most:
        return mask
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    middles = np.array(ndimage.center_of_mass(mask, labelled, numbers)) + [side.start for side in box]
    away = (middles + 0.5) / np.array(shape) - 0.5
    # By logarithms, as the weight of what lies far outside is zero.
    weights = np.log(sizes) - (away**2).sum(axis=1) / (2 * CENTRAL**2)
    kept = np.zeros(count + 1, dtype=bool)
    kept[numbers[np.argsort(-weights, kind="stable")[:most]]] = True
    return np.asarray(kept[labelled])


def fill_holes(mask: Mask) -> Mask:
    """The mask with every enclosed piece of background.

    Example:
        >>> fill_holes(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)).all().item()
        True
    """
    outside, count = ndimage.label(np.pad(~mask, 1, constant_values=True))
    if count <= 1:
        return mask
    # The first voxel is padding, so its component is all that reaches the outside.
    return np.asarray((outside != outside.flat[0])[(slice(1, -1),) * mask.ndim])


def _touching(mask: Mask, home: Mask) -> Mask:
    """The components of `mask` that overlap `home` or lie beside it."""
    everywhere = ndimage.generate_binary_structure(mask.ndim, mask.ndim)
    labelled, count = ndimage.label(mask, everywhere)
    kept = np.zeros(count + 1, dtype=bool)
    kept[np.unique(labelled[ndimage.binary_dilation(home, everywhere)])] = True
    kept[0] = False
    return np.asarray(kept[labelled])


def _box(array: NDArray[Any], values: Sequence[int]) -> tuple[slice, ...] | None:
    """The box of the label with a voxel of room on each side, so that neighbours are seen; None where there is none."""
    member = np.isin(array, values)
    box = []
    for axis in range(array.ndim):
        held = np.flatnonzero(member.any(axis=tuple(a for a in range(array.ndim) if a != axis)))
        if not held.size:
            return None
        box.append(slice(max(0, int(held[0]) - 1), int(held[-1]) + 2))
    return tuple(box)


def _holders(scheme: LabelScheme, value: int) -> list[int]:
    return [n for n, values in enumerate(scheme.values) if value in values]


def _without(scheme: LabelScheme, index: int) -> NDArray[np.int64]:
    """Value -> what it becomes where label `index`, and with it all that lies in it, is taken away."""
    table, own = np.arange(max(scheme.known_values) + 1), set(scheme.values[index])
    for value in own:
        table[value] = scheme.value_of([n for n in _holders(scheme, value) if not set(scheme.values[n]) <= own])
    return table


def _within(scheme: LabelScheme, index: int) -> NDArray[np.int64]:
    """Value -> what it becomes where label `index` is added: itself where that would take another label away."""
    table, value = np.arange(max(scheme.known_values) + 1), scheme.painted[index]
    gained = set(_holders(scheme, value))
    for each in range(len(table)):
        if set(_holders(scheme, each)) <= gained:
            table[each] = value
    return table
