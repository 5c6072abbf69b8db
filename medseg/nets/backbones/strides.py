"""Where a backbone halves its maps and where it dilates instead: five steps, each axis for itself.

A classification network halves the image five times (stride 32). For segmentation the last steps can be left out and
the convolutions after them dilated, which keeps weights and field of view (Chen et al., DeepLab, ICLR 2015, section
3.1). Along thick slices the first steps are left out, without dilation, until voxels are about as long as wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from medseg.errors import ConfigError
from medseg.lookup import check_choice

__all__ = ["OUTPUT_STRIDES", "Backbone", "Steps", "five_steps"]

OUTPUT_STRIDES = (8, 16, 32)


class Backbone(nn.Module):
    """What every backbone has: `forward(x) -> list[Tensor]`, maps from fine to coarse, and these attributes.

    Attributes:
        out_channels: channels of each map.
        strides: from the image to each map, one number per axis.
        auxiliary_map: index of the map that an auxiliary head takes.
    """

    out_channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    auxiliary_map: int = 3


@dataclass(frozen=True, slots=True)
class Steps:
    """The five steps of a backbone.

    Args:
        strides: of each step, one number per axis.
        dilations: of the convolutions after each step.
    """

    strides: tuple[tuple[int, ...], ...]
    dilations: tuple[int, ...]

    @property
    def total(self) -> tuple[tuple[int, ...], ...]:
        """Stride from the image to the map after each step, one number per axis."""
        found = [self.strides[0]]
        for stride in self.strides[1:]:
            found.append(tuple(a * b for a, b in zip(found[-1], stride, strict=True)))
        return tuple(found)


def five_steps(dims: int, output_stride: int = 32, axis_strides: Sequence[int] | None = None) -> Steps:
    """Strides and dilations of the five steps.

    Args:
        dims: 2 or 3.
        output_stride: stride of the coarsest map, 8, 16 or 32; steps beyond it dilate by 2 each.
        axis_strides: the stride of the coarsest map along each axis, where it is less than `output_stride` along some:
            powers of two. That axis skips the first steps.

    Raises:
        ConfigError: for strides that five halvings cannot give.

    Example:
        >>> five_steps(3, 16, (16, 16, 4)).strides
        ((2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (1, 1, 1))
    """
    check_choice("output_stride", output_stride, OUTPUT_STRIDES)
    wanted = (output_stride,) * dims if axis_strides is None else tuple(axis_strides)
    if len(wanted) != dims or any(w not in (1, 2, 4, 8, 16, 32) or w > output_stride for w in wanted):
        raise ConfigError(
            f"axis_strides is {list(wanted)}; expected {dims} powers of two, none above output_stride {output_stride}"
        )
    halvings = output_stride.bit_length() - 1
    first = [halvings - (w.bit_length() - 1) for w in wanted]  # the step at which each axis begins
    strides = tuple(tuple(2 if begin <= step < halvings else 1 for begin in first) for step in range(5))
    return Steps(strides, tuple(2 ** max(0, step + 1 - halvings) for step in range(5)))
