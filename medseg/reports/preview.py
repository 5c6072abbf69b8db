"""A small picture of a mask on its image, fast enough to make for every case of a night."""

from __future__ import annotations

from medseg.labels import LabelScheme
from medseg.reports.figures import label_colours
from medseg.reports.slices import pick_slice
from medseg.volume import Volume

__all__ = ["preview_png"]

# Pixels along the longer side.
_SIDE = 384


def preview_png(image: Volume, mask: Volume, scheme: LabelScheme) -> bytes:
    """PNG of the slice where the labels cover most, each outlined in its colour; radiological convention.

    Args:
        image: on the mask's grid, with or without channels.
        mask: integers `(I, J[, K])`.
        scheme: what they mean.

    Returns:
        The same bytes for the same image and mask.
    """
    # Predicting through `Model` needs no pictures, so Pillow is loaded only here.
    from medseg.reports.thumbnails import draw_slice, encoded

    labels = dict(zip(scheme.names, scheme.values, strict=True))
    shown = pick_slice(image if image.channels else image.with_array(image.array[None], channels=1), mask, mask, labels)
    outlines = [(shown.pred[name], colour) for name, (_, colour) in label_colours(list(labels)).items()]
    return encoded(draw_slice(shown, _SIDE, outlines), "PNG")
