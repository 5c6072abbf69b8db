"""The sizes of `plan.size`: how much network, patch and batch a plan takes.

`fast` and `large` scale what planning would take anyway. `resenc_m` and `resenc_l` are the plans of nnU-Net's residual
encoders (Isensee et al., "nnU-Net Revisited", MICCAI 2024; planners `nnUNetPlannerResEncM` and `L` of nnU-Net 2.8.1):
the patch starts as large as the image allows and shrinks, along the axis that is largest relative to the image, until
the convolutions of one sample give no more numbers than a reference; what is left goes into the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medseg.config import RESENC_SIZES, RunConfig
from medseg.errors import ConfigError
from medseg.preparation.net_needs import STAGED
from medseg.preparation.nnunet_topology import pooled_strides, rounded_up
from medseg.preparation.patch import SMALLEST_MAP, Budget, choose_batch, default_channels, total_stride
from medseg.preparation.plan_fields import PlanSize

__all__ = ["DataShape", "NetSize", "channels_of_size", "reason_of_size", "resenc_size", "scale_of_size"]

SCALES = {"fast": 0.5, "large": 2.0}
BLOCKS = (1, 3, 4, 6)  # residual blocks of each stage, the last for all further ones
FIRST_FEATURES, LARGEST_FEATURES = 32, {2: 512, 3: 320}
# Sides of the first patch, were its voxels as long along all axes.
FIRST_SIDE = {2: 2048, 3: 256}
SMALLEST_BATCH = 2
# Of a main memory half is taken, of a GPU's 0.8, and numbers have four bytes there, for three in mixed precision.
CPU_AS_GPU = 0.5 * 0.75 / 0.8


@dataclass(frozen=True, slots=True)
class DataShape:
    """What the size of a plan follows from.

    Args:
        shape: median shape on the network's grid, per axis of the net.
        spacing: per axis, in any one unit.
        voxels: of all cases together.
        outputs: classes, background included.
    """

    shape: tuple[float, ...]
    spacing: tuple[float, ...]
    voxels: float
    outputs: int


@dataclass(frozen=True, slots=True)
class NetSize:
    """What a plan says of network, patch and batch, and of why: `batch`, `patch`, `channels` and `strides` as there."""

    batch: int
    patch: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Preset:
    """One of nnU-Net's residual encoders.

    Args:
        name: for people.
        memory_gb: of the GPU that its authors say it needs.
        numbers: that the convolutions of one sample may give, in 2D and in 3D, in batches of `BATCHES`.
    """

    name: str
    memory_gb: float
    numbers: tuple[float, float]


BATCHES = {2: 12, 3: 2}
PRESETS = {
    "resenc_m": _Preset("ResEncUNetM", 11.0, (135e6, 680e6)),
    "resenc_l": _Preset("ResEncUNetL", 24.0, (380e6, 2100e6)),
}


def scale_of_size(size: str) -> float:
    """By how much a size scales features, and the voxels that a patch and a training step may have."""
    return SCALES.get(size, 1.0)


def channels_of_size(size: str, dims: int, on_gpu: bool) -> tuple[int, ...]:
    """Features per stage, as many stages as the device is given at most.

    Example:
        >>> channels_of_size("fast", 3, on_gpu=False)
        (8, 16, 32, 64, 128)
    """
    return tuple(round(c * scale_of_size(size)) for c in default_channels(dims, on_gpu))


def reason_of_size(config: RunConfig, made: NetSize, on_gpu: bool) -> PlanSize | None:
    """What a plan says of its size; None for the size that no configuration asks for.

    Args:
        config: of the run.
        made: what was planned.
        on_gpu: whether the device is a GPU.
    """
    size = config.plan.size
    if size == "default":
        return None
    if made.reason:
        return PlanSize(name=size, reason=made.reason)
    times = "half" if size == "fast" else "twice"
    said = f"patch and step may have {times} the voxels of the default, as far as memory allows"
    if config.net.name not in STAGED:
        said += f"; {config.net.name} keeps its features, which net.width changes"
    elif config.net.channels is not None:
        said += "; net.channels is kept"
    else:
        usual = default_channels(len(made.patch), on_gpu)[: len(made.channels)]
        said = f"{times} the features per stage, {list(made.channels)} for {list(usual)}; {said}"
    return PlanSize(name=size, reason=said)


def resenc_size(config: RunConfig, data: DataShape, budget: Budget) -> NetSize | None:
    """Network, patch and batch of nnU-Net's residual encoders; None where the configuration asks for another size.

    On less memory than the encoder is made for the patch shrinks, then the batch, down to 1. Main memory of a CPU
    counts as 0.47 of a GPU's, and the batch there is not above that of any plan, as time is the limit. Patch and batch
    that the configuration fixes are kept.

    Args:
        config: of the run.
        data: of the data set.
        budget: of the device.

    Raises:
        ConfigError: for a fixed patch that cannot be halved.

    Source:
        nnU-Net 2.8.1, `experiment_planners/residual_unets/residual_encoder_unet_planners.py`.
    """
    size = config.plan.size
    if size not in RESENC_SIZES:
        return None
    preset, dims = PRESETS[size], budget.dims
    numbers = preset.numbers[dims - 2]
    fixed_patch, fixed_batch = config.plan.patch_size, config.training.batch_size
    memory_gb = budget.memory_gb if budget.on_gpu else CPU_AS_GPU * budget.memory_gb
    share = min(1.0, memory_gb / preset.memory_gb)
    if fixed_patch is None:
        full, made = (_planned(data, numbers * part) for part in (1.0, share))
    else:
        full = made = _of_fixed_patch(tuple(fixed_patch), data, numbers * share)
    said = [f"nnU-Net's {preset.name}, for a GPU with {preset.memory_gb:g} GB: {len(made.channels)} stages"]
    device = f"this GPU has {memory_gb:.3g} GB" if budget.on_gpu else f"this CPU has {budget.memory_gb:.3g} GB"
    if fixed_patch is not None:
        said.append("plan.patch_size is kept")
    elif made.patch != full.patch:
        said.append(f"{device}, so the patch is smaller than {_times(full.patch)}")
    if fixed_batch is not None:
        return replace(made, batch=fixed_batch, reason="; ".join([*said, "training.batch_size is kept"]))
    if fixed_patch is None and made.batch < full.batch:
        said.append(f"{device}, so the batch is {made.batch} and not {full.batch}")
    if not budget.on_gpu:
        most = choose_batch(made.patch, made.channels, made.strides, budget, data.voxels)
        if most < made.batch:
            said.append(f"on a CPU time is the limit, so the batch is {most} and not {made.batch}")
            made = replace(made, batch=most)
    return replace(made, reason="; ".join(said))


def _planned(data: DataShape, reference: float) -> NetSize:
    """nnU-Net's plan for so many numbers from the convolutions of one sample."""
    dims = len(data.shape)
    order = _order(data.spacing)
    shape, spacing = ([values[a] for a in order] for values in (data.shape, data.spacing))
    longest = [1 / s * (FIRST_SIDE[dims] ** dims * math.prod(spacing)) ** (1 / dims) for s in spacing]
    patch = tuple(int(min(round(n), side)) for n, side in zip(longest, shape, strict=True))
    strides = pooled_strides(patch, spacing)
    patch = rounded_up(patch, strides)
    while _numbers(patch, strides, data.outputs) > reference:
        smaller = _reduced(patch, shape, spacing, strides)
        if smaller is None:
            break
        patch, strides = smaller
    numbers = _numbers(patch, strides, data.outputs)
    back = [order.index(a) for a in range(dims)]
    return NetSize(
        batch=_batch(numbers, reference, data.voxels / math.prod(patch), dims),
        patch=tuple(patch[n] for n in back),
        channels=_features(len(strides), dims),
        strides=tuple(tuple(stride[n] for n in back) for stride in strides),
    )


def _of_fixed_patch(patch: tuple[int, ...], data: DataShape, reference: float) -> NetSize:
    strides = pooled_strides(patch, data.spacing, exact=True)
    if len(strides) < 2:
        raise ConfigError(
            f"plan.patch_size {patch} cannot be halved, but nnunet_resenc needs at least 2 stages; give even sides of "
            f"at least {2 * SMALLEST_MAP} voxels"
        )
    batch = _batch(_numbers(patch, strides, data.outputs), reference, data.voxels / math.prod(patch), len(patch))
    return NetSize(batch, patch, _features(len(strides), len(patch)), strides)


def _order(spacing: Sequence[float]) -> list[int]:
    """Axes as nnU-Net counts them, on which its choice among equals depends: the last first, the coarsest before it."""
    order = list(reversed(range(len(spacing))))
    if len(spacing) == 3:
        coarsest = max(order, key=lambda a: spacing[a])
        order = [coarsest, *(a for a in order if a != coarsest)]
    return order


def _reduced(
    patch: tuple[int, ...], shape: Sequence[float], spacing: Sequence[float], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]] | None:
    """A patch that is smaller along one axis, and its strides; None where there is none with two stages."""
    able = [a for a, n in enumerate(patch) if n > SMALLEST_MAP]
    if not able:
        return None
    axis = max(able, key=lambda a: (patch[a] / shape[a], a))
    # Halved less often, the patch may be reduced by less: with a stride of 64, 256 becomes 224.
    less = list(patch)
    less[axis] -= total_stride(strides)[axis]
    step = total_stride(pooled_strides(less, spacing))[axis]
    less[axis] = patch[axis] - step
    found = pooled_strides(less, spacing)
    if less[axis] < 1 or len(found) < 2:
        return None
    return rounded_up(less, found), found


def _features(stages: int, dims: int) -> tuple[int, ...]:
    return tuple(min(LARGEST_FEATURES[dims], FIRST_FEATURES * 2**n) for n in range(stages))


def _numbers(patch: Sequence[int], strides: Sequence[Sequence[int]], outputs: int) -> float:
    """Numbers that the convolutions of the network give for one sample, as nnU-Net counts them."""
    voxels = float(math.prod(patch))
    features = _features(len(strides), len(patch))
    total = voxels * (features[0] + outputs)  # stem and head
    for n, (channels, stride) in enumerate(zip(features, strides, strict=True)):
        voxels /= math.prod(stride)
        encoder = 2 * BLOCKS[min(n, len(BLOCKS) - 1)] + (n > 0)  # a shortcut counts as a convolution
        decoder = 2 if n < len(strides) - 1 else 0
        total += voxels * channels * (encoder + decoder)
    return total


def _batch(numbers: float, reference: float, patches: float, dims: int) -> int:
    """Samples per step: what the reference leaves, at most the whole data set, at least 2 where they fit."""
    fitting = round(reference / numbers * BATCHES[dims])
    return 1 if fitting < SMALLEST_BATCH else max(SMALLEST_BATCH, min(fitting, round(patches)))


def _times(patch: Sequence[int]) -> str:
    return " x ".join(map(str, patch))
