"""Names of channels that say how nnU-Net normalises them."""

from __future__ import annotations

from typing import Literal

__all__ = ["kind_of_nnunet_name"]

_KINDS: dict[str, Literal["none", "zscore", "unit", "rgb"]] = {
    "nonorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "unit",
    "rgb_to_0_1": "rgb",
}


def kind_of_nnunet_name(name: str) -> Literal["none", "zscore", "unit", "rgb"] | None:
    """The kind of normalisation (`ChannelPlan.kind`) that a channel's name asks for; None for the name of an image.

    Upper and lower case count alike. 'CT' is the name of an image; where it decides, the plan clips.

    Source: nnU-Net v2, `map_channel_name_to_normalization.py`.

    Example:
        >>> [kind_of_nnunet_name(name) for name in ("noNorm", "rescale_to_0_1", "rgb_to_0_1", "MRI")]
        ['none', 'unit', 'rgb', None]
    """
    return _KINDS.get(name.casefold())
