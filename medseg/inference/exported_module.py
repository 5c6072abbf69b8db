"""The bridge from a `Network`, which knows numpy alone, to what prediction with torch calls."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.inference.bundle import Bundle
from medseg.inference.device import resolve_device
from medseg.inference.exported_files import open_networks
from medseg.inference.network import Network

__all__ = ["ExportedModule", "exported_modules"]


class ExportedModule(nn.Module):
    """A network of another runtime as a module on the CPU, in eval mode.

    Args:
        network: float32 arrays (B, C, *patch) -> (B, K, *patch).

    Example:
        >>> ExportedModule(lambda batch: batch + 1)(torch.zeros(1, 1, 2, 2)).unique().tolist()
        [1.0]
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, *patch) of windows (B, C, *patch)."""
        return torch.from_numpy(self.network(x.detach().contiguous().numpy()))


def exported_modules(
    bundle: Bundle, device: str, engine: str | None, folds: Container[int] | None
) -> tuple[ExportedModule, ...]:
    """The networks of an exported bundle, each run on the CPU by the runtime that it was exported for.

    Args:
        bundle: as it was read.
        device: as the user named it.
        engine: as the user named it; None for a free choice.
        folds: those wanted; None: all.

    Raises:
        ConfigError: a device or an engine that only networks of torch have.
        CheckpointError, MissingPartError: as `open_network`.
    """
    if device != "auto" and resolve_device(device).type != "cpu":
        raise ConfigError(f"{bundle.path} is an exported model, which runs on the CPU; choose the device cpu or auto")
    if engine not in (None, "eager"):
        raise ConfigError(
            f"{bundle.path} is an exported model, run by its own runtime; leave the engine {engine!r} out"
        )
    return tuple(ExportedModule(network).eval() for network in open_networks(bundle.networks, bundle.info, folds))
