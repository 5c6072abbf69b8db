"""3D convolutions around what torch 2.13 does on a CPU. Weights and their names are `nn.Conv3d`'s."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["OneDnnConv3d", "WideConv3d"]


class OneDnnConv3d(nn.Conv3d):
    """A 3D convolution that stays with oneDNN.

    For one sample of `C * I * J <= 20480`, and for 1x1x1 on one thread, torch takes a loop of its own that needs 1.4
    to 9 times as long and loses the channels-last layout (`use_mkldnn` in ATen/native/Convolution.cpp). Where torch
    takes oneDNN itself, both are one call. Logits differ in the last digits: the order of the sums is another.
    """

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.padding, str) or self._left_to_torch(x):
            return super().forward(x)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )

    def _left_to_torch(self, x: Tensor) -> bool:
        """Wherever a graph is recorded, and where oneDNN's operator does not fit."""
        return (
            torch.compiler.is_compiling()
            or torch._C._get_tracing_state() is not None
            or not (torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
            # Subclasses stand for tensors elsewhere (fake, quantised, distributed).
            or type(x) is not Tensor
            or x.device.type != "cpu"
            or x.dtype != torch.float32
            or self.weight.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
            or x.dim() != 5
            or self.padding_mode != "zeros"
        )


class WideConv3d(nn.Conv3d):
    """A 3D convolution that pads its input itself.

    torch 2.13's backward pass of a padded 7x7x7 of stride 2 on 1 to 3 channels writes beyond its memory where the
    first axis has 5 voxels (oneDNN, CPU).
    """

    def forward(self, x: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        return F.conv3d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
