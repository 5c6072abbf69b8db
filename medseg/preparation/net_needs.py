"""What planning knows of each network: how far it shrinks an image, what a voxel costs, how wide it is by default.

A U-Net takes the stages that are planned for it (features and strides). Every other net has its own: of these, the plan
fits the patch to the coarsest stride, and thick slices lower it along their axis where the net can.
Kilobytes per voxel are what back-propagation keeps of a training step, counted with saved-tensor hooks on the meta
device (float32, full width, the default backbone, 256 x 256 and 64 x 64 x 64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medseg.config import NetConfig

__all__ = ["NEEDS", "STAGED", "Needs", "axis_strides", "default_width", "needs_of", "sides_for"]

# Nets whose options `channels` and `strides` are the plan's.
STAGED = ("unet", "unet_residual", "monai_dynunet")
# VGG's fc6 has 719 million weights in 3D at full width.
FCN = ("fcn32s", "fcn16s", "fcn8s")
WIDTH_3D = 0.25
# Sides of a patch are multiples of the net's stride, but of no more than this: any size is taken.
LARGEST_MULTIPLE = {2: 32, 3: 16}
# Cells of the coarsest map along each side of a patch, at least, where the image has them.
LEAST_CELLS = {2: 4, 3: 2}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a net with stages of its own asks of a patch.

    Args:
        stride: of its coarsest map.
        kilobytes: that a training step keeps per voxel, in 2D and in 3D.
        backbone: its default one, '' where there is none to choose.
        per_axis: it has the option `axis_strides`.
    """

    stride: int
    kilobytes: tuple[float, float]
    backbone: str = ""
    per_axis: bool = True


NEEDS = {
    "fcn32s": Needs(32, (2.5, 1.5)),
    "fcn16s": Needs(32, (2.5, 1.5)),
    "fcn8s": Needs(32, (2.5, 1.5)),
    "fcn": Needs(8, (3.8, 0.62), "resnet50"),
    "deeplabv1": Needs(8, (3.0, 1.6)),
    "deeplabv2": Needs(8, (7.2, 1.3), "resnet101"),
    "deeplabv3": Needs(8, (4.0, 0.64), "resnet50"),
    "deeplabv3plus": Needs(16, (2.6, 0.49), "resnet50"),
    "enet": Needs(8, (1.6, 0.36), per_axis=False),
    "icnet": Needs(32, (0.75, 0.1), "resnet50", per_axis=False),
    "bisenetv1": Needs(32, (0.74, 0.21), "resnet18"),
    "bisenetv2": Needs(32, (1.3, 0.37), per_axis=False),
    "monai_segresnet": Needs(8, (1.5, 1.0), per_axis=False),
    "monai_swinunetr": Needs(32, (3.9, 4.2), per_axis=False),
    "monai_attentionunet": Needs(16, (5.9, 4.2), per_axis=False),
}
OWN_BUILDER = Needs(32, (4.0, 4.0), per_axis=False)
# What a backbone keeps, relative to ResNet-50.
BACKBONE_COST = {
    "resnet18": 0.25,
    "resnet34": 0.4,
    "resnet50": 1.0,
    "resnet101": 1.8,
    "resnet152": 2.5,
    "vgg16": 2.5,
    "xception": 3.4,
    "mobilenet_v3_small": 0.35,
    "mobilenet_v3_large": 0.75,
}


def needs_of(net: NetConfig) -> Needs | None:
    """What the configured net asks for, at its width and with its backbone; None where its stages are planned."""
    if net.name in STAGED:
        return None
    needs = NEEDS.get(net.name, OWN_BUILDER)
    stride = net.options.get("output_stride")
    if isinstance(stride, int) and stride in (8, 16, 32):
        needs = replace(needs, stride=stride)
    if "axis_strides" in net.options:
        needs = replace(needs, per_axis=False)
    factor = 1.0
    if net.backbone in BACKBONE_COST and needs.backbone:
        factor = BACKBONE_COST[net.backbone] / BACKBONE_COST[needs.backbone]
    each = [k * factor * default_width(net, d, on_gpu=True) for d, k in zip((2, 3), needs.kilobytes, strict=True)]
    return replace(needs, kilobytes=(each[0], each[1]))


def default_width(net: NetConfig, dims: int, on_gpu: bool) -> float:
    """`net.width` where it is given. Else 1, but a quarter where a 3D encoder is too much: FCN's, and any on a CPU.

    Example:
        >>> default_width(NetConfig(name="deeplabv3"), 3, on_gpu=False)
        0.25
    """
    if net.width is not None:
        return net.width
    encoder = net.name in NEEDS and (bool(NEEDS[net.name].backbone) or net.name == "deeplabv1")
    narrow = dims == 3 and (net.name in FCN or (encoder and not on_gpu))
    return WIDTH_3D if narrow else 1.0


def sides_for(
    needs: Needs, shape: Sequence[float], spacing: Sequence[float]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the sides of a patch are multiples of, and the least they are where the image is as long.

    Along thick slices a net with `per_axis` strides is halved only when voxels are about as long as wide. An axis of an
    image that is shorter than the stride is not padded up to it: half of it is enough.

    Returns:
        (multiples, least sides) in voxels, one number per axis.

    Example:
        >>> sides_for(NEEDS["deeplabv3plus"], (256, 256, 24), (0.7, 0.7, 5.0))
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
    """Stride of the net's coarsest map along each axis: an axis is halved while its voxels are the finest, within 2.

    Example:
        >>> axis_strides(NEEDS["deeplabv3"], (0.7, 0.7, 5.0))
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
