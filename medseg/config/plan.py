"""`plan`: values that planning takes as given instead of deriving them."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medseg.config.part import Part, Positive

__all__ = ["MOST_VOXELS", "RESENC_NET", "RESENC_SIZES", "PatchSize", "PlanConfig", "Spacing"]

MOST_VOXELS = 2**26
"""Voxels of the largest patch: 400 x 400 x 400, or 8192 x 8192; beyond any use, and below what exhausts a machine."""
RESENC_SIZES = ("resenc_m", "resenc_l")
"""The sizes of a plan that are nnU-Net's residual encoders."""
RESENC_NET = "nnunet_resenc"
"""The network of `RESENC_SIZES`."""
Spacing = Annotated[float, Field(ge=1e-5, le=1e4)]
"""Millimetres between voxel centres: from 10 nm to 10 m."""


def _few_voxels(value: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(value) > MOST_VOXELS:
        raise ValueError(f"a patch of more than {MOST_VOXELS} voxels does not fit into memory")
    return value


PatchSize = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MOST_VOXELS)], ...], Field(max_length=3), AfterValidator(_few_voxels)
]
"""Voxels per axis, at most 2^26 together."""


class PlanConfig(Part):
    """Values fixed for planning; the others are derived from the data and the available memory.

    `size` says how much network, patch and batch are planned: `default`; `fast` or `large` with half or twice the
    features, and patches and steps of at most half or twice the voxels; `resenc_m` or `resenc_l` as nnU-Net plans its
    residual encoders for GPUs of 11 or 24 GB, with the network nnunet_resenc. Less memory gives smaller patches, then
    smaller batches, and the plan says so.
    `spacing_mm` is the voxel spacing of the network's grid, per axis, else planned: as fine as the images, or coarser
    where a patch would show too little of what is thick enough. `downsampling` says the same of images without a
    known spacing, such as photographs: so many pixels along each axis become one. `patch_size` is the number of
    voxels that the network sees at once in training, per axis. `memory_gb` is the memory that a training step may
    take; without it, what the device has.
    """

    size: Literal["fast", "default", "large", "resenc_m", "resenc_l"] = "default"
    spacing_mm: tuple[Spacing, ...] | None = None
    downsampling: Annotated[float, Field(ge=1, le=64)] | None = None
    patch_size: PatchSize | None = None
    memory_gb: Positive | None = None
