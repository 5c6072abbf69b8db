"""INT8 by ONNX Runtime: an ONNX graph whose tensors pass through QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import CheckpointError, MissingPartError
from medseg.inference.onnx_network import require_onnxruntime

__all__ = ["onnx_int8"]

# What surrounds convolutions without changing the scale much; norms and softmax stay float.
QUANTISED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul"),
    *("Add", "Relu", "LeakyRelu", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"),
)


def onnx_int8(
    graph: bytes, windows: Sequence[NDArray[np.float32]], floating: Sequence[str] = (), reduce_range: bool = False
) -> bytes:
    """The graph in INT8: activations 0 to 255, weights -127 to 127 with a scale for each output channel.

    Args:
        graph: an ONNX file, float32.
        windows: (1, C, *patch) each; the ranges of the activations are measured on them.
        floating: names of nodes that stay float.
        reduce_range: weights from -64 to 64, for CPUs whose 8-bit sums overflow 16 bits.

    Raises:
        CheckpointError: a graph that cannot be quantised.
        MissingPartError: ONNX Runtime or onnx is not installed.
    """
    require_onnxruntime()
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError:
        raise MissingPartError(
            "INT8 needs onnx: in the folder of medseg, pip install -c constraints.txt '.[onnx]'"
        ) from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self._left: Iterator[NDArray[np.float32]] = iter(windows)
            self._name = name

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            window = next(self._left, None)
            return None if window is None else {self._name: window}

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    # It recommends an optimisation that ONNX Runtime makes anyway, and gives the root logger a handler for that.
    root = logging.getLogger()
    handlers = root.handlers[:]
    root.addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory() as name:
            done = Path(name) / "int8.onnx"
            quantize_static(
                model,
                str(done),
                Reader(model.graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(floating),
            )
            return done.read_bytes()
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the network cannot be written in INT8 by ONNX Runtime: {reason}") from None
    finally:
        root.removeFilter(_no_advice)
        root.handlers[:] = handlers


def _no_advice(record: logging.LogRecord) -> bool:
    return record.name != "root" or record.levelno >= logging.ERROR
