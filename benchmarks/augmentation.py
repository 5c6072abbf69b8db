"""Augmentation side by side: medseg, MONAI, batchgeneratorsv2, TorchIO, on one core in one run.

    python benchmarks/augmentation.py [--repeats 9] [--only 128^3]
    python benchmarks/augmentation.py --only chain --repeats 3

Spatial part: every contender rotates (each axis within 30 degrees), scales (0.75 to 1.33) and deforms elastically on
every sample, image linear and labels nearest.

Chain: four 96^3 patches of a prepared volume of 200^3 through crop, affine, elastic, flip, noise, blur, brightness,
contrast, gamma and low resolution, each with probability 1 and the same strengths. MONAI's chain is one Compose over a
CacheDataset, with the affine as a step of its own and, as its faster form, inside the elastic transform.

Contenders alternate repeat by repeat, so that a noisy machine is noisy for all of them; the figure is the median CPU
time, which on one thread does not count the time other programs hold the core.
Packages that are not installed are left out (`pip install -c constraints.txt ".[bench]"` brings them).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from medseg.augmentation import SampleAugment, SpatialAugment
from medseg.config import AugmentationConfig

Job = Callable[[], object]
ANGLE = math.radians(30)
SCALE = (0.75, 1.33)


@dataclass(frozen=True)
class Task:
    """One image with labels, and the patches to be made of it."""

    name: str
    shape: tuple[int, ...]
    patch: tuple[int, ...] | None = None
    patches: int = 1

    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(0)
        image = torch.from_numpy(rng.standard_normal((1, *self.shape), dtype=np.float32))
        return image, (image > 0.5).to(torch.uint8) + (image > 1.5).to(torch.uint8)


TASKS = (
    Task("128^3", (128, 128, 128)),
    Task("512^2", (512, 512)),
    Task("four 96^3 patches of 200^3", (200, 200, 200), (96, 96, 96), 4),
)


def medseg(task: Task) -> Job:
    image, labels = task.data()
    rng = np.random.default_rng(1)
    dims = len(task.shape)
    augment = SpatialAugment(
        dims, task.patch, probability=1.0, elastic_probability=1.0, rotation_degrees=math.degrees(ANGLE), scale=SCALE
    )
    margin = np.array(task.patch or task.shape) / 2

    def job() -> None:
        for _ in range(task.patches):
            center = None if task.patch is None else rng.uniform(margin, np.array(task.shape) - margin).tolist()
            augment.apply(image, labels, augment.draw(rng, task.shape, center))

    return job


def monai(task: Task) -> Job | None:
    if importlib.util.find_spec("monai") is None:
        return None
    from monai.transforms import Compose, Rand2DElasticd, Rand3DElasticd, RandSpatialCropSamplesd, ToTensord

    keys = ["image", "labels"]
    image, labels = task.data()
    shared = {
        "keys": keys,
        "prob": 1.0,
        "rotate_range": [ANGLE] * (3 if len(task.shape) == 3 else 1),
        "scale_range": [(SCALE[0] - 1, SCALE[1] - 1)] * len(task.shape),
        "mode": ["bilinear", "nearest"],
        "padding_mode": "border",
    }
    if len(task.shape) == 3:
        elastic = Rand3DElasticd(sigma_range=(5, 8), magnitude_range=(100, 200), **shared)
    else:
        elastic = Rand2DElasticd(spacing=(30, 30), magnitude_range=(1, 2), **shared)
    steps = [elastic]
    if task.patch is not None:
        steps = [RandSpatialCropSamplesd(keys, task.patch, num_samples=task.patches, random_size=False), elastic]
    chain = Compose([ToTensord(keys), *steps]).set_random_state(seed=1)
    return lambda: chain({"image": image, "labels": labels})


def batchgenerators(task: Task) -> Job | None:
    if any(importlib.util.find_spec(name) is None for name in ("batchgeneratorsv2", "pandas")):
        return None
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    image, labels = task.data()
    patch = task.patch or task.shape
    transform = SpatialTransform(
        patch,
        patch_center_dist_from_border=[p // 2 for p in patch],
        random_crop=task.patch is not None,
        p_elastic_deform=1.0,
        elastic_deform_scale=(0.1, 0.2),
        elastic_deform_magnitude=(0.02 * max(patch), 0.04 * max(patch)),
        p_rotation=1.0,
        rotation=(-ANGLE, ANGLE),
        p_scaling=1.0,
        scaling=SCALE,
        p_synchronize_scaling_across_axes=1.0,
        mode_seg="nearest",
    )
    np.random.seed(1)  # noqa: NPY002 - it draws from the global state

    def job() -> None:
        for _ in range(task.patches):
            transform(image=image, segmentation=labels)

    return job


def torchio(task: Task) -> Job | None:
    if importlib.util.find_spec("torchio") is None or len(task.shape) == 2:
        return None
    import torchio as tio

    image, labels = task.data()
    transform = tio.Compose(
        [
            tio.RandomAffine(scales=SCALE, degrees=30, isotropic=True),
            tio.RandomElasticDeformation(num_control_points=7, max_displacement=5),
        ]
    )
    patch = task.patch or task.shape
    rng = np.random.default_rng(1)

    def job() -> None:
        for _ in range(task.patches):
            part = tuple(slice(s, s + p) for s, p in zip(_corner(rng, task.shape, patch), patch, strict=True))
            subject = tio.Subject(
                image=tio.ScalarImage(tensor=image[(slice(None), *part)].clone()),
                labels=tio.LabelMap(tensor=labels[(slice(None), *part)].clone()),
            )
            transform(subject)

    return job


def _corner(rng: np.random.Generator, shape: tuple[int, ...], patch: tuple[int, ...]) -> list[int]:
    return [int(rng.integers(n - p + 1)) for n, p in zip(shape, patch, strict=True)]


def medseg_chain(task: Task) -> Job:
    image, labels = task.data()
    config = AugmentationConfig(
        **{f"{kind}_probability": 1.0 for kind in CHANGED},
        spatial_probability=1.0,
        elastic_probability=1.0,
        rotation_degrees=math.degrees(ANGLE),
        scale=SCALE,
    )
    spatial = SpatialAugment.from_config(config, 3, task.patch, mirror_axes=(True, True, True))
    augment = SampleAugment(config)
    rng = np.random.default_rng(1)
    assert task.patch is not None
    margin = np.array(task.patch) / 2

    def job() -> None:
        for _ in range(task.patches):
            center = rng.uniform(margin, np.array(task.shape) - margin).tolist()
            augment(rng, *spatial.apply(image, labels, spatial.draw(rng, task.shape, center)))

    return job


def monai_chain(task: Task, fused: bool) -> Job | None:
    if importlib.util.find_spec("monai") is None:
        return None
    import monai.transforms as mt
    from monai.data import CacheDataset

    keys, only = ["image", "labels"], ["image"]
    image, labels = task.data()
    moved = {"rotate_range": [ANGLE] * 3, "scale_range": [(SCALE[0] - 1, SCALE[1] - 1)] * 3}
    interpolated = {"keys": keys, "prob": 1.0, "mode": ["bilinear", "nearest"], "padding_mode": "border"}
    elastic = mt.Rand3DElasticd(
        sigma_range=(5, 8), magnitude_range=(100, 200), **interpolated, **moved if fused else {}
    )
    config = AugmentationConfig()
    chain = mt.Compose(
        [
            mt.EnsureTyped(keys),
            mt.RandSpatialCropSamplesd(keys, task.patch, num_samples=task.patches, random_size=False),
            *([] if fused else [mt.RandAffined(**interpolated, **moved)]),
            elastic,
            # On every axis it is drawn, mirroring happens in half of our samples.
            *[mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)],
            mt.RandGaussianNoised(only, prob=1.0, std=config.noise_std),
            mt.RandGaussianSmoothd(only, *[config.blur_sigma] * 3, prob=1.0),
            mt.RandScaleIntensityd(only, factors=(-0.25, 0.25), prob=1.0),
            mt.RandScaleIntensityFixedMeand(only, factors=(-0.25, 0.25), preserve_range=True, prob=1.0),
            mt.RandSimulateLowResolutiond(only, prob=1.0, zoom_range=config.low_resolution),
            mt.RandAdjustContrastd(only, prob=1.0, gamma=config.gamma, retain_stats=True),
        ]
    ).set_random_state(seed=1)
    cached = CacheDataset([{"image": image, "labels": labels}], chain, progress=False)
    return lambda: cached[0]


CHANGED = ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
CHAIN = Task("chain", (200, 200, 200), (96, 96, 96), 4)
Contenders = dict[str, Callable[[Task], Job | None]]
SPATIAL: Contenders = {
    "medseg": medseg,
    "monai": monai,
    "batchgeneratorsv2": batchgenerators,
    "torchio": torchio,
}
CHAINS: Contenders = {
    "medseg": medseg_chain,
    "monai": lambda task: monai_chain(task, fused=False),
    "monai, affine in elastic": lambda task: monai_chain(task, fused=True),
}


def measure(task: Task, contenders: Contenders, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every repeat per contender; one repeat to warm up is thrown away."""
    jobs = {name: job for name, make in contenders.items() if (job := make(task)) is not None}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if repeat > 0:
                seconds[name].append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Augmentation side by side.")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", choices=[task.name for task in (*TASKS, CHAIN)])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'task':28s} {'package':36s} {'median':>10s} {'fastest':>10s} {'samples/s':>10s} {'medseg is':>10s}")
    for task in (*TASKS, CHAIN):
        if options.only not in (None, task.name):
            continue
        seconds = measure(task, CHAINS if task is CHAIN else SPATIAL, options.repeats)
        ours = statistics.median(seconds["medseg"])
        for name, values in seconds.items():
            package, _, form = name.partition(", ")
            name = f"{package} {importlib.metadata.version(package)}{form and ', ' + form}"
            median = statistics.median(values)
            print(
                f"{task.name:28s} {name:36s} {1e3 * median:7.1f} ms {1e3 * min(values):7.1f} ms "
                f"{task.patches / median:10.1f} {median / ours:8.1f} x",
                flush=True,
            )


if __name__ == "__main__":
    main()
