"""The engine of networks that are not torch's: each runs itself, so there is nothing to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GivenNetworks"]


@dataclass(frozen=True, slots=True)
class GivenNetworks:
    """Stands where a `NetworkEngine` chooses how a network of torch is run.

    Args:
        name: what runs the networks, as the ledger records it, e.g. 'onnxruntime'.
        versions: of the programs that do, by name.
        fast: whether they are less precise than the trained network, as in bfloat16.
    """

    name: str
    versions: Mapping[str, str] = field(default_factory=dict)
    fast: bool = False

    def for_images(self, images: int) -> GivenNetworks:
        """Itself: no number of images makes another choice worth while."""
        return self

    def keep(self, recorded: str) -> None:
        """The engine of an earlier run changes nothing."""
