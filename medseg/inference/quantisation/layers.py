"""The layers of an ONNX graph that 8-bit integers make small and fast: those that multiply by weights."""

from __future__ import annotations

import math

from medseg.errors import CheckpointError, MissingPartError

__all__ = ["weighted_layers"]

MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def weighted_layers(graph: bytes) -> dict[str, int]:
    """Names of the nodes that multiply by stored weights, in the order of the graph, with the number of weights.

    Raises:
        CheckpointError: a graph without any.
        MissingPartError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingPartError(
            "INT8 needs onnx: in the folder of medseg, pip install -c constraints.txt '.[onnx]'"
        ) from None
    model = onnx.load_from_string(graph)
    sizes = {each.name: math.prod(each.dims) for each in model.graph.initializer}
    layers = {
        node.name: sum(sizes.get(name, 0) for name in node.input[1:2])
        for node in model.graph.node
        if node.op_type in MULTIPLYING and any(name in sizes for name in node.input[1:2])
    }
    if not layers:
        raise CheckpointError("the network has no layers with weights that INT8 could make smaller")
    return layers
