"""A network in an ONNX file, run by ONNX Runtime on the CPU, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import CheckpointError, MissingPartError
from medseg.inference.exporting.onnx_file import check_onnx
from medseg.machine import compute_threads

__all__ = ["OnnxNetwork", "require_onnxruntime"]

# Of ONNX Runtime's log: errors are raised anyway.
ONLY_FATAL = 4


def require_onnxruntime() -> Any:
    """The module `onnxruntime`; what it would send home on Windows is turned off.

    Raises:
        MissingPartError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingPartError(
            "ONNX models need ONNX Runtime: in the folder of medseg, pip install -c constraints.txt '.[onnx]'"
        ) from None
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxNetwork:
    """A network of one input, float32 (B, C, *patch), and one output, float32 (B, K, *patch).

    Args:
        content: the ONNX file.
        where: its name for messages.
        threads: of one layer; None: `OMP_NUM_THREADS`, else all processors.
        providers: where it is computed, in order, see `medseg.inference.engines.providers`; None: on the CPU.

    Attributes:
        input_shape, output_shape: as the file states them, None for sizes that it leaves open.

    Raises:
        CheckpointError: a damaged file; one that needs other files or code; other inputs or outputs.
        MissingPartError: ONNX Runtime is not installed.

    Example:
        >>> from medseg.nets import build_net
        >>> from medseg.nets.onnx_graph import onnx_graph
        >>> net = build_net("unet", dims=2, in_channels=1, out_channels=2, channels=(4, 8)).eval()
        >>> OnnxNetwork(onnx_graph(net, 1, (15, 17)))(np.zeros((3, 1, 15, 17), np.float32)).shape
        (3, 2, 15, 17)
    """

    def __init__(
        self,
        content: bytes,
        where: str = "the ONNX model",
        threads: int | None = None,
        providers: Sequence[tuple[str, dict[str, Any]]] | None = None,
    ) -> None:
        runtime = require_onnxruntime()
        check_onnx(content, where)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or compute_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = ONLY_FATAL
        # Planned in one piece, the maps of each size of batch would take memory of their own.
        options.enable_mem_pattern = False
        # Threads that wait for the next layer by spinning take the processor from readers and writers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(
                content, options, providers=list(providers or [("CPUExecutionProvider", {})])
            )
        except Exception as error:  # Each of ONNX Runtime's errors has a class of its own, below Exception.
            raise CheckpointError(f"{where} cannot be run by ONNX Runtime: {_first_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        kinds = [each.type for each in (*inputs, *outputs)]
        if len(inputs) != 1 or len(outputs) != 1 or set(kinds) != {"tensor(float)"}:
            raise CheckpointError(
                f"{where} has {len(inputs)} inputs and {len(outputs)} outputs ({', '.join(kinds)[:200]}); expected one "
                "image and its logits, both float32"
            )
        self._input = inputs[0].name
        self.input_shape, self.output_shape = _sizes(inputs[0].shape), _sizes(outputs[0].shape)

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 logits (B, K, *patch) of float32 windows (B, C, *patch).

        Raises:
            CheckpointError: windows that the network does not take.
            MemoryError: too many of them for this machine.
        """
        try:
            logits: NDArray[np.float32] = self._session.run(None, {self._input: np.ascontiguousarray(batch)})[0]
        except Exception as error:  # As above.
            if "alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise CheckpointError(
                f"the ONNX model cannot be run on windows of shape {batch.shape}: {_first_line(error)}"
            ) from None
        return logits


def _sizes(shape: list[Any]) -> tuple[int | None, ...]:
    return tuple(n if isinstance(n, int) else None for n in shape)


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
