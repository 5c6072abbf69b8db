"""The engines of the members of a model, where a single model has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medseg.inference.given_networks import GivenNetworks

if TYPE_CHECKING:
    from medseg.inference.engine import NetworkEngine

__all__ = ["MemberEngines"]


@dataclass(frozen=True, slots=True)
class MemberEngines:
    """Stands where a model has a `NetworkEngine`.

    Args:
        engines: of each member, which may itself be made of others.
    """

    engines: Sequence[NetworkEngine | GivenNetworks | MemberEngines]

    @property
    def _leaves(self) -> list[NetworkEngine | GivenNetworks]:
        inner = (each._leaves if isinstance(each, MemberEngines) else [each] for each in self.engines)
        return [leaf for leaves in inner for leaf in leaves]

    @property
    def name(self) -> str | None:
        """What runs the members, once all of them have chosen: one name, or one of each, joined by commas."""
        names = [engine.name for engine in self._leaves]
        chosen = [name for name in names if name is not None]
        if len(chosen) < len(names):
            return None
        return chosen[0] if len(set(chosen)) == 1 else ",".join(chosen)

    @property
    def fast(self) -> bool:
        """Whether a member may be run less precisely than it was trained."""
        return any(engine.fast for engine in self._leaves)

    def for_images(self, images: int) -> MemberEngines:
        """The same engines for a run over `images` images."""
        return MemberEngines([engine.for_images(images) for engine in self.engines])

    def keep(self, recorded: str) -> None:
        """Take the engines of an earlier run, as `name` recorded them."""
        leaves, names = self._leaves, recorded.split(",")
        names = names * len(leaves) if len(names) == 1 else names
        if len(names) == len(leaves):
            for engine, name in zip(leaves, names, strict=True):
                engine.keep(name)
