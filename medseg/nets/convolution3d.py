"""3D convolutions that avoid slow or faulty CPU paths of torch 2.13. Weights and their names are `nn.Conv3d`'s."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["OneDnnConv3d", "UpConv3d", "WideConv3d", "fits_onednn"]


class OneDnnConv3d(nn.Conv3d):
    """A 3D convolution that always uses oneDNN on a CPU.

    For one sample of `C * I * J <= 20480`, and for 1x1x1 on one thread, torch falls back to its own loop, which takes
    1.4 to 9 times as long and loses the channels-last layout (`use_mkldnn` in ATen/native/Convolution.cpp). Where torch
    uses oneDNN anyway, the call is the same. Logits differ in the last digits, as the order of summation differs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or not fits_onednn(x, self.weight):
            return super().forward(x)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


class UpConv3d(nn.ConvTranspose3d):
    """A transposed 3D convolution that keeps the channels-last layout.

    On a CPU torch loses it for one small sample, and all later layers would run in the slower layout.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        out = super().forward(x, output_size)
        if torch.compiler.is_compiling() or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return out
        return out.contiguous(memory_format=torch.channels_last_3d)


class WideConv3d(nn.Conv3d):
    """A 3D convolution that pads its input itself.

    torch 2.13's backward pass of a padded 7x7x7 of stride 2 on 1 to 3 channels writes beyond its memory where the
    first axis has 5 voxels (oneDNN, CPU).
    """

    def forward(self, x: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        return F.conv3d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def fits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's own operator can be called; never where a graph is recorded."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or not (torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        # Subclasses stand for tensors elsewhere (fake, quantised, distributed).
        or type(x) is not Tensor
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
        or x.dim() != 5
    )
