"""Memory that a training step keeps for back-propagation, beside what the planning of patches assumes.

    python benchmarks/net_memory.py [NAME]...

Counted on the meta device (`medseg.nets.profile.training_bytes`), so the numbers are the same on every machine. Batch
1, float32, full width, images of 256 x 256 and 64 x 64 x 64 voxels. Three tables: kilobytes (1024 bytes) per voxel of
the networks with fixed stages; tensors per stage of the U-Nets, which `medseg.preparation.patch` multiplies by the
features of each stage and by 4/3 for gradients; and the memory of `deeplabv3` on each backbone relative to ResNet-50.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from medseg.net_catalogue import BACKBONE_MEMORY, NETS
from medseg.nets.profile import build_on_meta, training_bytes
from medseg.preparation.net_needs import RESIDUAL_STAGES
from medseg.preparation.patch import default_channels

SIZES = {2: (256, 256), 3: (64, 64, 64)}


def bytes_per_voxel(name: str, dims: int, **options: Any) -> float:
    """What a training step of one image keeps, by voxel of the image."""
    net = build_on_meta(name, dims=dims, **options)
    return training_bytes(net, (1, 1, *SIZES[dims])) / math.prod(SIZES[dims])


def tensors_per_stage(name: str, dims: int, **options: Any) -> float:
    """Tensors of a stage's features and size that are kept, on the stages that are planned for a CPU."""
    channels = default_channels(dims, on_gpu=False)
    strides = [[1] * dims] + [[2] * dims] * (len(channels) - 1)
    one_of_each = sum(features / 2 ** (dims * stage) for stage, features in enumerate(channels))
    return bytes_per_voxel(name, dims, channels=channels, strides=strides, **options) / (4 * one_of_each)


def row(name: str, dims: int, measured: float, assumed: float) -> None:
    print(f"{name:22s}{dims}D  {measured:8.3f}{assumed:8.3f}{measured / assumed:7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; all without")
    names = parser.parse_args().names or list(NETS)
    print("kilobytes per voxel        measured  planned  ratio")
    for name in names:
        needs = NETS[name].needs
        if needs is not None:
            for dims, assumed in zip((2, 3), needs.kilobytes, strict=True):
                row(name, dims, bytes_per_voxel(name, dims) / 1024, assumed)
    print("\ntensors per stage          measured  planned  ratio")
    for name in names:
        if NETS[name].needs is None:
            for dims in (2, 3):
                row(name, dims, tensors_per_stage(name, dims), NETS[name].tensors[dims - 2])
    if "unet" in names:
        for dims, assumed in RESIDUAL_STAGES.items():
            row("unet, residual", dims, tensors_per_stage("unet", dims, residual=True), assumed)
    if "deeplabv3" in names:
        print("\nbackbones, of ResNet-50    measured  planned  ratio")
        for dims in (2, 3):
            usual = bytes_per_voxel("deeplabv3", dims, backbone="resnet50")
            for name, assumed in BACKBONE_MEMORY.items():
                found = bytes_per_voxel("deeplabv3", dims, backbone=name) / usual
                row(name, dims, found, assumed[dims - 2])


if __name__ == "__main__":
    main()
