"""Batch normalisation over the samples of all ranks; on a GPU it is torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SyncedBatchNorm", "with_synced_batch_norm"]


class SyncedBatchNorm(_BatchNorm):
    """`nn.BatchNorm2d/3d` whose mean and variance, in training, are those of the batches of all ranks together.

    Source:
        Peng et al., MegDet, CVPR 2018, section 3.2.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised `(B, C, ...)`; all ranks must call it in the same order."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        axes = (0, *range(2, x.dim()))
        shape = (1, -1, *[1] * (x.dim() - 2))
        count = _sum(x.new_tensor(float(x.numel() // x.shape[1])))
        mean = _sum(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # The layer in the place of which it stands has been built for these dimensions.


class _Sum(torch.autograd.Function):
    """The sum over the ranks. Every rank's output depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def with_synced_batch_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """The net with every batch norm taken over all ranks; parameters, buffers and their names stay.

    Args:
        net: changed.
        device: where it trains; on a GPU, `nn.SyncBatchNorm` is used.
    """
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return synced
    for parent in list(net.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, SyncedBatchNorm):
                setattr(parent, name, _synced(norm))
    return net


def _synced(norm: _BatchNorm) -> SyncedBatchNorm:
    new = SyncedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    return new.train(norm.training)
