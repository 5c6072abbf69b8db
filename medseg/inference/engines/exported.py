"""Engines of other libraries: the network as an ONNX graph, run by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from medseg.inference.engines.judged import JudgedByShape, TensorNetwork
from medseg.inference.engines.providers import provider_chain
from medseg.inference.network import Network
from medseg.inference.onnx_network import OnnxNetwork, require_onnxruntime
from medseg.inference.openvino_network import OpenvinoNetwork
from medseg.inference.same_labels import CHANGED, CHANGED_BF16
from medseg.nets.onnx_graph import onnx_graph

__all__ = ["Graphs", "exported_network"]

Graphs = dict[tuple[int, ...], bytes]
"""ONNX graphs of one network by the shape of a window (C, *patch): several engines run the same one."""


def exported_network(name: str, net: nn.Module, regions: bool, *, fast: bool, graphs: Graphs) -> TensorNetwork:
    """The network by 'onnxruntime', 'tensorrt', 'openvino' or 'openvino-bf16', judged as `JudgedByShape` says.

    Args:
        name: of the engine.
        net: in eval mode; where its weights are decides whether ONNX Runtime may use a GPU.
        regions: whether the channels are overlapping regions.
        fast: permit TensorRT half precision.
        graphs: of this network, as far as they were made; gets those that are made here.

    Raises:
        CheckpointError: at the first call, a network that cannot be written as ONNX, or be run by the library.
        MissingPartError: at the first call, a library that is not installed.
    """
    # Of a window, whatever the size of the batch.
    networks: dict[tuple[int, ...], Network] = {}

    def make(batch: Tensor) -> TensorNetwork:
        window = tuple(batch.shape[1:])
        if window not in networks:
            if window not in graphs:
                with torch.inference_mode(False):
                    graphs[window] = onnx_graph(_on_cpu(net), window[0], window[1:])
            networks[window] = _run_by(name, graphs[window], batch.device, fast)
        return _on_tensors(networks[window])

    loses_precision = name == "openvino-bf16" or (name == "tensorrt" and fast)
    return JudgedByShape(net, make, regions, CHANGED_BF16 if loses_precision else CHANGED)


def _run_by(name: str, graph: bytes, device: torch.device, fast: bool) -> Network:
    where = "the network as ONNX"
    if name.startswith("openvino"):
        return OpenvinoNetwork(graph, where=where, precision="bf16" if name == "openvino-bf16" else "f32")
    available = require_onnxruntime().get_available_providers()
    return OnnxNetwork(graph, where, providers=provider_chain(name, device.type, device.index, available, fast=fast))


def _on_tensors(network: Network) -> TensorNetwork:
    """The same network on tensors, which on a CPU share their memory with its arrays."""

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(network(batch.cpu().numpy())).to(batch.device)

    return run


def _on_cpu(net: nn.Module) -> nn.Module:
    first = next(net.parameters(), None)
    return net if first is None or first.device.type == "cpu" else copy.deepcopy(net).cpu()
