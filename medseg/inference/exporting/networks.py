"""The networks of an exported bundle, opened by the runtime that each was exported for."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import version
from typing import TYPE_CHECKING

from medseg.errors import ConfigError
from medseg.inference.exporting.files import open_networks
from medseg.inference.given_networks import GivenNetworks
from medseg.inference.network import Network

if TYPE_CHECKING:
    from medseg.inference.bundle import Bundle

__all__ = ["exported_networks"]

# What runs each format: as an engine and as a package.
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


def exported_networks(
    bundle: Bundle, engine: str | None, folds: Container[int] | None
) -> tuple[tuple[Network, ...], GivenNetworks]:
    """The networks and what runs them.

    Args:
        bundle: as it was read.
        engine: as the user named it; None for a free choice.
        folds: those wanted; None: all.

    Raises:
        ConfigError: an engine that only networks of torch have.
        CheckpointError, MissingPartError: as `open_networks`.
    """
    runtime = RUNTIMES[bundle.info.network.format]
    if engine not in (None, "eager", runtime):
        raise ConfigError(f"{bundle.path} is an exported model, run by {runtime}; leave the engine {engine!r} out")
    networks = open_networks(bundle.networks, bundle.info, folds)
    return networks, GivenNetworks(runtime, {runtime: version(runtime)})
