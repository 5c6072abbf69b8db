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
    """The network. `name`: see medseg nets. `dims`: 2 or 3, else as the data. `backbone`: for nets with a choice.

    `residual`, `deep_supervision`: for U-Nets. `options` are passed to the builder of the net as they are.

    `norm`: the net's own default where it is not given (instance, but for monai's). `width` likewise: 1, and in 3D a
    quarter for FCN-32s to 8s, and on a CPU for every net with a backbone. `channels` is for U-Nets.
    """

    name: str = "unet"
    dims: Literal[2, 3] | None = None
    backbone: str | None = None
    width: Positive | None = None
    channels: tuple[Count, ...] | None = None
    norm: Literal["instance", "batch", "group", "none"] | None = None
    residual: bool = False
    deep_supervision: bool = False
    options: NetOptions = Field(default_factory=dict)
