"""Networks of MONAI (Cardoso et al., arXiv 2211.02701) under this package's contract.

`monai_dynunet` (Isensee et al., nnU-Net, Nature Methods 2021), `monai_segresnet` (Myronenko, BrainLes 2018),
`monai_swinunetr` (Hatamizadeh et al., BrainLes 2021), `monai_attentionunet` (Oktay et al., MIDL 2018).

They require sizes divisible by their strides; here the last voxels of an image are repeated up to such a size and the
logits cropped to the image. monai is imported only when one of them is built.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, arange, nn

from medseg.errors import ConfigError
from medseg.nets.blocks import check_net, scaled

__all__ = ["MonaiNet", "monai_attentionunet", "monai_dynunet", "monai_segresnet", "monai_swinunetr"]


class MonaiNet(nn.Module):
    """A network of MONAI that takes any size.

    Args:
        net: gives logits at the size of its image; while training perhaps `(B, heads, C, ...)`, the main ones first.
        multiple: what the size along each axis must divide by.
    """

    def __init__(self, net: nn.Module, multiple: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.multiple = tuple(multiple)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`. While training with deep supervision a tuple: these, then the auxiliary
            logits, at the image's size as MONAI gives them.
        """
        size = x.shape[2:]
        for axis, (n, m) in enumerate(zip(size, self.multiple, strict=True), start=2):
            # Norms need more than one voxel in the lowest map: two along the first axis.
            wanted = max((n + m - 1) // m, 2 if axis == 2 else 1) * m
            x = x.index_select(axis, arange(wanted, device=x.device).clamp(max=n - 1))
        # x: (B, in_channels, I, ...), sizes rounded up to multiples
        out: Tensor = self.net(x)  # (B, out_channels, I, ...) or (B, heads, out_channels, I, ...)
        first = 3 if out.dim() > x.dim() else 2
        for axis, n in enumerate(size, start=first):
            out = out.narrow(axis, 0, n)
        return tuple(out.unbind(1)) if first == 3 else out  # (B, out_channels, I, ...), of the image's size


def monai_dynunet(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
    strides: Sequence[Sequence[int]] | None = None,
    norm: str = "instance",
    residual: bool = False,
    deep_supervision: bool = False,
    width: float = 1.0,
) -> MonaiNet:
    """MONAI's DynUNet, nnU-Net's plain U-Net.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        channels: features of each stage, highest resolution first, at least 3 stages.
        strides: per stage, one number per axis; the first is all 1 (default: 1, then 2 on every axis).
        norm: 'instance', 'batch' or 'group'.
        residual: residual blocks.
        deep_supervision: auxiliary heads on all decoder stages but the main one and the lowest resolutions.
        width: multiplies `channels`.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> monai_dynunet(2, 1, 2, channels=(8, 16, 32)).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """
    features = tuple(scaled(c, width) for c in channels)
    name = _norm("monai_dynunet", dims, norm, width, features)
    given = _strides("monai_dynunet", dims, features, strides)
    if len(features) < 3:
        raise ConfigError(f"channels has {len(features)} stages; monai_dynunet needs at least 3")
    from monai.networks.nets.dynunet import DynUNet

    heads = max(1, len(features) - 3)
    if deep_supervision and len(features) < 4:
        raise ConfigError(f"deep_supervision needs at least 4 stages; channels has {len(features)}")
    net = DynUNet(
        spatial_dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * len(features),
        strides=given,
        upsample_kernel_size=given[1:],
        filters=features,
        norm_name=name,
        res_block=residual,
        deep_supervision=deep_supervision,
        deep_supr_num=heads,
    )
    return MonaiNet(net, _product(given))


def monai_segresnet(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    channels: int = 16,
    blocks: Sequence[int] = (1, 2, 2, 4),
    norm: str = "group",
    width: float = 1.0,
) -> MonaiNet:
    """MONAI's SegResNet: a large residual encoder, a small decoder that is added to.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        channels: features of the first stage; each stage has twice those of the one before.
        blocks: residual blocks of each stage of the encoder.
        norm: 'group' (the paper), 'instance' or 'batch'.
        width: multiplies `channels`.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> monai_segresnet(3, 1, 2, width=0.25).eval()(torch.zeros(1, 1, 9, 10, 11)).shape
        torch.Size([1, 2, 9, 10, 11])
    """
    features = scaled(channels, width)
    name = _norm("monai_segresnet", dims, norm, width, (features,))
    if len(blocks) < 2 or min(blocks) < 1:
        raise ConfigError(f"blocks is {list(blocks)}; expected at least 2 positive numbers")
    from monai.networks.nets.segresnet import SegResNet

    net = SegResNet(
        spatial_dims=dims,
        init_filters=features,
        in_channels=in_channels,
        out_channels=out_channels,
        norm=name,
        blocks_down=tuple(blocks),
        blocks_up=(1,) * (len(blocks) - 1),
    )
    return MonaiNet(net, (2 ** (len(blocks) - 1),) * dims)


def monai_swinunetr(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    window: int = 7,
    norm: str = "instance",
    checkpoint: bool = False,
    width: float = 1.0,
) -> MonaiNet:
    """MONAI's SwinUNETR: a transformer of shifted windows as encoder, a convolutional decoder.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        window: voxels of a window of attention along each axis, on maps of 1/2 to 1/16 of the image. Maps are padded to
            a multiple of it: on volumes of 32 or 64 voxels 4 takes a fifth of the time of 7, MONAI's.
        norm: of the decoder, 'instance' (MONAI), 'batch' or 'group'.
        checkpoint: while training, compute each layer of the encoder twice instead of keeping its inner maps.
        width: multiplies the 24 features, to the nearest multiple of 12 (at least 12), which the heads share.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> monai_swinunetr(2, 1, 2, width=0.5).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """
    if window < 2:
        raise ConfigError(f"window is {window}; expected at least 2 voxels")
    features = max(12, 12 * round(2 * width))
    name = _norm("monai_swinunetr", dims, norm, width, (features,))
    from monai.networks.nets.swin_unetr import SwinUNETR

    net = SwinUNETR(
        in_channels=in_channels,
        out_channels=out_channels,
        feature_size=features,
        window_size=window,
        norm_name=name,
        use_checkpoint=checkpoint,
        spatial_dims=dims,
    )
    return MonaiNet(net, (32,) * dims)


def monai_attentionunet(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    channels: Sequence[int] = (64, 128, 256, 512, 1024),
    strides: Sequence[int] | None = None,
    width: float = 1.0,
) -> MonaiNet:
    """MONAI's AttentionUnet: a U-Net whose skips are gated; its norms are batch norms, without a choice.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        channels: features of each stage, highest resolution first.
        strides: of each stage after the first, one number for all axes (default: 2).
        width: multiplies `channels`.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> monai_attentionunet(2, 1, 2, width=0.125).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """
    check_net("monai_attentionunet", dims, "batch", width)
    features = tuple(scaled(c, width) for c in channels)
    given = tuple(strides) if strides is not None else (2,) * (len(features) - 1)
    if len(features) < 2 or len(given) != len(features) - 1 or min(given) < 1:
        raise ConfigError(
            f"strides is {list(given)}; expected one positive number for each stage of channels after the first, "
            f"of which there are {len(features) - 1}, and at least one"
        )
    from monai.networks.nets.attentionunet import AttentionUnet

    net = AttentionUnet(
        spatial_dims=dims, in_channels=in_channels, out_channels=out_channels, channels=features, strides=given
    )
    return MonaiNet(net, (math.prod(given),) * dims)


def _norm(name: str, dims: int, norm: str, width: float, features: Sequence[int]) -> tuple[str, dict[str, object]]:
    """MONAI's word for a norm; groups of 8 channels, or of a number that divides all `features`."""
    check_net(name, dims, norm, width)
    if norm == "group":
        return "GROUP", {"num_groups": math.gcd(8, *features)}
    if norm == "none":
        raise ConfigError(f"norm is 'none'; {name} has one of instance, batch, group")
    return norm.upper(), {"affine": True}


def _strides(
    name: str, dims: int, features: Sequence[int], strides: Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    given = strides if strides is not None else [(1,) * dims] + [(2,) * dims] * (len(features) - 1)
    found = [tuple(int(s) for s in stride) for stride in given]
    if len(found) != len(features) or any(len(s) != dims or min(s) < 1 for s in found):
        raise ConfigError(
            f"strides is {[list(s) for s in found]}; expected {len(features)} stages (as channels has) of {dims} "
            "positive numbers each"
        )
    if any(s != 1 for s in found[0]):
        raise ConfigError(f"strides begins with {list(found[0])}; the first stage of {name} has stride 1: all 1")
    return found


def _product(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))
