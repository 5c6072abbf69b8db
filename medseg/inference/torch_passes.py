"""What a model does with torch: its networks by the engine that suits them, on the CPU or a GPU, and the dense CRF."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.config.crf_options import CrfOptions
from medseg.inference.array_ops import Values
from medseg.inference.rolling import open_rows
from medseg.inference.sliding_window import Body, Passes, logit_slabs
from medseg.inference.trial_windows import trial_batches, trial_shape
from medseg.inference.tta import mean_of
from medseg.inference.window_batch import SMALLEST_BATCH
from medseg.inference.window_grid import Windows, stream_axis
from medseg.inference.window_slabs import Progress
from medseg.nets.crf import dense_crf

if TYPE_CHECKING:
    from medseg.inference.engine import NetworkEngine

__all__ = ["TorchPasses", "sharpened"]

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TorchPasses:
    """The networks of a model on their way over an image.

    Args:
        nets: one per fold, on `device`.
        device: where they are.
        engine: how they are run.
        regions: whether the channels are overlapping regions.
    """

    nets: tuple[nn.Module, ...]
    device: torch.device
    engine: NetworkEngine
    regions: bool

    def slabs(
        self,
        image: Image,
        windows: Windows,
        out_channels: int,
        passes: Passes,
        body: Body,
        progress: Progress | None,
    ) -> Iterator[tuple[Tensor, int, int]]:
        """`logit_slabs` of the mean of all networks; the arguments are those of arrays."""
        # All folds see a batch of windows before the next: their weights are in memory anyway, and one sum of logits
        # serves them all.
        net = mean_of(self._networks(image[(slice(None), *body.box)], windows, passes))
        on_cpu = None if self.device.type == "cpu" else self._on_cpu
        tensor = torch.from_numpy(image).to(self._place_for(image, windows, out_channels))
        passes = replace(passes, device=self.device, on_cpu=on_cpu)
        yield from logit_slabs(net, tensor, windows, out_channels, passes, body, progress)

    def _on_cpu(self) -> Callable[[Tensor], Tensor]:
        return mean_of([copy.deepcopy(net).cpu() for net in self.nets])

    def _networks(self, image: Image, windows: Windows, passes: Passes) -> Sequence[Callable[[Tensor], Tensor]]:
        """The networks by the model's engine, which is chosen by a few windows of the image."""
        patch = windows.patch_size
        count = math.prod(len(windows.along(axis, n)) for axis, n in enumerate(image.shape[1:]))
        # Two windows measure as well as a full batch, sooner.
        measured = min(SMALLEST_BATCH, passes.batch_size, count)
        trial = trial_shape(patch)
        # In passes of the size that is measured.
        mirrored = 2 ** len(passes.mirror_axes)
        shares = math.ceil(count / measured) * mirrored * len(self.nets) * (math.prod(patch) // math.prod(trial))
        return self.engine.networks(
            self.nets, lambda: trial_batches(torch.from_numpy(image), trial, measured), shares, regions=self.regions
        )

    def _place_for(self, image: Image, windows: Windows, out_channels: int) -> torch.device:
        """The network's device where image and open logits take less than half of its free memory, else the CPU."""
        if self.device.type != "cuda":
            return torch.device("cpu") if self.device.type == "cpu" else self.device
        free, _ = torch.cuda.mem_get_info(self.device)
        patch, spatial = windows.patch_size, image.shape[1:]
        axis = stream_axis(spatial, patch)
        rows = open_rows(spatial[axis], (*patch, 1)[axis])
        needed = image.nbytes + out_channels * image[0].nbytes * rows / spatial[axis]
        return self.device if needed < free / 2 else torch.device("cpu")


def sharpened(logits: Values, image: Image, spacing_mm: Sequence[float], crf: CrfOptions, regions: bool) -> Values:
    """Logits after a dense CRF, as an array where they are one, else as a tensor on their device."""
    given = torch.as_tensor(logits)
    found = dense_crf(given, torch.from_numpy(image).to(given.device), spacing_mm, crf, regions=regions)
    return found.numpy() if isinstance(logits, np.ndarray) else found
