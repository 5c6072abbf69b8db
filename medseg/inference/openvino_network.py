"""A network run by OpenVINO on the CPU, without torch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import CheckpointError, MissingPartError
from medseg.inference.exporting.onnx_file import check_onnx
from medseg.inference.openvino_means import means_by_planes
from medseg.machine import compute_threads

__all__ = ["OpenvinoNetwork", "require_openvino"]

TELEMETRY = "openvino_telemetry"
# They need not end, and no network of medseg has them.
LOOPS = {"Loop", "TensorIterator", "If"}


def require_openvino() -> Any:
    """The module `openvino`, which then sends nothing: it reports its own import, unless its reporter cannot be found.

    Raises:
        MissingPartError: OpenVINO is not installed.
    """
    # None makes Python say that there is no such module; OpenVINO and NNCF then go on without it.
    if TELEMETRY not in sys.modules:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError:
        raise MissingPartError(
            "OpenVINO models need OpenVINO: in the folder of medseg, pip install -c constraints.txt '.[openvino]'"
        ) from None
    return openvino


class OpenvinoNetwork:
    """A network of one input, float32 (B, C, *patch), and one output, float32 (B, K, *patch).

    Args:
        content: an ONNX file, or the XML of OpenVINO's own format.
        weights: the `.bin` that belongs to the XML; None for ONNX.
        where: its name for messages.
        precision: 'f32', or 'bf16' where the CPU multiplies bfloat16: OpenVINO would take it there by itself.
        threads: of one layer; None: `OMP_NUM_THREADS`, else all processors.

    Attributes:
        input_shape, output_shape: as the model states them, None for sizes that it leaves open.

    Raises:
        CheckpointError: a damaged file; one that needs other files or code; other inputs or outputs.
        MissingPartError: OpenVINO is not installed.
    """

    def __init__(
        self,
        content: bytes,
        weights: bytes | None = None,
        where: str = "the OpenVINO model",
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        openvino = require_openvino()
        if weights is None:
            check_onnx(content, where)
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or compute_threads(),
            "NUM_STREAMS": 1,
            # Bound to processors, two programs at once would share one and leave others idle.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            model = core.read_model(content, b"" if weights is None else weights)
            if LOOPS.intersection(operator.get_type_name() for operator in model.get_ops()):
                raise CheckpointError(f"{where} contains loops or branches; expected one plain network")
            if precision == "f32":
                means_by_planes(model)
            self._model = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise CheckpointError(f"{where} cannot be run by OpenVINO: {_last_line(error)}") from None
        inputs, outputs = self._model.inputs, self._model.outputs
        kinds = [each.element_type.get_type_name() for each in (*inputs, *outputs)]
        if len(inputs) != 1 or len(outputs) != 1 or set(kinds) != {"f32"}:
            raise CheckpointError(
                f"{where} has {len(inputs)} inputs and {len(outputs)} outputs ({', '.join(kinds)[:200]}); expected one "
                "image and its logits, both float32"
            )
        self.input_shape, self.output_shape = _sizes(inputs[0]), _sizes(outputs[0])
        self._request = self._model.create_infer_request()

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 logits (B, K, *patch) of float32 windows (B, C, *patch).

        Raises:
            CheckpointError: windows that the network does not take.
            MemoryError: too many of them for this machine.
        """
        try:
            logits: NDArray[np.float32] = self._request.infer([np.ascontiguousarray(batch)], share_inputs=True)[0]
        except RuntimeError as error:
            if "alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise CheckpointError(
                f"the OpenVINO model cannot be run on windows of shape {batch.shape}: {_last_line(error)}"
            ) from None
        return logits


def _sizes(port: Any) -> tuple[int | None, ...]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(int(n.get_length()) if n.is_static else None for n in shape)


def _last_line(error: Exception) -> str:
    """OpenVINO begins with places in its source and ends with the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:300]
