"""Means over many voxels in OpenVINO: added plane by plane, as one running sum in float32 loses digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["MANY_VOXELS", "means_by_planes"]

MANY_VOXELS = 2**16
"""From this many on. Of 64^3 voxels the running sum gets a standard deviation wrong by 4e-5, of 128^3 by 8e-4."""

# Batch and channel come before the image's axes.
FIRST_AXIS = 2


def means_by_planes(model: Any) -> None:
    """Let instance norms and global means add the voxels of each plane, then the planes; the model is changed.

    OpenVINO's CPU kernels hold the channels innermost and add all voxels of one, in order, to one float32 number. With
    two sums, one after the other, means and variances have the digits that torch's have.

    Args:
        model: an `openvino.Model` whose image sizes are fixed; smaller means, and those over other axes, are left.
    """
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("MVN", "ReduceMean"):
            continue
        values = node.input_value(0)
        shape = values.get_partial_shape()
        axes = _axes(node, shape.rank.get_length() if shape.rank.is_static else 0)
        sizes = [shape[axis].get_length() if shape[axis].is_static else 0 for axis in axes]
        if len(axes) < 2 or math.prod(sizes) < MANY_VOXELS:
            continue
        exact = _normalised(node, values, axes, sizes) if kind == "MVN" else _mean(values, axes, sizes)
        if kind == "ReduceMean" and not node.get_attributes()["keep_dims"]:
            exact = _operators().squeeze(exact, np.array(axes))
        node.output(0).replace(exact.output(0))
    model.validate_nodes_and_infer_types()


def _axes(node: Any, rank: int) -> list[int]:
    """Those of the image that are averaged; none where others are, too, or where they are computed."""
    given = node.input_value(1).get_node()
    if given.get_type_name() != "Constant":
        return []
    axes = sorted({int(axis) % rank for axis in np.atleast_1d(given.get_data())}) if rank else []
    return axes if axes and axes[0] >= FIRST_AXIS else []


def _mean(values: Any, axes: list[int], sizes: list[int]) -> Any:
    """Two reductions of one kind in a row would become one again: hence a sum, then a mean."""
    op = _operators()
    plane = axes[-2:] if len(axes) > 2 else axes[-1:]
    summed = op.reduce_sum(values, np.array(plane), True)
    meant = op.reduce_mean(summed, np.array(axes[: -len(plane)]), True)
    return op.multiply(meant, np.float32(1 / math.prod(sizes[-len(plane) :])))


def _normalised(node: Any, values: Any, axes: list[int], sizes: list[int]) -> Any:
    op, attributes = _operators(), node.get_attributes()
    centred = op.subtract(values, _mean(values, axes, sizes))
    if not attributes["normalize_variance"]:
        return centred
    variance = _mean(op.multiply(centred, centred), axes, sizes)
    epsilon = np.float32(attributes["eps"])
    if attributes["eps_mode"].lower() == "inside_sqrt":
        deviation = op.sqrt(op.add(variance, epsilon))
    else:
        deviation = op.add(op.sqrt(variance), epsilon)
    return op.multiply(centred, op.divide(np.float32(1), deviation))


def _operators() -> Any:
    from openvino import opset13

    return opset13
