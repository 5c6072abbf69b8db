"""Whether an exported network answers as the one that it was made of, on windows as prediction cuts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from medseg.errors import CheckpointError, DatasetError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.bundle_parts import ParityInfo
from medseg.inference.network import Network
from medseg.preparation.normalize import normalize
from medseg.preparation.plan_fields import ChannelPlan
from medseg.preparation.store import PreparedCase, open_case

__all__ = ["MOST_CHANGED", "MOST_DIFFERENT", "joined", "measured_parity", "parity_windows"]

# A single window and two at a time: sizes that an exporter may take for constants.
BATCHES = (slice(0, 1), slice(1, 3))
WINDOWS = 3
# In voxels, of the blurs of noise.
GRAINS = (1.0, 2.0, 4.0)
MOST_DIFFERENT = 0.01
"""Largest difference of a probability that an export may have."""
MOST_CHANGED = 0.001
"""Share of voxels that may get another label by an export."""


def parity_windows(model: Path, info: BundleInfo) -> tuple[NDArray[np.float32], str]:
    """Three windows (3, C, *patch) as the network sees them, and what they show: 'cases' or 'noise'.

    Windows of prepared cases around their labels, where the model lies in the run folder that it was trained in;
    otherwise blurred noise in the range of normalised grey levels.

    Args:
        model: the bundle.
        info: its `model.json`.
    """
    found = list(islice(_windows_of_cases(model, info), WINDOWS))
    if found:
        return np.stack([found[n % len(found)] for n in range(WINDOWS)]), "cases"
    rng = np.random.default_rng(0)
    return np.stack([_noise(info, grain, rng) for grain in GRAINS]), "noise"


@torch.inference_mode()
def measured_parity(
    net: nn.Module, network: Network, windows: NDArray[np.float32], seen: str, regions: bool
) -> ParityInfo:
    """How near `network` comes to `net`.

    Args:
        net: the original on the CPU, in eval mode.
        network: what was made of it.
        windows: of `parity_windows`.
        seen: what they show.
        regions: whether the channels are overlapping regions.

    Raises:
        CheckpointError: logits that are not numbers, or of another shape.
    """
    largest, changed, count = 0.0, 0, 0
    for part in BATCHES:
        wanted = net(torch.from_numpy(windows[part]))
        found = torch.from_numpy(network(windows[part]))
        if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
            raise CheckpointError(
                f"the exported network answers with shape {tuple(found.shape)}, expected finite numbers of shape "
                f"{tuple(wanted.shape)}"
            )
        one, two = (each.sigmoid() if regions else each.softmax(1) for each in (wanted, found))
        largest = max(largest, float((one - two).abs().max()))
        differs = ((wanted > 0) != (found > 0)).any(1) if regions else wanted.argmax(1) != found.argmax(1)
        changed, count = changed + int(differs.sum()), count + differs.numel()
    return ParityInfo.model_validate(
        {"windows": len(windows), "seen": seen, "probability": min(1.0, largest), "changed": changed / count}
    )


def joined(parts: Sequence[ParityInfo]) -> ParityInfo:
    """The parity of several folds: the worst of each."""
    largest, changed = max(each.probability for each in parts), max(each.changed for each in parts)
    return parts[0].model_copy(update={"probability": largest, "changed": changed})


def _windows_of_cases(model: Path, info: BundleInfo) -> Iterator[NDArray[np.float32]]:
    for prepared in (model / "prepared", model.parent / "prepared"):
        for folder in sorted(file.parent for file in prepared.glob("*/case.json")):
            try:
                case = open_case(folder)
            except DatasetError:
                continue
            shape = case.image.shape
            if shape[0] == info.plan.in_channels == len(case.scales) and len(shape) - 1 >= info.plan.dims:
                yield _window(case, info.plan.patch_size)


def _window(case: PreparedCase, patch: Sequence[int]) -> NDArray[np.float32]:
    """A window around a voxel of the rarest label, else around the middle."""
    shape = case.image.shape[1:]
    voxels = min((each for value, each in case.foreground.items() if value and len(each)), key=len, default=None)
    middle = [n // 2 for n in shape] if voxels is None else voxels[len(voxels) // 2].tolist()
    size = (*patch, *[1] * (len(shape) - len(patch)))
    start = [min(max(0, m - p // 2), max(0, n - p)) for m, p, n in zip(middle, size, shape, strict=True)]
    inside = tuple(slice(s, s + p) for s, p in zip(start, size, strict=True))
    array = normalize(np.asarray(case.image[(slice(None), *inside)]), case.scales)
    missing = [(0, p - n) for p, n in zip(size, array.shape[1:], strict=True)]
    padded = np.pad(array, [(0, 0), *missing], constant_values=array.min())
    return np.ascontiguousarray(padded.reshape(len(padded), *patch))


def _noise(info: BundleInfo, grain: float, rng: np.random.Generator) -> NDArray[np.float32]:
    patch = info.plan.patch_size
    channels = []
    for channel in info.plan.normalization:
        noise = ndimage.gaussian_filter(rng.standard_normal(patch), grain, mode="wrap")
        channels.append(_in_range((noise - noise.mean()) / max(float(noise.std()), 1e-6), channel))
    return np.stack(channels).astype(np.float32)


def _in_range(noise: NDArray[Any], channel: ChannelPlan) -> NDArray[Any]:
    """Noise of mean 0 and deviation 1 as grey levels that this normalisation can give."""
    if channel.kind in ("unit", "rgb"):
        unit = np.clip(0.5 + noise / 4, 0, 1)
        return unit if channel.mean is None or channel.std is None else (unit - channel.mean) / channel.std
    if channel.low is None or channel.high is None or channel.mean is None or channel.std is None:
        return noise
    low, high = ((level - channel.mean) / channel.std for level in (channel.low, channel.high))
    return np.clip(noise if low < 0 < high else (low + high) / 2 + noise * (high - low) / 4, low, high)
