"""Mean IoU as PASCAL VOC defines it: with the background, of pixels pooled over the data set, without void pixels.

Source: M. Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective, IJCV 111 (2015), 98-136,
section 2.2.3: true positives / (true positives + false positives + false negatives) of each class over all pixels of
the test set, averaged over the classes and the background; pixels marked void (255) in the reference are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from medseg.errors import ConfigError
from medseg.labels import LabelScheme

__all__ = ["VOC_DEFINITION", "VOID", "voc_miou", "with_void"]

VOID = 255
VOC_DEFINITION = (
    "Mean over the labels and the background of the IoU of voxel counts pooled over the data set, without voxels whose "
    "reference is void (the value to ignore, 255 unless the labels name another), as in PASCAL VOC (Everingham 2015); "
    "a class that neither side holds is left out."
)


def with_void(scheme: LabelScheme) -> LabelScheme:
    """The scheme with void to be ignored, unless it ignores a value of its own.

    Raises:
        ConfigError: for regions, which may overlap, so that a voxel has several classes; or where void is a label.
    """
    if scheme.is_regions:
        raise ConfigError(
            "the mIoU of PASCAL VOC needs one class for each voxel, and the labels are regions; leave it out"
        )
    if scheme.ignore is not None:
        return scheme
    held = [name for name, values in zip(scheme.names, scheme.values, strict=True) if VOID in values]
    if held:
        raise ConfigError(
            f"the mIoU of PASCAL VOC ignores {VOID}, which is the label {held[0]}; name another value to ignore, leave "
            "miou=voc out, or, for masks of 0 and 255, give label_threshold=127 and the label the value 1"
        )
    return replace(scheme, ignore=VOID)


def voc_miou(cases: Sequence[Mapping[tuple[int, int], int]]) -> float:
    """Mean IoU over all classes that occur, background (0) included; NaN without any.

    Args:
        cases: (value in the reference, value in the prediction) -> voxels, without void.

    Example:
        >>> voc_miou([{(0, 0): 6, (0, 1): 1, (1, 1): 1}, {(1, 1): 2}])  # background 6 / 7, label 3 / 4
        0.8035714285714286
    """
    hit: dict[int, int] = {}
    union: dict[int, int] = {}
    for case in cases:
        for (ref, pred), voxels in case.items():
            for value in {ref, pred}:
                union[value] = union.get(value, 0) + voxels
            if ref == pred:
                hit[ref] = hit.get(ref, 0) + voxels
    found = [hit.get(value, 0) / all_ for value, all_ in union.items() if all_]
    return sum(found) / len(found) if found else math.nan
