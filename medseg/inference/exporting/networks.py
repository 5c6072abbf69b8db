"""The networks of an exported bundle, opened by the runtime that each was exported for."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import ConfigError, MissingPartError
from medseg.inference.bundle_parts import Int8Info
from medseg.inference.exporting.files import open_networks
from medseg.inference.given_networks import GivenNetworks
from medseg.inference.network import Network
from medseg.machine import VNNI, processor

if TYPE_CHECKING:
    from medseg.inference.bundle import Bundle

__all__ = ["exported_networks", "refuse_overflowing"]

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
        MissingPartError: INT8 for processors with VNNI on one without.
        CheckpointError, MissingPartError: as `open_networks`.
    """
    runtime = RUNTIMES[bundle.info.network.format]
    if engine not in (None, "eager", runtime):
        raise ConfigError(f"{bundle.path} is an exported model, run by {runtime}; leave the engine {engine!r} out")
    refuse_overflowing(bundle.path, bundle.info.network.int8)
    networks = open_networks(bundle.networks, bundle.info, folds)
    return networks, GivenNetworks(runtime, {runtime: version(runtime)})


def refuse_overflowing(place: Path, int8: Int8Info | None) -> None:
    """Refuse weights of 8 bits where the processor adds their products in 16 bits, which silently changes masks.

    Args:
        place: the bundle, for the message.
        int8: what it says of its weights; None for float32.

    Raises:
        MissingPartError: full 8-bit weights on a processor without VNNI.
    """
    flags = processor()[1]
    if int8 is not None and not int8.seven_bits and flags and flags.isdisjoint(VNNI):
        raise MissingPartError(
            f"{place} holds 8-bit weights for processors with VNNI, which this one lacks: its sums would overflow and "
            "the masks be wrong. Export with --int8 on a machine like this one, or use the model in float32"
        )
