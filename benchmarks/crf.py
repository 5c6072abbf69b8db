"""Dense CRF: time and memory on a volume, and what it does to the boundaries of coarse predictions of 2D slices.

    python benchmarks/crf.py [--threads 1] [--size 128] [--slices FOLDER]

The volume has 3 classes and one channel. The peak is that of the process beyond its inputs. FOLDER holds `images/` and
`masks/` of the same names. Coarse predictions are the references at an eighth of the resolution (the nearest voxel, or
the majority of each square, or the share of it that is inside), interpolated back. "Ideal threshold" is what the best
single grey level would reach: where it is low, the references do not lie on the edges of the image.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from medseg.nets.crf import CrfOptions, dense_crf

SMALLER: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": lambda x: F.interpolate(x, scale_factor=1 / 8, mode="nearest-exact"),
    "majority": lambda x: (F.avg_pool2d(x, 8) >= 0.5).float(),
    "share": lambda x: F.avg_pool2d(x, 8),
}
BAND = 3


def volume(n: int) -> tuple[Tensor, Tensor]:
    """A ball in a ball, grainy, with noisy logits."""
    g = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, n)
    radius = (axis[:, None, None] ** 2 + 1.3 * axis[None, :, None] ** 2 + axis**2).sqrt()
    labels = (radius < 0.7).long() + (radius < 0.35).long()
    image = (labels + 0.15 * torch.randn(n, n, n, generator=g))[None]
    logits = 2 * F.one_hot(labels, 3).movedim(-1, 0).float() + torch.randn(3, n, n, n, generator=g)
    return logits, image


def time_and_memory(n: int) -> None:
    logits, image = volume(n)
    print(f"{n}^3, 3 classes, {torch.get_num_threads()} thread(s)")
    for name, options in {
        "every pair of voxels, sigma 10 mm": CrfOptions(),
        "every pair of voxels, sigma 4 mm": CrfOptions(appearance_mm=4.0),
        "window of 3 mm": CrfOptions(window_mm=3.0),
        "window of 5 mm": CrfOptions(window_mm=5.0),
    }.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        dense_crf(logits, image, (1.0, 1.0, 1.0), options)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"  {name:36s} {wall:6.2f} s wall {cpu:6.2f} s CPU, peak so far +{more:.0f} MB", flush=True)
    print(f"  floor of 5 iterations: {_floor(logits, 3.0):.2f} s for the products of the 3 mm window alone")


def _floor(logits: Tensor, radius: float) -> float:
    """Seconds of the multiply-adds that a window cannot do without: pairs x 2 x (classes - 1) x iterations."""
    reach = range(-int(radius), int(radius) + 1)
    offsets = sum(i * i + j * j + k * k <= radius**2 for i in reach for j in reach for k in reach) // 2
    x = torch.rand(2, 2**17)
    y, k = torch.zeros_like(x), torch.rand(2**17)
    start = time.process_time()
    for _ in range(200):
        y.addcmul_(x, k)
    return (time.process_time() - start) / 200 * offsets * 2 * 5 * logits[0].numel() / 2**17


def band_dice(found: np.ndarray, right: np.ndarray, depth: np.ndarray) -> float:
    a, b = found[depth <= BAND], right[depth <= BAND]
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def slices(folder: Path) -> None:
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in SMALLER}
    print(f"{'slice':12s}" + "".join(f"{name + ': before, after':>26s}" for name in SMALLER) + "   ideal threshold")
    for path in sorted((folder / "images").iterdir()):
        grey = np.array(Image.open(path).convert("L"))
        right = np.array(Image.open(folder / "masks" / path.name).convert("L")) > 127
        sizes = [8 * (n // 8) for n in right.shape]
        grey, right = grey[: sizes[0], : sizes[1]], right[: sizes[0], : sizes[1]]
        depth = ndimage.distance_transform_edt(right) + ndimage.distance_transform_edt(~right)
        image = torch.from_numpy(grey).float()[None]
        line = f"{path.stem:12s}"
        for name, smaller in SMALLER.items():
            small = smaller(torch.from_numpy(right)[None, None].float())
            p = F.interpolate(small, scale_factor=8, mode="bilinear", align_corners=False)[0, 0].clamp(0.02, 0.98)
            half = torch.log(p / (1 - p)) / 2
            logits = torch.stack([-half, half])
            sharp = dense_crf(logits, image, (1.0, 1.0))
            before, after = (band_dice(z.argmax(0).bool().numpy(), right, depth) for z in (logits, sharp))
            rows[name].append((before, after))
            line += f"{before:17.3f}, {after:7.3f}"
        levels = np.unique(grey[depth <= BAND])
        best = max(max(band_dice(m, right, depth) for m in (grey < level, grey >= level)) for level in levels)
        print(f"{line}   {best:.3f}", flush=True)
    for name, values in rows.items():
        before, after = np.mean(values, axis=0)
        print(f"mean, {name}: boundary band {before:.3f} -> {after:.3f}, {after - before:+.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, memory and gain of the dense CRF.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--slices", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.slices is None:
        time_and_memory(options.size)
    else:
        slices(options.slices)


if __name__ == "__main__":
    main()
