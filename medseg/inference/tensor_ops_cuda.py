"""What the sliding window does with tensors: image and sums on a device, or on the CPU beside a network on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from medseg.inference.array_ops import ArrayOps, Values

__all__ = ["TensorOps"]


class TensorOps(ArrayOps):
    """The operations on tensors.

    Args:
        device: holds image and sums.
        place: where networks take their windows.
    """

    def __init__(self, device: torch.device, place: torch.device) -> None:
        self.device = device
        self.place = place

    def on_cpu(self) -> ArrayOps:
        """The operations for the rest of an image whose windows do not fit on the device."""
        return TensorOps(self.device, torch.device("cpu"))

    def zeros(self, shape: Sequence[int]) -> Values:
        """Zeros, float32; on the CPU in memory as numpy asks for it."""
        if self.device.type == "cpu":
            return torch.from_numpy(super().zeros(shape))
        return torch.zeros(*shape, device=self.device)

    def empty(self, shape: Sequence[int], like: Values) -> Values:
        """Memory for numbers of the type of `like`."""
        return torch.empty(*shape, dtype=like.dtype, device=self.device)

    def moved(self, values: Values, source: int, target: int) -> Values:
        """A view whose axis `source` is axis `target`."""
        return values.movedim(source, target)

    def compact(self, values: Values) -> Values:
        """The same values in the order of their axes in memory."""
        return values.contiguous()

    def is_compact(self, values: Values) -> bool:
        """Whether values lie in the order of their axes in memory."""
        return bool(values.is_contiguous())

    def here(self, values: Values) -> Values:
        """Small or computed values where the sums are held."""
        return torch.as_tensor(values).to(self.device)

    def stacked(self, parts: Sequence[Values]) -> Values:
        """Parts of one shape along a new first axis."""
        return torch.stack(list(parts))

    def single(self, values: Values) -> Values:
        """In single precision."""
        return values.float()

    def flipped(self, values: Values, axes: Sequence[int]) -> Values:
        """A copy, flipped along some axes."""
        return torch.flip(values, tuple(axes))

    def flipped_back(self, values: Values, axes: Sequence[int]) -> Values:
        """As `flipped`."""
        return self.flipped(values, axes)

    def run(self, passes: Callable[[Values], Values], batch: Values) -> Values:
        """What a network makes of a batch of windows, where it runs."""
        with torch.inference_mode():
            return passes(batch.to(self.place))

    def add_product(self, target: Values, part: Values, weights: Values) -> None:
        """Add `part` (channels, *size) times `weights` (*size) to `target`."""
        target.addcmul_(part, weights)
