"""How a model is loaded and run, as the command line, Python and workers on other machines pass it on."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.errors import ConfigError

__all__ = ["LoadOptions"]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options of `load_model`; its fields are the arguments there.

    Args:
        allow_code: those permitted, and no others, whatever the environment says.

    Raises:
        ConfigError: for choices that contradict each other.
    """

    device: str = "auto"
    engine: str | None = None
    fast: bool = False
    allow_code: tuple[str, ...] = ()
    folds: tuple[int, ...] | None = None
    roi: tuple[str, ...] = ()
    weights: str | None = None
    compatible: bool = False
    ensemble: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.compatible and self.fast:
            raise ConfigError("--compatible repeats nnU-Net's numbers, which --fast changes; give one of the two")
        if self.compatible and self.engine not in (None, "eager"):
            raise ConfigError(
                f"--compatible runs the network as it is, which --network-engine {self.engine} changes; "
                "give one of the two, or the engine eager"
            )
