"""The mask of a model made of parts: cropped, on the parts' grid, merged by names, and back; see `CompositeInfo`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.config import PostprocessConfig
from medseg.errors import ReadError
from medseg.geometry import Reorientation, crop, reorient
from medseg.inference.bundle_parts import CompositeInfo
from medseg.inference.composites.box import Box, found_box
from medseg.inference.composites.working_grid import mask_from_grid, on_grid
from medseg.inference.postprocess import postprocess
from medseg.labels import LabelScheme
from medseg.volume import Volume

__all__ = ["merged_parts"]

Predict = Callable[[Volume], Volume]


def merged_parts(
    volume: Volume,
    info: CompositeInfo,
    scheme: LabelScheme,
    members: Mapping[str, Predict],
    schemes: Mapping[str, LabelScheme],
) -> Volume:
    """The label map of a volume, on its own grid.

    Args:
        volume: with or without channels.
        info: crop, grid and rules.
        scheme: the labels that are wanted.
        members: the label map that each needed member finds, by its name, in order.
        schemes: what its values mean.

    Raises:
        GeometryError: for a 2D image where the model crops or resamples.
        ReadError: NaN or infinite voxels.
    """
    moved = any(each is not None for each in (info.grid, info.crop, info.levels))
    turned = volume if volume.channels else volume.with_array(volume.array[None], channels=1)
    turned = reorient(turned) if moved else turned
    whole = np.zeros(turned.shape, dtype=np.min_scalar_type(max(max(each) for each in scheme.values)))
    box: Box | None = tuple(slice(0, n) for n in turned.shape)
    if info.crop is not None:
        turned, box = _cropped(turned, info, members[info.crop.member], schemes[info.crop.member])
    if box is not None:
        part = crop(turned, [each.start for each in box], [each.stop for each in box])
        seen = on_grid(part, info.grid)
        found = np.zeros(seen.shape, dtype=whole.dtype)
        for name in info.finders:
            if name in members:
                values = _table(schemes[name], scheme)[members[name](seen).array]
                np.copyto(found, values.astype(whole.dtype), where=values > 0)
        rules = _of(info.postprocess, scheme)
        if info.postprocess_on == "grid":
            found = postprocess(Volume(found, seen.affine, spacing_known=seen.spacing_known), scheme, rules).array
        found = mask_from_grid(found, part.shape, info.grid)
        if info.postprocess_on == "image":
            found = postprocess(Volume(found, part.affine, spacing_known=part.spacing_known), scheme, rules).array
        whole[box] = found
    if moved:
        whole = np.ascontiguousarray(Reorientation.between(volume.affine, "RAS").undo(whole))
    return volume.with_array(whole)


def _cropped(volume: Volume, info: CompositeInfo, find: Predict, scheme: LabelScheme) -> tuple[Volume, Box | None]:
    """The volume, its grey levels limited, and the box that the crop member finds."""
    rule = info.crop
    assert rule is not None
    seen = on_grid(volume, rule.grid)
    if info.levels is not None:
        if not np.isfinite(seen.array).all():
            raise ReadError(f"{volume.metadata.source or 'the image'} holds NaN or infinite voxels; replace them")
        low, high = np.quantile(seen.array.astype(np.float32), info.levels)
        seen, volume = (
            each.with_array(np.clip(each.array.astype(np.float32), low, high), each.channels) for each in (seen, volume)
        )
    mask = find(seen).array
    found = mask > 0 if not rule.labels else np.isin(mask, [scheme.values[scheme.names.index(n)] for n in rule.labels])
    return volume, found_box(found, volume.shape, volume.spacing_mm, rule)


def _table(part: LabelScheme, whole: LabelScheme) -> NDArray[np.int64]:
    """Value of a part -> value of the whole with the same name, 0 where that is not wanted."""
    wanted = dict(zip(whole.names, whole.values, strict=True))
    table = np.zeros(1 + max(value for each in part.values for value in each), dtype=np.int64)
    for name, (value, *_) in zip(part.names, part.values, strict=True):
        table[value] = wanted.get(name, (0,))[0]
    return table


def _of(rules: PostprocessConfig, scheme: LabelScheme) -> PostprocessConfig:
    """The rules for the labels that are wanted."""

    def kept(named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in named.items() if name in scheme.names}

    return PostprocessConfig(
        inside={name: other for name, other in kept(rules.inside).items() if other in scheme.names},
        minimum_volume_ml=kept(rules.minimum_volume_ml),
        keep_components=kept(rules.keep_components),
        fill_holes=tuple(name for name in rules.fill_holes if name in scheme.names),
    )
