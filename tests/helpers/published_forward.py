"""What torchvision's segmenters compute, written down once more from a state dict: no module, one function a model.

`test_fine_tuning.py` compares it with torchvision's own code where that is installed, and with our networks always.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]
# Of MobileNet v3 large: blocks that halve the map, the first with h-swish, and the first that is dilated instead.
HALVING, FIRST_H_SWISH, FIRST_DILATED = (2, 4, 7), 7, 13


def published_logits(name: str, state: State, x: Tensor) -> Tensor:
    """Logits `(B, C, I, J)` of the main head, in eval mode, of `fcn_*` or `deeplabv3_*` as published."""
    features = _mobilenet(state, x) if "mobilenet" in name else _resnet(state, x)
    head = _fcn if name.startswith("fcn") else _deeplab
    return F.interpolate(head(state, features), size=x.shape[2:], mode="bilinear", align_corners=False)


def _conv(state: State, key: str, x: Tensor, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> Tensor:
    kernel = state[f"{key}.weight"]
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(x, kernel, state.get(f"{key}.bias"), stride, padding, dilation, groups)


def _norm(state: State, key: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    mean, var, weight, bias = (state[f"{key}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


def _resnet(state: State, x: Tensor) -> Tensor:
    """Layers 3 and 4 dilated in place of their strides; a stage's first block keeps the dilation before it."""
    x = F.relu(_norm(state, "backbone.bn1", _conv(state, "backbone.conv1", x, stride=2)))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, (first, later) in enumerate(((1, 1), (1, 1), (1, 2), (2, 4)), start=1):
        block = 0
        while f"backbone.layer{stage}.{block}.conv1.weight" in state:
            key = f"backbone.layer{stage}.{block}"
            stride = 2 if (stage, block) == (2, 0) else 1
            out = F.relu(_norm(state, f"{key}.bn1", _conv(state, f"{key}.conv1", x)))
            out = _conv(state, f"{key}.conv2", out, stride=stride, dilation=later if block else first)
            out = F.relu(_norm(state, f"{key}.bn2", out))
            out = _norm(state, f"{key}.bn3", _conv(state, f"{key}.conv3", out))
            if f"{key}.downsample.0.weight" in state:
                x = _norm(state, f"{key}.downsample.1", _conv(state, f"{key}.downsample.0", x, stride=stride))
            x = F.relu(out + x)
            block += 1
    return x


def _mobilenet(state: State, x: Tensor) -> Tensor:
    """At stride 16: the last halving is a dilation of 2."""
    x = _unit(state, "backbone.0", x, F.hardswish, stride=2)
    for number in range(1, 16):
        act = F.hardswish if number >= FIRST_H_SWISH else F.relu
        key, out, step = f"backbone.{number}.block", x, 0
        if f"{key}.2.0.weight" in state or f"{key}.2.fc1.weight" in state:
            out, step = _unit(state, f"{key}.0", out, act), 1
        stride, dilation = 1 + (number in HALVING), 1 + (number >= FIRST_DILATED)
        out = _unit(state, f"{key}.{step}", out, act, stride=stride, dilation=dilation, groups=out.shape[1])
        if f"{key}.{step + 1}.fc1.weight" in state:
            step += 1
            gate = F.relu(_conv(state, f"{key}.{step}.fc1", out.mean((2, 3), keepdim=True)))
            out = out * F.hardsigmoid(_conv(state, f"{key}.{step}.fc2", gate))
        out = _unit(state, f"{key}.{step + 1}", out, None)
        x = out + x if out.shape == x.shape else out
    return _unit(state, "backbone.16", x, F.hardswish)


def _unit(state: State, key: str, x: Tensor, act, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> Tensor:
    x = _conv(state, f"{key}.0", x, stride=stride, dilation=dilation, groups=groups)
    x = _norm(state, f"{key}.1", x, eps=1e-3)
    return x if act is None else act(x)


def _fcn(state: State, x: Tensor) -> Tensor:
    x = F.relu(_norm(state, "classifier.1", _conv(state, "classifier.0", x)))
    return _conv(state, "classifier.4", x)


def _deeplab(state: State, x: Tensor) -> Tensor:
    key = "classifier.0"
    branches = [
        F.relu(_norm(state, f"{key}.convs.{n}.1", _conv(state, f"{key}.convs.{n}.0", x, dilation=rate)))
        for n, rate in enumerate((1, 12, 24, 36))
    ]
    pooled = _conv(state, f"{key}.convs.4.1", x.mean((2, 3), keepdim=True))
    branches.append(F.relu(_norm(state, f"{key}.convs.4.2", pooled)).expand(-1, -1, *x.shape[2:]))
    x = F.relu(_norm(state, f"{key}.project.1", _conv(state, f"{key}.project.0", torch.cat(branches, 1))))
    x = F.relu(_norm(state, "classifier.2", _conv(state, "classifier.1", x)))
    return _conv(state, "classifier.4", x)
