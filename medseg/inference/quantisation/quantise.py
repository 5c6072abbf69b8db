"""A network in INT8, with what it loses, weighs and takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DatasetError
from medseg.inference.network import Network
from medseg.inference.onnx_network import OnnxNetwork
from medseg.inference.openvino_network import OpenvinoNetwork
from medseg.inference.quantisation.dice_loss import Judge
from medseg.inference.quantisation.floating import with_little_loss
from medseg.inference.quantisation.layers import weighted_layers
from medseg.inference.quantisation.onnx_int8 import onnx_int8
from medseg.inference.quantisation.openvino_int8 import openvino_int8
from medseg.inference.quantisation.windows import CalibrationCase, window_count
from medseg.machine import has_vnni

__all__ = ["Int8Network", "quantised"]


@dataclass(frozen=True, slots=True, eq=False)
class Int8Network:
    """A network in INT8.

    Args:
        content: the ONNX file, or OpenVINO's XML.
        weights: OpenVINO's `.bin`; None for ONNX.
        floating: names of the layers that stay float.
        floating_share: of all weights, those of these layers.
        loss: Dice that it loses on the cases that it is judged by, mean over them.
        by_labels: whether that is Dice against labels; else against what the network finds in float.
        cases: how many it is judged by.
        float_bytes: of the file in float.
        float_seconds, seconds: a window by the same engine in float, and in INT8.
        reduced: whether weights keep to 7 bits, for CPUs without VNNI.
    """

    content: bytes
    weights: bytes | None
    floating: tuple[str, ...]
    floating_share: float
    loss: float
    by_labels: bool
    cases: int
    float_bytes: int
    float_seconds: float
    seconds: float
    reduced: bool

    @property
    def bytes(self) -> int:
        """Of the files in INT8."""
        return len(self.content) + len(self.weights or b"")

    def text(self) -> str:
        """One line on loss, size and speed."""
        floating = f", {len(self.floating)} layers in float" if self.floating else ""
        against = "their labels" if self.by_labels else "what the network finds in float"
        return (
            f"INT8: Dice {-self.loss:+.4f} on {self.cases} cases against {against}; "
            f"{self.bytes / 1e6:.1f} MB, {self.bytes / self.float_bytes:.0%} of float32{floating}; "
            f"{self.seconds:.3f} s a window, {self.float_seconds / self.seconds:.1f} times as fast as float32"
        )


def quantised(
    graph: bytes,
    kind: Literal["onnx", "openvino"],
    cases: Sequence[CalibrationCase],
    *,
    regions: bool = False,
    max_loss: float = 0.005,
    reduce_range: bool | None = None,
) -> Int8Network:
    """The network of an ONNX graph in INT8.

    Every other case gives windows to measure the ranges of the activations on, and the rest is judged by; a single one
    does both. Layers that cost Dice stay float.

    Args:
        graph: an ONNX file, float32.
        kind: 'onnx', run by ONNX Runtime, which knows 2D networks; or 'openvino', 2D and 3D.
        cases: see `medseg.inference.quantisation.windows`.
        regions: whether the channels are overlapping regions; else the largest logit is the label.
        max_loss: Dice that may be lost.
        reduce_range: keep weights to 7 bits; None: where this CPU lacks VNNI, as its 8-bit sums overflow.

    Raises:
        DatasetError: no cases.
        CheckpointError: a network that cannot be quantised, or that loses more than that.
        MissingPartError: a library is not installed.
    """
    if not cases:
        raise DatasetError("INT8 needs windows of real cases to measure on; give a run, or images by --calibration")
    reduced = not has_vnni() if reduce_range is None else reduce_range
    measured, judged = (cases[::2], cases[1::2]) if len(cases) > 1 else (cases, cases)
    windows = [window[None] for case in measured for window in case.windows]
    windows = windows[: window_count(windows[0].shape[2:])]
    in_float = _network(kind, graph, None)
    judge = Judge(in_float, judged, regions)
    layers = weighted_layers(graph)

    def make(floating: Sequence[str]) -> tuple[bytes, bytes | None]:
        if kind == "onnx":
            return onnx_int8(graph, windows, floating, reduced), None
        return openvino_int8(graph, windows, floating, reduced)

    (content, weights), floating, loss = with_little_loss(
        make, lambda made: judge.loss(_network(kind, *made)), layers, max_loss
    )
    return Int8Network(
        content,
        weights,
        floating,
        sum(layers[name] for name in floating) / sum(layers.values()),
        loss,
        judge.by_labels,
        len(judged),
        len(graph),
        _seconds(in_float, windows[0]),
        _seconds(_network(kind, content, weights), windows[0]),
        reduced,
    )


def _network(kind: str, content: bytes, weights: bytes | None) -> Network:
    where = "the network in INT8"
    return OnnxNetwork(content, where) if kind == "onnx" else OpenvinoNetwork(content, weights, where)


def _seconds(network: Network, window: NDArray[np.float32]) -> float:
    """The shorter of two passes, after one that lays out the kernels."""
    network(window)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        network(window)
        times.append(time.perf_counter() - start)
    return min(times)
