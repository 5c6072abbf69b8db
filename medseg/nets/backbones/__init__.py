"""Backbones: an image in, a list of feature maps out, fine to coarse, 2D and 3D.

One contract: `forward(x) -> list[Tensor]`, `out_channels` (channels of each map), `strides` (of each map, one number
per axis), `auxiliary_map` (which map an auxiliary head takes). Five maps, at strides 2, 4, 8, 16, 32, or less at the
end with `output_stride` 16 or 8, or along thick slices with `axis_strides`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from medseg.lookup import check_option_names, known
from medseg.nets.backbones.mobilenet_v3 import MobileNetV3
from medseg.nets.backbones.resnet import ResNet
from medseg.nets.backbones.strides import Backbone
from medseg.nets.backbones.vgg import VGG16
from medseg.nets.backbones.xception import Xception

__all__ = ["BACKBONES", "VGG16", "Backbone", "MobileNetV3", "ResNet", "Xception", "build_backbone"]

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "resnet152": partial(ResNet, 152),
    "vgg16": VGG16,
    "xception": Xception,
    "mobilenet_v3_small": partial(MobileNetV3, "small"),
    "mobilenet_v3_large": partial(MobileNetV3, "large"),
}


def build_backbone(name: str, *, dims: int, in_channels: int, **options: Any) -> Backbone:
    """The backbone called `name`.

    Args:
        name: a key of `BACKBONES`.
        dims: 2 or 3.
        in_channels: image channels.
        **options: `width`, `norm`, `output_stride`, `axis_strides`, `checkpoint`, and what this backbone alone takes.

    Raises:
        ConfigError: for an unknown name, or an option that this backbone has not.

    Example:
        >>> build_backbone("resnet50", dims=3, in_channels=1, width=0.125, output_stride=16).out_channels
        (8, 32, 64, 128, 256)
    """
    builder = known(name, BACKBONES, "net.backbone", "backbones")
    check_option_names(name, options, inspect.signature(builder).parameters)
    return builder(dims=dims, in_channels=in_channels, **options)
