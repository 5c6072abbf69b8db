"""A picture at each validation: the same slices of a few cases, with contours of reference and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.geometry import Reorientation
from medseg.labels import LabelScheme
from medseg.preparation.grid import map_to_network_grid, oriented_labels
from medseg.preparation.plan import Plan
from medseg.preparation.store import PreparedCase
from medseg.reports.figures import label_colours
from medseg.reports.slices import SlicePicture, pick_slice
from medseg.resampling import resample_array
from medseg.volume import Volume

__all__ = ["MaskPictures"]

_MOST_CASES = 3
# Pixels along the longer side of a slice, and of the line below it.
_SIDE, _LINE = 320, 16


class MaskPictures:
    """Collects the pictures of one validation, case by case.

    Shown are up to three cases whose reference holds a label, on the network's grid, each in the slice where its
    reference covers most, so that the pictures of all validations can be laid over one another.

    Args:
        cases: those that are validated, in this order.
        plan: says how they were prepared.
        scheme: meaning of the labels.
    """

    def __init__(self, cases: Sequence[PreparedCase], plan: Plan, scheme: LabelScheme) -> None:
        self._cases, self._plan, self._scheme = cases, plan, scheme
        held = [n for n, case in enumerate(cases) if case.foreground]
        places = np.linspace(0, len(held) - 1, min(_MOST_CASES, len(held))).round().astype(int)
        self._chosen = {held[n] for n in places}
        self._seen = 0
        self._shown: list[tuple[str, SlicePicture]] = []

    def add(
        self,
        predicted: NDArray[Any],
        reference: NDArray[Any],
        spacing: tuple[float, ...] | None,
        annotated: Sequence[str] = (),
    ) -> None:
        """Take the label map predicted for the next case, as `medseg.training.validation.validate` hands it over."""
        if self._seen in self._chosen:
            case = self._cases[self._seen]
            self._shown.append((case.name, self._slice(case, predicted)))
        self._seen += 1

    def _slice(self, case: PreparedCase, predicted: NDArray[Any]) -> SlicePicture:
        if case.native is not None:
            grid = map_to_network_grid(case.native.grid, self._plan)
            predicted = resample_array(
                oriented_labels(case.native.grid.with_array(predicted), grid), grid.network_shape, order=0
            )
        affine = _affine(case, self._plan)
        known = self._plan.orientation is not None
        image, pred, ref = (
            Volume(array, affine, channels, spacing_known=known)
            for array, channels in ((case.image, case.image.shape[0]), (predicted, 0), (case.labels, 0))
        )
        labels = dict(zip(self._scheme.names, self._scheme.values, strict=True))
        return pick_slice(image, pred, ref, labels, "reference", self._scheme.ignore)

    def drawn(self) -> bytes | None:
        """PNG of the cases beside each other; None where no reference holds a label.

        The reference is drawn in the label's strong colour, the prediction in its pale one; of a single label the
        reference is blue and the prediction amber.
        """
        if not self._shown:
            return None
        # Trainings without validation cases need no pictures, so Pillow is loaded only here.
        from PIL import Image, ImageDraw

        from medseg.reports.thumbnails import draw_slice, encoded

        colours = label_colours(list(self._scheme.names))
        panels = []
        for name, shown in self._shown:
            outlines = [(shown.ref[label], reference) for label, (reference, _) in colours.items()]
            outlines += [(shown.pred[label], prediction) for label, (_, prediction) in colours.items()]
            panels.append((name, shown, draw_slice(shown, _SIDE, outlines)))
        height = max(panel.height for _, _, panel in panels) + 3 * _LINE
        canvas = Image.new("RGB", (sum(panel.width + 4 for _, _, panel in panels) - 4, height))
        draw, left = ImageDraw.Draw(canvas), 0
        for name, shown, panel in panels:
            canvas.paste(panel, (left, 0))
            for row, text in enumerate((name, shown.place)):
                draw.text((left + 4, panel.height + row * _LINE + 2), text, fill=(220, 220, 220))
            left += panel.width + 4
        several = "reference in strong, prediction in pale colours"
        key = "reference blue, prediction amber" if len(colours) == 1 else several
        draw.text((4, height - _LINE + 2), key, fill=(160, 160, 160))
        return encoded(canvas, "PNG")


def _affine(case: PreparedCase, plan: Plan) -> NDArray[np.float64]:
    """Directions and spacing of a prepared case; where it lies is not stored, nor needed."""
    affine = np.eye(4)
    if plan.orientation is not None:
        affine = Reorientation.between(affine, plan.orientation).move_affine(affine, case.labels.shape)
    affine[:3, : len(case.spacing_mm)] *= case.spacing_mm
    return affine
