"""Speed of networks side by side: one core, the same run, alternating, batch 1, inference, float32.

    python benchmarks/networks.py [--repeats 3]

Each row: how many times faster the second is than the first, and the target. The median over the repeats counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.nets import build_net

FLAT = (256, 512)
CHANNELS_2D, CHANNELS_3D = (16, 32, 64, 128, 256), (16, 32, 64, 128)


def ours(name: str, dims: int = 2, **options: Any) -> nn.Module:
    return build_net(name, dims=dims, in_channels=1, out_channels=2, **options).eval()


def basic_unet(dims: int, channels: Sequence[int]) -> nn.Module:
    from monai.networks.nets.basic_unet import BasicUNet

    # BasicUNet has five stages and one more number for its last decoder stage.
    return BasicUNet(dims, 1, 2, features=(*channels, channels[0])).eval()


def dynunet(dims: int, channels: Sequence[int]) -> nn.Module:
    return ours("monai_dynunet", dims, channels=channels)


def seconds(nets: Sequence[nn.Module], image: Tensor, repeats: int) -> list[float]:
    """Median CPU seconds of each net, the nets in turn; a first round is not counted."""
    found: list[list[float]] = [[] for _ in nets]
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for net, times in zip(nets, found, strict=True):
                started = time.process_time()
                net(image)
                if repeat:
                    times.append(time.process_time() - started)
    return [statistics.median(times) for times in found]


def compare(
    slow: tuple[str, Callable[[], nn.Module]],
    fast: dict[str, tuple[Callable[[], nn.Module], float]],
    size: Sequence[int],
    repeats: int,
) -> None:
    """Print the ratio of `slow` to each of `fast` and whether it reaches the target."""
    nets = [slow[1](), *(build() for build, _ in fast.values())]
    base, *others = seconds(nets, torch.randn(1, 1, *size), repeats)
    print(f"{slow[0]} at {' x '.join(map(str, size))}: {base:.3f} s")
    for (name, (_, target)), value in zip(fast.items(), others, strict=True):
        ratio = base / value
        verdict = "ok" if ratio >= target else "MISSED"
        print(f"  {name:34s} {value:7.3f} s  {ratio:5.1f} x  target {target:g}  {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("batch 1, inference, float32, one core, CPU seconds; batch norm for all, but for the U-Nets instance norm")
    for stride in (16, 8):
        options = {"output_stride": stride, "norm": "batch"}
        compare(
            (f"deeplabv3 resnet101, stride {stride}", lambda o=options: ours("deeplabv3", backbone="resnet101", **o)),
            {
                "deeplabv3 mobilenet_v3_large": (
                    lambda o=options: ours("deeplabv3", backbone="mobilenet_v3_large", **o),
                    5.0,
                )
            },
            (256, 256),
            repeats,
        )
    street = {"enet": 8.0, "bisenetv1": 8.0, "bisenetv2": 8.0, "icnet": 4.0}
    compare(
        ("deeplabv3 resnet101, stride 8", lambda: ours("deeplabv3", backbone="resnet101", norm="batch")),
        {name: (lambda n=name: ours(n, norm="batch"), target) for name, target in street.items()},
        FLAT,
        repeats,
    )
    compare(
        ("MONAI BasicUNet, 16-256", lambda: basic_unet(2, CHANNELS_2D)),
        {"unet, 16-256": (lambda: ours("unet", channels=CHANNELS_2D), 1.0)},
        (256, 256),
        repeats,
    )
    compare(
        ("MONAI BasicUNet 3D, 16-256", lambda: basic_unet(3, CHANNELS_2D)),
        {"unet 3D, 16-256": (lambda: ours("unet", 3, channels=CHANNELS_2D), 1.0)},
        (64, 64, 64),
        repeats,
    )
    for dims, size in ((2, (256, 256)), (3, (64, 64, 64))):
        compare(
            (f"MONAI DynUNet {dims}D, 16-128", lambda d=dims: dynunet(d, CHANNELS_3D)),
            {f"unet {dims}D, 16-128": (lambda d=dims: ours("unet", d, channels=CHANNELS_3D), 1.0)},
            size,
            repeats,
        )


if __name__ == "__main__":
    main()
