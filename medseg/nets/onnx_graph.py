"""A network as an ONNX file: any batch, one size of patch, float32."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from medseg.errors import CheckpointError, MissingPartError

__all__ = ["INPUT", "LARGEST_FILE", "OPSET", "OUTPUT", "onnx_graph"]

INPUT, OUTPUT = "image", "logits"
# That of torch's exporter, so that nothing is converted afterwards.
OPSET = 18
# What protobuf can hold in one message.
LARGEST_FILE = 2**31 - 2**20
# The exporter takes a size of one to be always one.
EXAMPLES = 2


def onnx_graph(net: nn.Module, in_channels: int, patch: Sequence[int]) -> bytes:
    """The network as an ONNX model of opset 18 in one piece, with its weights inside.

    Its input `image`, float32 (B, in_channels, *patch), has any batch B and this patch; its output `logits` is what
    the network answers in eval mode, float32 (B, K, *patch). Nothing is printed and the network is not changed.

    Args:
        net: on the CPU in eval mode, with float32 weights.
        in_channels: of the image.
        patch: voxels of a window, 2 or 3 numbers.

    Raises:
        CheckpointError: a network that cannot be written as ONNX, or one of more than 2 GB.
        MissingPartError: the packages that write ONNX are not installed.

    Example:
        >>> from medseg.nets import build_net
        >>> net = build_net("unet", dims=2, in_channels=1, out_channels=2, channels=(4, 8)).eval()
        >>> len(onnx_graph(net, 1, (15, 17))) > 1000
        True
    """
    size = sum(value.nbytes for value in net.state_dict().values())
    if size > LARGEST_FILE:
        raise CheckpointError(f"the network has {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB at most")
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingPartError(
            "writing ONNX needs onnx and onnxscript: in the folder of medseg, pip install -c constraints.txt '.[onnx]'"
        ) from None
    example = torch.zeros(EXAMPLES, in_channels, *patch)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
                external_data=False,
            )
            assert program is not None
            written: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # The exporter meets what a network does with errors of every kind.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the network cannot be written as ONNX ({type(error).__name__}: {reason})") from None
    return written


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warnings, log lines and prints of the exporter concern its authors."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
