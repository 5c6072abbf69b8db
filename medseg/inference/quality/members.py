"""Where the members of a model disagree: its folds, each of them on the image and on its mirror images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from medseg.inference.predictor import Model
from medseg.labels import LabelScheme
from medseg.volume import Volume

__all__ = ["Disagreement", "disagreement"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What the members of a model say about one case.

    Args:
        agreement: per label mean Dice of each member's mask with the mask of their mean; 1 where all are empty.
        expected: per label Dice of the mean's mask with a truth drawn from the mean probabilities, 2 sum(p m) /
            (sum(p) + sum(m)); 0 for an empty mask.
        uncertainty: `(I, J[, K])` on the image's grid, uint8: largest binary entropy of a label's mean probability, in
            hundredths of a bit, 0 (certain) to 100 (undecided).
        members: how many there were.
    """

    agreement: tuple[float, ...]
    expected: tuple[float, ...]
    uncertainty: Volume
    members: int


@torch.inference_mode()
def disagreement(model: Model, image: Volume, overlap: float | None = None) -> Disagreement:
    """Run every fold on the image and on its mirror images, one axis at a time, where the bundle permits mirroring.

    Probabilities are held on the network's grid, 4 bytes a voxel and label, beside the logits of one member.

    Args:
        model: its folds and mirror axes are the members; with one fold and no mirroring there is one member, whose
            probabilities alone tell something.
        image: as for `Model.predict`.
        overlap: of windows, as for `Model.predict`.

    Raises:
        GeometryError, ReadError: as `Model.predict`.
    """
    masks: list[Tensor] = []
    total: Tensor | None = None
    for net in model.nets:
        member = replace(model, nets=(net,), engine=model.engine.for_images(0))
        for axis in (None, *model.mirror_axes()):
            seen = image if axis is None else _mirrored(image, axis, model.info.plan.orientation)
            logits, grid = member.predict_logits(seen, mirror=False, overlap=overlap)
            probabilities = _probabilities(logits.cpu(), model.scheme)
            if axis is not None:
                probabilities = torch.flip(probabilities, (axis + 1,))
            else:
                own_grid = grid
            masks.append(_mask(probabilities, model.scheme))
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None  # a model has at least one net
    mean = total.div_(len(masks))
    decided = _mask(mean, model.scheme)
    labels = range(len(model.scheme.names))
    uncertainty = _entropy(mean).amax(dim=0)
    mode = "trilinear" if uncertainty.ndim == 3 else "bilinear"
    oriented = torch.nn.functional.interpolate(uncertainty[None, None], size=own_grid.oriented_shape, mode=mode)[0, 0]
    native = own_grid.to_native(np.rint(100 * oriented.numpy()).astype(np.uint8))
    return Disagreement(
        agreement=tuple(float(np.mean([_dice(m[n], decided[n]) for m in masks])) for n in labels),
        expected=tuple(_expected(mean[n], decided[n]) for n in labels),
        uncertainty=image.with_array(native),
        members=len(masks),
    )


def _mirrored(image: Volume, axis: int, orientation: str | None) -> Volume:
    """The array mirrored, not the affine: the mirror image of the patient. `axis` counts along the network's grid."""
    native = axis if orientation is None else _native_axis(image.orientation, orientation[axis])
    flipped = np.flip(image.array, native - image.dims)
    return image.with_array(flipped, channels=image.channels)


def _native_axis(orientation: str, letter: str) -> int:
    pair = next(pair for pair in ("RL", "AP", "SI") if letter in pair)
    return next(n for n, each in enumerate(orientation) if each in pair)


def _probabilities(logits: Tensor, scheme: LabelScheme) -> Tensor:
    """(labels, *grid), without background."""
    return torch.sigmoid(logits) if scheme.is_regions else torch.softmax(logits, dim=0)[1:]


def _mask(probabilities: Tensor, scheme: LabelScheme) -> Tensor:
    """(labels, *grid), bool: as the label map would be painted."""
    if scheme.is_regions:
        return probabilities > 0.5
    background = 1 - probabilities.sum(dim=0, keepdim=True)
    winner = torch.cat([background, probabilities]).argmax(dim=0)
    return torch.stack([winner == n + 1 for n in range(len(probabilities))])


def _dice(one: Tensor, two: Tensor) -> float:
    both = int(one.sum()) + int(two.sum())
    return 2 * int((one & two).sum()) / both if both else 1.0


def _expected(probability: Tensor, mask: Tensor) -> float:
    both = float(probability.sum(dtype=torch.float64)) + int(mask.sum())
    return 2 * float(probability[mask].sum(dtype=torch.float64)) / both if both else 0.0


def _entropy(probability: Tensor) -> Tensor:
    p = probability.clamp(1e-7, 1 - 1e-7)
    return -(p * torch.log2(p) + (1 - p) * torch.log2(1 - p))
