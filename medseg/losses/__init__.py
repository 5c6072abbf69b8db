"""Losses: `loss(logits (B, C, I, J[, K]), labels (B, 1, I, J[, K]) in dataset values)` -> scalar, float32.

Plain labels: softmax, background in channel 0. Regions: one sigmoid channel each. Voxels whose label is the scheme's
`ignore` value are left out: no gradient, no count. A tuple of logits (auxiliary heads) is weighted 1, 1/2, 1/4, ..., or
as `auxiliary_weights` says.
"""

from __future__ import annotations

from medseg.losses.boundary import BoundaryLoss, distances_for
from medseg.losses.build import LOSSES, build_loss, build_loss_sum, dice_ce, dice_cldice, dice_focal, takes_weights
from medseg.losses.cldice import ClDiceLoss
from medseg.losses.combined import DeepSupervision, SumLoss, SumOf
from medseg.losses.cross_entropy import CrossEntropyLoss, inverse_frequency_weights
from medseg.losses.dice import DiceLoss
from medseg.losses.distillation import DistillationLoss, DistilledLoss
from medseg.losses.focal import FocalLoss
from medseg.losses.gated_crf import GatedCrfLoss, show_images
from medseg.losses.generalized_dice import GeneralizedDiceLoss
from medseg.losses.kept_labels import KeptLabelsLoss
from medseg.losses.ranks import over_ranks
from medseg.losses.topk import TopKCrossEntropyLoss
from medseg.losses.tversky import TverskyLoss
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = [
    "LOSSES",
    "BoundaryLoss",
    "ClDiceLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceLoss",
    "DistillationLoss",
    "DistilledLoss",
    "FocalLoss",
    "GatedCrfLoss",
    "GeneralizedDiceLoss",
    "KeptLabelsLoss",
    "SumLoss",
    "SumOf",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "VoxelLoss",
    "Voxels",
    "build_loss",
    "build_loss_sum",
    "dice_ce",
    "dice_cldice",
    "dice_focal",
    "distances_for",
    "inverse_frequency_weights",
    "over_ranks",
    "show_images",
    "takes_weights",
]
