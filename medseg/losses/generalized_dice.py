"""Generalised Dice loss: every label weighs alike, however large it is (Sudre et al., DLMIA 2017)."""

from __future__ import annotations

from torch import Tensor

from medseg.labels import LabelScheme
from medseg.losses.dice import DiceLoss

__all__ = ["GeneralizedDiceLoss"]


class GeneralizedDiceLoss(DiceLoss):
    """`1 - (2 sum_c w_c I_c + smooth) / (sum_c w_c (P_c + T_c) + smooth)`, `w_c = 1 / T_c^2`; I, P, T as in `DiceLoss`.

    The weights are scaled so that the rarest label has 1, which leaves the quotient as it is and makes `smooth` voxels
    of that label. A label that does not occur weighs as much as the rarest that does.

    Args:
        labels: what the values mean; None where values are channel indices.
        background: count channel 0 of plain labels as a label too, as in the paper.
        batch: sums run over the whole batch; False: per patch.
        smooth: in voxels, above 0.

    Source:
        Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations,
        DLMIA 2017, equation of GDL.

    Example:
        >>> right = torch.tensor([[[50.0, -50.0]], [[-50.0, 50.0]]]).movedim(0, 1)
        >>> round(GeneralizedDiceLoss()(right, torch.tensor([[[0, 1]]])).item(), 6)
        0.0
    """

    sums_over_ranks = True

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        background: bool = True,
        batch: bool = True,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(labels, background=background, batch=batch, smooth=smooth)

    def of_sums(self, predicted: Tensor, true: Tensor, both: Tensor) -> Tensor:
        """The loss of sums per label, `(labels,)` or per patch `(B, labels)`."""
        size = true.to(predicted.dtype)
        # Only labels that occur can be the rarest; where none does, all weigh 1.
        least = size.masked_fill(size == 0, float("inf")).amin(-1, keepdim=True)
        weight = (least / size).square().masked_fill(size == 0, 1.0)
        overlap = 2 * (weight * both).sum(-1) + self.smooth
        return (1 - overlap / ((weight * (predicted + true)).sum(-1) + self.smooth)).mean()
