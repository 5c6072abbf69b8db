"""Plans, bundle descriptions and weights for tests of bundles and prediction."""

from __future__ import annotations

from typing import Any

import torch
from inference_nets import Threshold

from medseg.inference import BundleInfo, NetInfo, PredictionInfo, Provenance
from medseg.nets import build_net
from medseg.preparation.plan import ChannelPlan, Plan

UNET = {"channels": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))}


def make_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "dims": 3,
        "orientation": "RAS",
        "spacing_mm": (1.0, 1.0, 1.0),
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "in_channels": 1,
        "normalization": (ChannelPlan(kind="clip", low=-1e6, high=1e6, mean=0.0, std=1.0),),
        "channels": (4, 8),
        "strides": ((1, 1, 1), (2, 2, 2)),
    }
    return Plan(**{**values, **changes})


def make_info(plan: Plan, net: str = "unet", labels: dict[str, Any] | None = None, **changes: Any) -> BundleInfo:
    labels = labels or {"lung": 1, "tumour": 7}
    regions = any(not isinstance(v, int) for v in labels.values())
    values: dict[str, Any] = {
        "labels": labels,
        "plan": plan,
        "net": NetInfo(
            name=net,
            dims=plan.dims,
            in_channels=plan.in_channels,
            out_channels=len(labels) + (not regions),
            options={"channels": plan.channels, "strides": plan.strides} if net == "unet" else {},
        ),
        "prediction": PredictionInfo(overlap=0.5, mirror_axes=(0, 1)),
        "provenance": Provenance(medseg="0.1", torch="2", config_hash="ab" * 32, dataset={"cases": 3}, iterations=10),
    }
    return BundleInfo(**{**values, **changes})


def unet_weights(info: BundleInfo, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    net = info.net
    built = build_net(
        net.name, dims=net.dims, in_channels=net.in_channels, out_channels=net.out_channels, **net.options
    )
    return built.state_dict()


def threshold_weights(out_channels: int, bias: float) -> dict[str, torch.Tensor]:
    state = Threshold(out_channels).state_dict()
    state["slope"][0] = 0.0
    state["bias"][1:] = bias
    return state
