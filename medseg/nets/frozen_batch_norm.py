"""Batch norm whose running statistics stay as they are, also while the network trains.

Statistics of a few samples are noise; a network that starts from public weights brings better ones.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["FrozenBatchNorm", "freeze_batch_norm"]


class FrozenBatchNorm(nn.Module):
    """What `nn.BatchNorm2d/3d` computes in eval mode, in training as well; scale and shift can be trained.

    Args:
        norm: whose weights and statistics are taken over, under the same names.

    Example:
        >>> norm = nn.BatchNorm2d(4)
        >>> frozen, x = FrozenBatchNorm(norm).train(), torch.randn(2, 4, 8, 8)
        >>> torch.equal(frozen(x), norm.eval()(x)), norm.state_dict().keys() == frozen.state_dict().keys()
        (True, True)
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `(B, C, ...)`."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    def extra_repr(self) -> str:
        """What `print(net)` shows of it."""
        return f"{len(self.running_mean)}, eps={self.eps}"


def freeze_batch_norm(net: nn.Module, name: str) -> None:
    """Replace the batch norm of that name, e.g. `backbone.bn1`, within its network."""
    norm = net.get_submodule(name)
    if isinstance(norm, _BatchNorm):
        above, _, last = name.rpartition(".")
        net.get_submodule(above).register_module(last, FrozenBatchNorm(norm))
