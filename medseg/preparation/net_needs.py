"""What the configured network needs of a patch, and its default width, from the catalogue of networks.

A U-Net takes the stages that are planned for it (features and strides). Every other network has stages of its own: the
plan fits the patch to the coarsest stride, and along thick slices that stride is lowered where the network allows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from medseg.config import NetConfig
from medseg.net_catalogue import BACKBONE_MEMORY, NETS, Needs, NetEntry, entry_of
from medseg.plugins import is_plugin

__all__ = [
    "RESIDUAL_STAGES",
    "STAGED",
    "axis_strides",
    "catalogue_entry",
    "default_width",
    "needs_of",
    "sides_for",
    "tensors_of",
]

# Networks whose options `channels` and `strides` are the plan's.
STAGED = tuple(name for name, entry in NETS.items() if entry.needs is None)
# Sides of a patch are multiples of the network's stride, but of no more than this: any size is accepted.
LARGEST_MULTIPLE = {2: 32, 3: 16}
# Least number of cells of the coarsest map along each side of a patch, where the image is as long.
LEAST_CELLS = {2: 4, 3: 2}
# Tensors of a stage of `unet` with `residual`.
RESIDUAL_STAGES = {2: 12.5, 3: 12.4}
# A builder outside medseg, of which nothing is known.
UNKNOWN_BUILDER = NetEntry("", Needs(32, (4.0, 4.0)))


def catalogue_entry(net: NetConfig) -> NetEntry:
    """The catalogue's entry for the configured network; cautious assumptions for a builder outside medseg.

    Raises:
        ConfigError: for an unknown network or backbone.
    """
    return UNKNOWN_BUILDER if is_plugin(net.name) else entry_of(net.name, net.backbone)


def needs_of(net: NetConfig) -> Needs | None:
    """What the configured network needs, at its width and with its backbone; None where its stages are planned.

    Raises:
        ConfigError: for an unknown network or backbone.
    """
    entry = catalogue_entry(net)
    needs = entry.needs
    if needs is None:
        return None
    stride = net.options.get("output_stride")
    if isinstance(stride, int) and stride in (8, 16, 32):
        needs = replace(needs, stride=stride)
    if "axis_strides" in net.options:
        needs = replace(needs, per_axis=False)
    in_2d, in_3d = (k * default_width(net, d, on_gpu=True) for d, k in zip((2, 3), needs.kilobytes, strict=True))
    if entry.backbone and net.backbone is not None:
        chosen, usual = BACKBONE_MEMORY[net.backbone], BACKBONE_MEMORY[entry.backbone]
        in_2d, in_3d = in_2d * chosen[0] / usual[0], in_3d * chosen[1] / usual[1]
    return replace(needs, kilobytes=(in_2d, in_3d))


def tensors_of(net: NetConfig, dims: int) -> float:
    """Tensors of a stage's features and size that a training step keeps, where the network's stages are planned.

    Raises:
        ConfigError: for an unknown network or backbone.

    Example:
        >>> tensors_of(NetConfig(name="unet_residual"), 2)
        16.2
    """
    if net.name == "unet" and net.residual:
        return RESIDUAL_STAGES[dims]
    return catalogue_entry(net).tensors[dims - 2]


def default_width(net: NetConfig, dims: int, on_gpu: bool) -> float:
    """`net.width` where it is given; else 1 in 2D, and what the catalogue says for this kind of device in 3D.

    Raises:
        ConfigError: for an unknown network or backbone.

    Example:
        >>> default_width(NetConfig(name="deeplabv3"), 3, on_gpu=False)
        0.25
    """
    entry = catalogue_entry(net)
    if net.width is not None:
        return net.width
    return entry.width_3d[on_gpu] if dims == 3 else 1.0


def sides_for(
    needs: Needs, shape: Sequence[float], spacing: Sequence[float]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers that the sides of a patch are multiples of, and the least sides, where the image is as long.

    Along thick slices a network with `per_axis` strides is halved only once voxels are about as long as wide. An axis
    of an image that is shorter than the stride is not padded up to it: half of it is enough.

    Args:
        needs: of the network.
        shape: of the image in voxels, per axis of the network.
        spacing: per axis, in any one unit.

    Returns:
        (multiples, least sides) in voxels, one number per axis.

    Example:
        >>> sides_for(Needs(16, (2.6, 0.49), per_axis=True), (256, 256, 24), (0.7, 0.7, 5.0))
        ((16, 16, 4), (32, 32, 8))
    """
    dims = len(shape)
    strides = axis_strides(needs, spacing)
    most = [min(LARGEST_MULTIPLE[dims], 2 ** max(0, int(math.log2(max(1.0, n))) - 1)) for n in shape]
    return (
        tuple(min(stride, m) for stride, m in zip(strides, most, strict=True)),
        tuple(LEAST_CELLS[dims] * stride for stride in strides),
    )


def axis_strides(needs: Needs, spacing: Sequence[float]) -> tuple[int, ...]:
    """Stride of the network's coarsest map along each axis.

    An axis is halved while its spacing is at most twice the finest.

    Example:
        >>> axis_strides(Needs(8, (4.0, 0.64), per_axis=True), (0.7, 0.7, 5.0))
        (8, 8, 2)
    """
    size, total = list(spacing), [1] * len(spacing)
    if not needs.per_axis:
        return (needs.stride,) * len(spacing)
    for _ in range(needs.stride.bit_length() - 1):
        finest = min(size)
        for axis, n in enumerate(size):
            if n <= 2 * finest:
                size[axis], total[axis] = 2 * n, 2 * total[axis]
    return tuple(total)
