"""VGG-16, 2D and 3D (Simonyan and Zisserman, ICLR 2015): thirteen 3x3 convolutions and five max-pools.

Keys are torchvision's `features.N`; norms, where asked for, lie beside them, so that the same weights load with and
without. B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.nets.backbones.strides import Backbone, five_steps
from medseg.nets.blocks import check_net, conv, initialize, max_pool, norm_layer, run_block, scaled

__all__ = ["VGG16"]

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(Backbone):
    """Five maps, fine to coarse: after each pool, at strides 2, 4, 8, 16, 32.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        width: multiplies the features.
        norm: 'instance', 'batch', 'group', or 'none' as in the paper.
        output_stride: 8, 16 or 32; pools beyond it keep the size, and convolutions after them are dilated.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (32, 32, 8).
        pool: 2, with sizes rounded up (FCN), or 3 (DeepLab v1, whose last two pools keep the size).
        margin: padding of the first convolution (FCN: 100, so that the 7x7 of fc6 fits into any image).
        checkpoint: while training, compute each stage twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> VGG16(dims=2, in_channels=1, width=0.125)(torch.zeros(1, 1, 33, 40))[-1].shape
        torch.Size([1, 64, 2, 2])
    """

    def __init__(
        self,
        *,
        dims: int,
        in_channels: int,
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 32,
        axis_strides: Sequence[int] | None = None,
        pool: int = 2,
        margin: int = 1,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("VGG-16", dims, norm, width)
        if pool not in (2, 3):
            raise ConfigError(f"pool is {pool}; choose 2 or 3")
        steps = five_steps(dims, output_stride, axis_strides)
        self.checkpoint = checkpoint
        self.strides = steps.total
        self.dilation = steps.dilations[
            -1
        ]  # what a convolution on the coarsest map needs to see as far as at stride 32
        self.out_channels = tuple(scaled(stage[-1], width) for stage in STAGES)
        self.features = nn.Sequential()
        self.norms = nn.ModuleDict()
        channels, dilation = in_channels, 1
        for stage, stride, after in zip(STAGES, steps.strides, steps.dilations, strict=True):
            for planes in stage:
                name, padding = str(len(self.features)), margin if not self.features else None
                features = scaled(planes, width)
                self.features.append(conv(dims, channels, features, 3, dilation=dilation, padding=padding))
                self.features.append(nn.ReLU(inplace=True))
                if norm != "none":
                    self.norms[name] = norm_layer(norm, dims, features)
                channels = features
            # Where an axis is never halved, slices stay apart.
            kernel = tuple(1 if total == 1 else pool for total in self.strides[-1])
            self.features.append(max_pool(dims, kernel, stride=stride, padding=pool // 3, ceil_mode=pool == 2))
            dilation = after
        initialize(self, "relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels[n], I / strides[n][0], ...)` for each n, sizes rounded up.
        """
        maps: list[Tensor] = []
        layers = list(self.features.named_children())
        for stage in STAGES:
            count = 2 * len(stage) + 1  # convolution and ReLU each, then the pool
            x = run_block(self, x, save_memory=self.checkpoint, part=partial(self._run, layers[:count]))
            layers = layers[count:]
            maps.append(x)  # (B, out_channels[n], I/strides[n], ...) after stage n
        return maps

    def _run(self, layers: Sequence[tuple[str, nn.Module]], x: Tensor) -> Tensor:
        for name, layer in layers:
            x = layer(x)
            if name in self.norms:
                x = self.norms[name](x)
        return x
