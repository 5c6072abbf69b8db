"""Disagreement within a model: its folds on the image, on its mirror images and on altered copies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from medseg.inference.predictor import Model
from medseg.inference.quality.alterations import blurred, noisy, rescaled
from medseg.labels import LabelScheme
from medseg.preparation.grid import GridMap, map_to_network_grid
from medseg.preparation.plan import Plan
from medseg.volume import Volume

__all__ = ["Disagreement", "disagreement", "passes_of"]

# A reliable mask hardly changes under these.
ALTERATIONS: tuple[Callable[[Volume], Volume], ...] = (
    lambda image: noisy(image, 0.25, np.random.default_rng(0)),
    lambda image: blurred(image, 0.7),
    lambda image: rescaled(image, 0.9),
)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Agreement and uncertainty of the ensemble members of a model on one case.

    Args:
        agreement: per label mean Dice of each member's mask with the mask of their mean; 1 where all are empty.
        expected: per label Dice of the mean's mask with a truth drawn from the mean probabilities, 2 sum(p m) /
            (sum(p) + sum(m)); 0 for an empty mask.
        stability: per label Dice of the mean's mask with three others: of the image with a little noise, a little
            blurred, and taken for a tenth smaller; 1 where both are empty.
        uncertainty: `(I, J[, K])` on the image's grid, uint8: largest binary entropy of a label's mean probability, in
            hundredths of a bit, 0 (certain) to 100 (undecided).
        members: number of ensemble members.
    """

    agreement: tuple[float, ...]
    expected: tuple[float, ...]
    stability: tuple[tuple[float, ...], ...]
    uncertainty: Volume
    members: int


def passes_of(model: Model) -> int:
    """How often `disagreement` runs networks over a whole image."""
    return len(model.nets) * (1 + len(model.mirror_axes())) + len(ALTERATIONS)


@torch.inference_mode()
def disagreement(
    model: Model, image: Volume, overlap: float | None = None, progress: Callable[[int, int], None] | None = None
) -> Disagreement:
    """Run every fold on the image and on its mirror images, one axis at a time, where the bundle permits mirroring.

    Then all folds together on three altered copies of the image. Held on the network's grid: 4 bytes a voxel and label,
    a byte a voxel and member (with regions: a voxel, member and region), and the logits of one pass.

    Args:
        model: its folds and mirror axes give the ensemble members; with one fold and no mirroring there is one, and
            only its probabilities carry information.
        image: as for `Model.predict`.
        overlap: of windows, as for `Model.predict`.
        progress: called with (windows done, windows in all).

    Raises:
        GeometryError, ReadError: as `Model.predict`.
    """
    scheme = model.scheme
    passes = _Passes(passes_of(model), scheme, overlap, progress)
    masks: list[Tensor] = []
    total: Tensor | None = None
    for net in model.nets:
        member = replace(model, nets=(net,), engine=model.engine.for_images(0))
        for axis in (None, *model.mirror_axes()):
            seen = image if axis is None else _mirrored(image, axis, model.info.plan)
            probabilities, grid = passes.run(member, seen)
            if axis is not None:
                probabilities = torch.flip(probabilities, (axis + 1,))
            else:
                own_grid = grid
            masks.append(_decided(probabilities, scheme))
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None  # a model has at least one net
    mean = total.div_(len(masks))
    decided = _decided(mean, scheme)
    together = replace(model, engine=model.engine.for_images(0))
    altered = [
        _decided(_resized(passes.run(together, alter(image))[0], mean.shape[1:]), scheme) for alter in ALTERATIONS
    ]
    labels = range(len(scheme.names))
    # Label by label: all entropies at once would take four arrays of all probabilities.
    uncertainty = functools.reduce(torch.maximum, (_entropy(each) for each in mean))
    oriented = _resized(uncertainty[None], own_grid.oriented_shape)[0]
    native = own_grid.to_native(np.rint(100 * oriented.numpy()).astype(np.uint8))
    return Disagreement(
        agreement=tuple(float(np.mean(_dice_with(decided, masks, n, scheme))) for n in labels),
        expected=tuple(_expected(mean[n], _label(decided, n, scheme)) for n in labels),
        stability=tuple(tuple(_dice_with(decided, altered, n, scheme)) for n in labels),
        uncertainty=image.with_array(native),
        members=len(masks),
    )


class _Passes:
    """Runs of networks over whole images, counted for the progress."""

    def __init__(
        self, count: int, scheme: LabelScheme, overlap: float | None, progress: Callable[[int, int], None] | None
    ) -> None:
        self.count = count
        self.scheme = scheme
        self.overlap = overlap
        self.progress = progress
        self._finished = 0

    def run(self, model: Model, image: Volume) -> tuple[Tensor, GridMap]:
        """Probabilities (labels, *grid) without background, and the grid."""
        logits, grid = model.predict_logits(image, mirror=False, overlap=self.overlap, progress=self._show)
        self._finished += 1
        logits = torch.as_tensor(logits).cpu()
        return torch.sigmoid(logits) if self.scheme.is_regions else torch.softmax(logits, dim=0)[1:], grid

    def _show(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(self._finished * total + done, self.count * total)


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    """(channels, *size), linear."""
    mode = "trilinear" if values.ndim == 4 else "bilinear"
    return torch.nn.functional.interpolate(values[None], size=tuple(size), mode=mode)[0]


def _mirrored(image: Volume, axis: int, plan: Plan) -> Volume:
    """The array mirrored, not the affine: the mirror image of the patient. `axis` counts along the network's grid."""
    if plan.orientation is None:
        move = map_to_network_grid(image, plan).reorientation
        native = axis if move is None else move.axes[axis]
    else:
        native = _native_axis(image.orientation, plan.orientation[axis])
    flipped = np.flip(image.array, native - image.dims)
    return image.with_array(flipped, channels=image.channels)


def _native_axis(orientation: str, letter: str) -> int:
    pair = next(pair for pair in ("RL", "AP", "SI") if letter in pair)
    return next(n for n, each in enumerate(orientation) if each in pair)


def _decided(probabilities: Tensor, scheme: LabelScheme) -> Tensor:
    """As the label map would be painted: (*grid), 0 or 1 + the label, or for regions (regions, *grid), bool."""
    if scheme.is_regions:
        return probabilities > 0.5
    highest, winner = probabilities.max(dim=0)
    # Background comes first where two are equal, as in the label map.
    winner = torch.where(highest > 1 - probabilities.sum(dim=0), winner + 1, 0)
    return winner.to(torch.uint8 if len(probabilities) < 256 else torch.int32)


def _label(decided: Tensor, number: int, scheme: LabelScheme) -> Tensor:
    return decided[number] if scheme.is_regions else decided == number + 1


def _dice_with(decided: Tensor, others: Sequence[Tensor], number: int, scheme: LabelScheme) -> list[float]:
    mask = _label(decided, number, scheme)
    return [_dice(_label(other, number, scheme), mask) for other in others]


def _dice(one: Tensor, two: Tensor) -> float:
    both = int(one.sum()) + int(two.sum())
    return 2 * int((one & two).sum()) / both if both else 1.0


def _expected(probability: Tensor, mask: Tensor) -> float:
    both = float(probability.sum(dtype=torch.float64)) + int(mask.sum())
    return 2 * float(probability[mask].sum(dtype=torch.float64)) / both if both else 0.0


def _entropy(probability: Tensor) -> Tensor:
    p = probability.clamp(1e-7, 1 - 1e-7)
    return -(p * torch.log2(p) + (1 - p) * torch.log2(1 - p))
