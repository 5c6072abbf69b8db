"""The network of a configuration and plan: width, norm, strides for thick slices, weights of auxiliary heads."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from medseg.config import RunConfig, validate_model
from medseg.errors import ConfigError
from medseg.inference.bundle_info import NetInfo
from medseg.labels import LabelScheme
from medseg.nets import NETS
from medseg.nets.profile import build_on_meta
from medseg.preparation.net_needs import STAGED, axis_strides, default_width, needs_of
from medseg.preparation.plan import Plan

__all__ = ["auxiliary_weights", "describe_net", "meta_net_of_any_form", "net_info_for"]


def auxiliary_weights(net: nn.Module) -> tuple[float, ...] | None:
    """Weights of the auxiliary logits, beside 1 for the main ones: the net's attribute `auxiliary_weights`.

    None where it has none: deep supervision's 1/2, 1/4, ...
    """
    own = getattr(net, "auxiliary_weights", None)
    return None if own is None else tuple(float(w) for w in own)


def meta_net_of_any_form(config: RunConfig) -> nn.Module:
    """The configured net without memory for its weights, with one channel and two classes.

    Where only the data can tell 2D from 3D, in 3D if it exists in that form, else in 2D.

    Raises:
        ConfigError: for an unknown name or option.
    """
    if config.net.dims is not None:
        return _meta_net(config, config.net.dims)
    try:
        return _meta_net(config, 3)
    except ConfigError:
        return _meta_net(config, 2)


def _meta_net(config: RunConfig, dims: int) -> nn.Module:
    net = config.net
    width = default_width(net, dims, on_gpu=False)
    return build_on_meta(net.name, dims=dims, backbone=net.backbone, width=width, **_options(config))


def net_info_for(config: RunConfig, plan: Plan, scheme: LabelScheme, on_gpu: bool) -> NetInfo:
    """The description of the network for the bundle, from which it is also built for training.

    Raises:
        ConfigError: for options that do not fit the network.
    """
    net = config.net
    options = _options(config)
    if net.name in STAGED:
        options |= {"channels": plan.channels, "strides": plan.strides}
        if plan.kernels is not None:
            options.setdefault("kernels", plan.kernels)
    elif net.name in NETS and "axis_strides" in inspect.signature(NETS[net.name]).parameters:
        needs, spacing = needs_of(net), plan.net_spacing_mm
        if needs is not None and needs.per_axis and spacing is not None:
            strides = axis_strides(needs, spacing)
            if len(set(strides)) > 1:
                options["axis_strides"] = strides
    values = {
        "name": net.name,
        "dims": plan.dims,
        "in_channels": plan.in_channels,
        "out_channels": scheme.out_channels,
        "backbone": net.backbone,
        "width": default_width(net, plan.dims, on_gpu),
        "options": options,
    }
    return validate_model(NetInfo, values, "net")


def describe_net(info: NetInfo) -> str:
    """One line for the log."""
    said = [f"net: {info.name}", f"{info.dims}D"]
    said += [info.backbone] if info.backbone else []
    said += [f"width {info.width:g}"] if info.width != 1 else []
    said += [f"{key} {value}" for key, value in info.options.items()]
    return ", ".join(said)


def _options(config: RunConfig) -> dict[str, Any]:
    """Options of the net's builder beside sizes, backbone and width; only those that differ from its defaults."""
    net = config.net
    options = dict(net.options)
    if net.channels is not None and net.name not in STAGED:
        raise ConfigError(
            f"net.channels is for {', '.join(STAGED)}; for {net.name} give net.width, or options of its builder under "
            "net.options"
        )
    if net.norm not in (None, "auto"):
        options["norm"] = net.norm
    if net.residual:
        options["residual"] = True
    if net.deep_supervision:
        options["deep_supervision"] = True
    return options
