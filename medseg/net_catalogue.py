"""The catalogue of networks: what builds each one, what planning needs to know of it, and its defaults.

One entry per network, and everything that names networks reads it: `medseg.nets.NETS`, the planning of patches, the
choice of a width, `medseg nets`, messages about unknown names. It can be read without torch; a builder is imported when
its network is built. To add a network, write its module and add its entry here.
"""

from __future__ import annotations

from dataclasses import dataclass

from medseg.errors import ConfigError
from medseg.lookup import known

__all__ = ["BACKBONE_MEMORY", "NETS", "Needs", "NetEntry", "entry_of"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network with fixed stages needs of a patch.

    Args:
        stride: of its coarsest map, in voxels of the image.
        kilobytes: 1024 bytes per voxel of the patch that a training step keeps for back-propagation, in 2D and in 3D:
            float32, full width, the default backbone, 256 x 256 and 64 x 64 x 64 voxels, as counted by
            `python benchmarks/net_memory.py`.
        per_axis: whether it has the option `axis_strides`, by which thick slices are halved less often.
    """

    stride: int
    kilobytes: tuple[float, float]
    per_axis: bool = False


@dataclass(frozen=True, slots=True)
class NetEntry:
    """One network.

    Args:
        builder: where its class or function is, as "module:name"; called with `dims`, `in_channels`, `out_channels` and
            its options.
        needs: what it needs of a patch; None where planning chooses the stages (its options `channels` and `strides`).
        backbone: the default encoder, '' where there is no choice.
        backbones: the encoders to choose from; () where any of `BACKBONE_MEMORY` will do, or there is no choice.
        width_3d: the default of `width` in 3D, on a CPU and on a GPU. In 2D it is 1.
        tensors: where planning chooses the stages: of a stage's features and size, how many a training step keeps, in
            2D and in 3D, with the stages that are planned for a CPU, as counted by `python benchmarks/net_memory.py`.
        kernels: where it does: whether kernels are planned as well (the option `kernels`).
    """

    builder: str
    needs: Needs | None = None
    backbone: str = ""
    backbones: tuple[str, ...] = ()
    width_3d: tuple[float, float] = (1.0, 1.0)
    tensors: tuple[float, float] = (10.5, 10.5)
    kernels: bool = False


RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
# Full-width encoders in 3D take minutes per step on a CPU.
NARROW_ON_CPU = (0.25, 1.0)
# VGG's fc6 has 719 million weights in 3D at full width.
NARROW = (0.25, 0.25)
FCN_NEEDS = Needs(32, (2.5, 1.5), per_axis=True)

NETS: dict[str, NetEntry] = {
    "unet": NetEntry("medseg.nets.unet:UNet"),
    "unet_residual": NetEntry("medseg.nets.unet_residual:ResidualUNet", tensors=(16.2, 13.3)),
    "fcn32s": NetEntry("medseg.nets.fcn:fcn32s", FCN_NEEDS, width_3d=NARROW),
    "fcn16s": NetEntry("medseg.nets.fcn:fcn16s", FCN_NEEDS, width_3d=NARROW),
    "fcn8s": NetEntry("medseg.nets.fcn:fcn8s", FCN_NEEDS, width_3d=NARROW),
    "fcn": NetEntry(
        "medseg.nets.fcn_resnet:DilatedFCN", Needs(8, (3.8, 0.62), per_axis=True), "resnet50", width_3d=NARROW_ON_CPU
    ),
    "deeplabv1": NetEntry(
        "medseg.nets.deeplab_v1_v2:DeepLabV1", Needs(8, (3.0, 1.6), per_axis=True), width_3d=NARROW_ON_CPU
    ),
    "deeplabv2": NetEntry(
        "medseg.nets.deeplab_v1_v2:DeepLabV2", Needs(8, (7.2, 1.3), per_axis=True), "resnet101", width_3d=NARROW_ON_CPU
    ),
    "deeplabv3": NetEntry(
        "medseg.nets.deeplab:DeepLabV3", Needs(8, (4.0, 0.64), per_axis=True), "resnet50", width_3d=NARROW_ON_CPU
    ),
    "deeplabv3plus": NetEntry(
        "medseg.nets.deeplab:DeepLabV3Plus", Needs(16, (2.6, 0.49), per_axis=True), "resnet50", width_3d=NARROW_ON_CPU
    ),
    "enet": NetEntry("medseg.nets.enet:ENet", Needs(8, (1.6, 0.36))),
    "linknet": NetEntry("medseg.nets.linknet:LinkNet", Needs(32, (0.18, 0.058))),
    "icnet": NetEntry("medseg.nets.icnet:ICNet", Needs(32, (0.75, 0.1)), "resnet50", RESNETS, width_3d=NARROW_ON_CPU),
    "bisenetv1": NetEntry(
        "medseg.nets.bisenet_v1:BiSeNetV1", Needs(32, (0.74, 0.21), per_axis=True), "resnet18", width_3d=NARROW_ON_CPU
    ),
    "bisenetv2": NetEntry("medseg.nets.bisenet_v2:BiSeNetV2", Needs(32, (1.3, 0.37))),
    "monai_dynunet": NetEntry("medseg.nets.monai_nets:monai_dynunet"),
    "monai_segresnet": NetEntry("medseg.nets.monai_nets:monai_segresnet", Needs(8, (1.5, 1.0))),
    "monai_swinunetr": NetEntry("medseg.nets.monai_nets:monai_swinunetr", Needs(32, (3.9, 4.2))),
    "monai_attentionunet": NetEntry("medseg.nets.monai_nets:monai_attentionunet", Needs(16, (5.9, 4.2))),
    "nnunet_plain": NetEntry("medseg.nets.nnunet:NnunetPlain", tensors=(9.8, 10.0), kernels=True),
    "nnunet_resenc": NetEntry("medseg.nets.nnunet:NnunetResenc", tensors=(15.2, 12.3), kernels=True),
}
"""Every network by the name that a configuration gives it, `net.name`."""

BACKBONE_MEMORY = {
    "resnet18": (0.27, 0.33),
    "resnet34": (0.4, 0.44),
    "resnet50": (1.0, 1.0),
    "resnet101": (1.8, 1.6),
    "resnet152": (2.5, 2.2),
    "vgg16": (0.77, 2.5),
    "xception": (3.2, 3.3),
    "mobilenet_v3_small": (0.4, 0.87),
    "mobilenet_v3_large": (0.75, 1.6),
}
"""Every backbone by name, `net.backbone`, with the memory that `deeplabv3` on it keeps in training, in 2D and in 3D,
relative to ResNet-50."""


def entry_of(name: str, backbone: str | None = None) -> NetEntry:
    """The entry of a network, once its name and the name of its backbone are known to be right.

    Args:
        name: `net.name` of a configuration, no builder outside medseg.
        backbone: `net.backbone`; None for the default.

    Raises:
        ConfigError: for an unknown network, a backbone where there is no choice of one, or an unknown backbone; the
            message lists the known names and suggests the nearest.

    Example:
        >>> entry_of("deeplabv3").backbone
        'resnet50'
    """
    entry = known(name, NETS, "net.name", "nets", 'or your own as "package.module:builder"')
    if backbone is not None and not entry.backbone:
        raise ConfigError(f"net.backbone is {backbone!r}, but {name} has no choice of backbone; leave it out")
    if backbone is not None:
        choices = entry.backbones or tuple(BACKBONE_MEMORY)
        # As text, since a bundle may hold anything here.
        known(str(backbone), dict.fromkeys(choices), "net.backbone", f"backbones of {name}")
    return entry
