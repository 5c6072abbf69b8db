"""`net`: which network is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from medseg.config.part import Count, Part, Positive

__all__ = ["NetConfig", "NetOptions"]


def _own_options(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if len(key) > 64 or not key.isprintable():
            raise ValueError(f"{key[:64]!r} is not the name of an option")
        if key in ("name", "dims", "in_channels", "out_channels", "backbone", "width"):
            raise ValueError(f"{key!r} is a key of its own beside the options, not one of them")
    return value


NetOptions = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_own_options)]
"""What the builder of a network takes beside name, sizes, backbone and width."""


class NetConfig(Part):
    """The network.

    `name` is one of those that medseg nets lists, or your own as 'package.module:builder'. `dims` is 2 or 3;
    without it the network has the dimensions of the data. `backbone` is the encoder of networks that have a choice;
    without it they take their own default. `width` multiplies the number of features of every layer; without it, it
    is 1, but a quarter in 3D for fcn32s to fcn8s, and on a CPU for every network with a backbone. `channels` gives
    the features of each stage of a U-Net, which are planned otherwise. `norm` is the kind of normalisation layers:
    auto is batch where the weights of `training.init` hold running statistics of batches, else the network's own,
    which is instance for medseg's networks; null is the network's own. `residual` gives a U-Net residual blocks
    in its encoder. `deep_supervision` gives a U-Net auxiliary outputs at coarser levels, which count in the loss.
    `options` are passed to the network's builder as they are.
    """

    name: str = "unet"
    dims: Literal[2, 3] | None = None
    backbone: str | None = None
    width: Positive | None = None
    channels: tuple[Count, ...] | None = None
    norm: Literal["auto", "instance", "batch", "group", "none"] | None = "auto"
    residual: bool = False
    deep_supervision: bool = False
    options: NetOptions = Field(default_factory=dict)
