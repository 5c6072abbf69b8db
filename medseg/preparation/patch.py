"""How deep a U-Net goes and how large its patch is, from the data's shape, the spacing, and the memory at hand.

Activations of a U-Net in training are estimated as

    bytes = batch * patch voxels * sum over stages (4/3 * tensors * channels[s] / voxels per feature of stage s)
            * bytes per number

Tensors are what back-propagation keeps per stage, as the catalogue of networks says (10.5 of the U-Net: encoder and
decoder with two convolutions each, the concatenation and the up-convolution); a third on top is for gradients under
way. Bytes per number are 4 on a CPU and 3 on a GPU, where mixed precision halves most tensors but not all: nnU-Net's
default of 2 x 128^3 comes out at 7.5 GB, where its authors say 7.7. Weights (some hundred MB at most) are covered by
using half of the memory on a CPU and 80% on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Budget",
    "activation_bytes",
    "choose_batch",
    "choose_patch",
    "default_channels",
    "strides_for",
    "total_stride",
]

# Of a U-Net, for the tests and where nothing else is said.
TENSORS_PER_STAGE = 10.5
# What gradients under way take on top of what is kept.
WITH_GRADIENTS = 4 / 3
SMALLEST_MAP = 4
# Where the user asks for more stages; instance norm needs more than one voxel.
FORCED_SMALLEST_MAP = 2
CPU_CHANNELS = {2: (16, 32, 64, 128, 256), 3: (16, 32, 64, 128, 256)}
GPU_CHANNELS = {2: (32, 64, 128, 256, 512, 512, 512), 3: (32, 64, 128, 256, 320, 320)}
# Most voxels of a training step (batch x patch). On a CPU time is the limit: two slow cores do 360k voxels in 1.5 s.
CPU_STEP_VOXELS = {2: 270_000, 3: 360_000}
GPU_STEP_VOXELS = {2: 24 * 512 * 512, 3: 4 * 160**3}
LARGEST_BATCH = {2: 16, 3: 8}
# A patch larger than this adds time and little context.
LARGEST_PATCH_VOXELS = {"cpu": {2: 512 * 512, 3: 180_000}, "gpu": {2: 1024 * 1024, 3: 160**3}}
SMALLEST_BATCH = 2
# Short trainings need many steps more than large ones: the voxels of a step grow with this power of all the voxels
# that the time is enough for, from this many in a quarter of an hour on one core.
SHORT_STEP_VOXELS, SHORT_SECONDS, STEP_GROWTH = 260_000, 900.0, 0.5
TIMED_STEP_VOXELS = {2: (65_000, 540_000), 3: (65_000, 720_000)}
# A side that is nearly as long as the image is rather a little shorter than longer.
MOST_OF_IMAGE = 0.75
# Slices that a patch keeps, where the image has as many.
FEWEST_SLICES = 16
# Voxels that a side has at least, where the image is as long: less loses too much to the borders.
LEAST_SIDE = {2: 256, 3: 48}
# nnU-Net keeps a batch within 5% of the data; below this many samples the limit costs more than it protects.
BATCH_WITHOUT_LIMIT = 4


@dataclass(frozen=True, slots=True)
class Budget:
    """What a training step may use.

    Args:
        dims: 2 or 3.
        memory_gb: memory of the device.
        on_gpu: whether that device is a GPU.
        kilobytes: that a step of the net keeps per voxel in float32; None: a U-Net, by the formula above.
        seconds: of one core that the whole training has; None: steps are counted instead.
        reach: how long a patch need be to find the structures, in the unit of the spacing; None: unknown.
        tensors: per stage that a step of a U-Net keeps.
        scale: multiplies the most voxels of a patch and a step.
    """

    dims: int
    memory_gb: float
    on_gpu: bool
    kilobytes: float | None = None
    seconds: float | None = None
    reach: float | None = None
    tensors: float = TENSORS_PER_STAGE
    scale: float = 1.0

    @property
    def bytes(self) -> float:
        """Bytes for activations."""
        return self.memory_gb * 1e9 * (0.8 if self.on_gpu else 0.5)

    @property
    def step_voxels(self) -> int:
        """Most voxels of batch x patch."""
        if self.on_gpu or self.seconds is None:
            return int(self.scale * (GPU_STEP_VOXELS if self.on_gpu else CPU_STEP_VOXELS)[self.dims])
        least, most = TIMED_STEP_VOXELS[self.dims]
        by_time = SHORT_STEP_VOXELS * (self.seconds / SHORT_SECONDS) ** STEP_GROWTH
        return int(self.scale * min(most, max(least, by_time)))

    def longest_side(self, spacing: Sequence[float]) -> float:
        """Of a patch, in the unit of the spacing; infinite where the structures to find are not known."""
        if self.reach is None:
            return math.inf
        return float(self.scale ** (1 / self.dims)) * max(self.reach, LEAST_SIDE[self.dims] * min(spacing))

    @property
    def patch_voxels(self) -> int:
        """Most voxels of one patch."""
        return int(self.scale * LARGEST_PATCH_VOXELS["gpu" if self.on_gpu else "cpu"][self.dims])

    def fits(self, batch: int, patch: Sequence[int], channels: Sequence[int], strides: Sequence[Sequence[int]]) -> bool:
        """Whether a step of this size stays within voxels and bytes."""
        voxels = math.prod(patch)
        return (
            voxels <= self.patch_voxels
            and batch * voxels <= self.step_voxels
            and self.needed(batch, patch, channels, strides) <= self.bytes
        )

    def needed(
        self, batch: int, patch: Sequence[int], channels: Sequence[int], strides: Sequence[Sequence[int]]
    ) -> float:
        """Bytes for activations of a step."""
        if self.kilobytes is None:
            of_a_unet = activation_bytes(batch, patch, channels, strides, self.on_gpu)
            return of_a_unet * (self.tensors / TENSORS_PER_STAGE)
        # Three quarters in mixed precision.
        return batch * math.prod(patch) * self.kilobytes * 1024 * WITH_GRADIENTS * (0.75 if self.on_gpu else 1.0)


def activation_bytes(
    batch: int, patch: Sequence[int], channels: Sequence[int], strides: Sequence[Sequence[int]], on_gpu: bool
) -> float:
    """Estimated bytes that a training step of a U-Net keeps, by the formula at the top of this file.

    Example:
        >>> round(activation_bytes(2, (128, 128, 128), (32, 64), ((1, 1, 1), (2, 2, 2)), on_gpu=True) / 1e9, 1)
        7.0
    """
    per_number = 3 if on_gpu else 4
    total, shrink = 0.0, 1
    for features, stride in zip(channels, strides, strict=True):
        shrink *= math.prod(stride)
        total += WITH_GRADIENTS * TENSORS_PER_STAGE * features / shrink
    return batch * math.prod(patch) * total * per_number


def default_channels(dims: int, on_gpu: bool) -> tuple[int, ...]:
    """Features per stage, as many stages as the device is given at most."""
    return (GPU_CHANNELS if on_gpu else CPU_CHANNELS)[dims]


def strides_for(
    patch: Sequence[int],
    spacing: Sequence[float],
    max_stages: int,
    smallest: int = SMALLEST_MAP,
    exact: bool = False,
) -> tuple[tuple[int, ...], ...]:
    """Strides of each stage of a U-Net, the first all 1.

    An axis is halved while at least `smallest` voxels remain and its spacing is at most twice the finest of the axes
    that can still be halved, so thick slices wait until the others are as coarse (Isensee et al., nnU-Net, 2021).

    Args:
        patch: voxels per axis.
        spacing: per axis, same length.
        max_stages: stop here.
        smallest: fewest voxels of a feature map along an axis that was halved.
        exact: halve only where the size is even, so that `patch` itself stays divisible.

    Example:
        >>> strides_for((40, 56, 40), (1, 1, 1), max_stages=5)
        ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    """
    size, current = [float(p) for p in patch], [float(s) for s in spacing]
    strides: list[tuple[int, ...]] = [(1,) * len(size)]
    while len(strides) < max_stages:
        able = [a for a, n in enumerate(size) if n / 2 >= smallest and not (exact and n % 2)]
        if not able:
            break
        finest = min(current[a] for a in able)
        stride = tuple(2 if a in able and current[a] <= 2 * finest else 1 for a in range(len(size)))
        strides.append(stride)
        size = [n / f for n, f in zip(size, stride, strict=True)]
        current = [s * f for s, f in zip(current, stride, strict=True)]
    return tuple(strides)


def total_stride(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Product of the strides along each axis."""
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def choose_patch(
    shape: Sequence[float],
    spacing: Sequence[float],
    channels: Sequence[int],
    budget: Budget,
    batch: int,
    stages: int | None = None,
    multiple: Sequence[int] | None = None,
    least: Sequence[int] | None = None,
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The largest patch, in the proportions of the image, that fits the budget; and the strides on it.

    It begins with what lies within reach of the structures to find, and shrinks along all axes alike, but in 3D along
    none below 16 voxels.

    Args:
        shape: that most images do not exceed on the network grid, per axis of the net.
        spacing: per axis, same length.
        channels: features per stage; the patch may use fewer stages.
        budget: what a step may use.
        batch: samples per step.
        stages: exactly this many, else as many as sensible up to `len(channels)`.
        multiple: the sides become multiples of these (nets with strides of their own).
        least: the sides are at least this, where the image is as long; this goes before the budget.

    Returns:
        (patch size, strides); the smallest patch tried where nothing fits.
    """
    multiples, floor = multiple or (1,) * len(shape), least or (1,) * len(shape)
    kept = [max(low, FEWEST_SLICES) if len(shape) == 3 else low for low in floor]
    sides = [
        min(n, max(low, budget.longest_side(spacing) / s)) for n, s, low in zip(shape, spacing, floor, strict=True)
    ]
    smallest_share = min(1.0, SMALLEST_MAP / max(sides))
    best: tuple[tuple[int, ...], tuple[tuple[int, ...], ...]] | None = None
    steps = 200
    for step in range(steps + 1):
        share = smallest_share ** (step / steps)
        # Once all sides are as short as they should be, memory goes before.
        lowest = kept if max(sides) * share > max(kept) else floor
        wanted = (min(n, max(low, share * side)) for n, side, low in zip(shape, sides, lowest, strict=True))
        raw = [max(1, math.ceil(n - 1e-6)) for n in wanted]
        smallest = SMALLEST_MAP if stages is None else FORCED_SMALLEST_MAP
        # Rounded up beforehand to a multiple of 2, since an odd size is padded to an even one anyway.
        strides = strides_for([n + n % 2 for n in raw], spacing, stages or len(channels), smallest)
        divisors = map(math.lcm, total_stride(strides), multiples)
        patch = tuple(_side(n, f, long) for n, f, long in zip(raw, divisors, shape, strict=True))
        if stages is not None and len(strides) < stages:
            break
        best = patch, strides
        if budget.fits(batch, patch, channels[: len(strides)], strides):
            return best
    if best is None:
        strides = strides_for([int(2 ** (stages or 1))] * len(shape), spacing, stages or 1, FORCED_SMALLEST_MAP)
        best = tuple(FORCED_SMALLEST_MAP * t for t in total_stride(strides)), strides
    return best


def _side(wanted: int, multiple: int, length: float) -> int:
    """The multiple above `wanted`, or below it where that leaves out little of an image of this length.

    A patch as large as the image shows every structure at one place, and the padding around it.
    """
    below = wanted // multiple * multiple
    if wanted >= length and below >= max(MOST_OF_IMAGE * length, SMALLEST_MAP * multiple):
        return below
    return -(-wanted // multiple) * multiple


def choose_batch(
    patch: Sequence[int],
    channels: Sequence[int],
    strides: Sequence[Sequence[int]],
    budget: Budget,
    dataset_voxels: float,
) -> int:
    """Most samples per step within the budget, the limits above, and (beyond 4) 5% of the data set's voxels."""
    one = math.prod(patch)
    by_bytes = budget.bytes / budget.needed(1, patch, channels, strides)
    by_data = max(BATCH_WITHOUT_LIMIT, 0.05 * dataset_voxels / one)
    batch = int(min(budget.step_voxels / one, by_bytes, by_data, LARGEST_BATCH[budget.dims]))
    return max(SMALLEST_BATCH if by_bytes >= SMALLEST_BATCH else 1, batch)
