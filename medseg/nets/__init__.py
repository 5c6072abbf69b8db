"""Networks: tensors in, logits out, 2D and 3D under one contract.

A net takes `(B, in_channels, I, J[, K])` of any size and gives logits `(B, out_channels, I, J[, K])`; while training,
a net with auxiliary heads gives the tuple `(main, *auxiliary)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from medseg import net_catalogue
from medseg.errors import ConfigError
from medseg.lookup import check_option_names
from medseg.nets.backbones import BACKBONES, build_backbone
from medseg.nets.limits import check_options
from medseg.nets.pretrained import PretrainedReport, load_pretrained
from medseg.nets.unet import UNet
from medseg.plugins import is_plugin, resolve

__all__ = [
    "BACKBONES",
    "NETS",
    "PretrainedReport",
    "UNet",
    "build_backbone",
    "build_net",
    "call_builder",
    "load_pretrained",
]


class _Builders(Mapping[str, Callable[..., nn.Module]]):
    """The builders of the catalogue by the names of their networks, each imported on first use."""

    def __getitem__(self, name: str) -> Callable[..., nn.Module]:
        module, _, builder = net_catalogue.NETS[name].builder.partition(":")
        found: Callable[..., nn.Module] = getattr(import_module(module), builder)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(net_catalogue.NETS)

    def __len__(self) -> int:
        return len(net_catalogue.NETS)


NETS: Mapping[str, Callable[..., nn.Module]] = _Builders()
"""The builder of every network by name; see `medseg.net_catalogue` for what else is known of each."""


def build_net(
    name: str,
    *,
    dims: int,
    in_channels: int,
    out_channels: int,
    backbone: str | None = None,
    width: float = 1.0,
    **options: Any,
) -> nn.Module:
    """Build a network of the catalogue, or your own, named as `"package.module:builder"` and imported from there.

    Args:
        name: a key of `NETS`, or the place of a builder of your own. That builder is called with `dims`, `in_channels`,
            `out_channels`, the options, and `backbone` and `width` where they are not the default.
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: name of the encoder, a key of `BACKBONES`, for networks with a choice; None: their default.
        width: multiplies the number of features, above 0.
        **options: of the network itself, e.g. `channels`, `norm`; see its class.

    Returns:
        A network with newly initialised weights, in training mode. It maps float images `(B, in_channels, I, J[, K])`
        of any size to logits `(B, out_channels, I, J[, K])`, before softmax or sigmoid; in training mode a network with
        auxiliary heads returns the tuple `(main, *auxiliary)`.

    Raises:
        ConfigError: for an unknown name or option, options beyond the bounds of `medseg.nets.limits`, or a builder
            that does not return an `nn.Module`.

    Source:
        The paper of each network is named in its module.

    Example:
        >>> build_net("unet", dims=2, in_channels=1, out_channels=2, channels=(8, 16))(torch.zeros(1, 1, 9, 9)).shape
        torch.Size([1, 2, 9, 9])
    """
    if width <= 0:
        raise ConfigError(f"net.width is {width}; expected a positive number")
    fixed: dict[str, Any] = {"dims": dims, "in_channels": in_channels, "out_channels": out_channels}
    if backbone is not None:
        options["backbone"] = backbone
    if width != 1.0:
        options["width"] = width
    if is_plugin(name):
        return call_builder(resolve(name, "net"), name, {**fixed, **options})
    net_catalogue.entry_of(name)
    builder = NETS[name]
    takes = [p for p in inspect.signature(builder).parameters if p not in fixed]
    check_option_names(name, [option for option in options if option != "backbone"], takes)
    check_options(name, {**fixed, **options})
    net_catalogue.entry_of(name, backbone)
    return builder(**fixed, **options)


def call_builder(builder: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that a builder from outside medseg returns.

    Args:
        builder: the callable named by `name`, see `medseg.plugins`.
        name: of the builder, for messages.
        arguments: keyword arguments of the call.

    Raises:
        ConfigError: if the builder does not accept these arguments, or does not return an `nn.Module`.

    Example:
        >>> call_builder(nn.Conv2d, "torch.nn:Conv2d", {"in_channels": 1, "out_channels": 2, "kernel_size": 1})
        Conv2d(1, 2, kernel_size=(1, 1), stride=(1, 1))
    """
    try:
        inspect.signature(builder).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be called with {', '.join(arguments)}: {error}") from None
    net = builder(**arguments)
    if not isinstance(net, nn.Module):
        raise ConfigError(f"{name} gave a {type(net).__name__}; expected a torch.nn.Module")
    return net
