"""INT8 by NNCF: an OpenVINO model whose weights are 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import CheckpointError, MissingPartError
from medseg.inference.openvino_network import require_openvino

__all__ = ["openvino_int8"]


def openvino_int8(
    graph: bytes, windows: Sequence[NDArray[np.float32]], floating: Sequence[str] = (), reduce_range: bool = False
) -> tuple[bytes, bytes]:
    """The graph in INT8 as OpenVINO's XML and its weights; arguments and errors as of `onnx_int8`."""
    openvino = require_openvino()
    try:
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    except ImportError:
        raise MissingPartError(
            "INT8 by OpenVINO needs nncf: in the folder of medseg, pip install -c constraints.txt '.[openvino]'"
        ) from None
    # By nncf's own function, whatever else handles its messages would keep to this level, too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(graph, b"")
    # A node with a bias becomes several operations, whose names begin with its own.
    names = [each.get_friendly_name() for each in model.get_ordered_ops()]
    scope = [name for name in names if any(name == each or name.startswith(f"{each}/") for each in floating)]
    fix = OverflowFix.ENABLE if reduce_range else OverflowFix.DISABLE
    try:
        # Its bars of progress go to the standard output.
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as name:
            done = nncf.quantize(
                model,
                nncf.Dataset(list(windows)),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(windows),
                ignored_scope=nncf.IgnoredScope(names=scope) if scope else None,
                advanced_parameters=AdvancedQuantizationParameters(overflow_fix=fix),
            )
            file = Path(name) / "int8.xml"
            openvino.save_model(done, str(file), compress_to_fp16=False)
            return file.read_bytes(), file.with_suffix(".bin").read_bytes()
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the network cannot be written in INT8 by OpenVINO: {reason}") from None
