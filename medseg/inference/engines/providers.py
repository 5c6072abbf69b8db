"""Where ONNX Runtime computes: TensorRT, else CUDA, else the CPU, with the options of each.

The options are those of ONNX Runtime's documentation:
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html, .../CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.disk.caches import cache_folder
from medseg.errors import WriteError

__all__ = ["Provider", "provider_chain"]

log = logging.getLogger(__name__)
Provider = tuple[str, dict[str, Any]]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
# What TensorRT may use while it looks for the fastest kernels.
WORKSPACE_BYTES = 2 * 2**30


def provider_chain(
    engine: str, device: str, number: int | None, available: Sequence[str], *, fast: bool = False
) -> list[Provider]:
    """ONNX Runtime's providers in the order in which it is to take them; the CPU is always the last.

    A layer that one provider does not have goes to the next. Where this ONNX Runtime lacks what the engine is named
    after, or the networks are on the CPU, a warning says what runs them instead.

    Args:
        engine: 'onnxruntime' or 'tensorrt'.
        device: type of the networks' torch device, 'cpu' or 'cuda'.
        number: of the GPU; None: the first.
        available: names of the providers that this ONNX Runtime has.
        fast: permit TensorRT half precision.

    Raises:
        WriteError: a folder for TensorRT's compiled networks cannot be made.

    Example:
        >>> provider_chain("onnxruntime", "cpu", None, ["CUDAExecutionProvider", "CPUExecutionProvider"])
        [('CPUExecutionProvider', {})]
    """
    chain: list[Provider] = []
    if device == "cuda":
        if engine == "tensorrt" and TENSORRT in available:
            chain.append((TENSORRT, _tensorrt_options(number or 0, fast)))
        if CUDA in available:
            chain.append((CUDA, _cuda_options(number or 0)))
    chain.append((CPU, {}))
    reason = ""
    if device == "cuda" and CUDA not in available:
        reason = "this ONNX Runtime has no CUDA; install onnxruntime-gpu"
    elif engine == "tensorrt" and device != "cuda":
        reason = f"the networks are on {device}; choose --device cuda on a machine with an NVIDIA GPU"
    elif engine == "tensorrt" and TENSORRT not in available:
        reason = "this ONNX Runtime has no TensorRT; install onnxruntime-gpu and TensorRT"
    if reason:
        names = {CPU: "ONNX Runtime on the CPU", CUDA: "ONNX Runtime on CUDA", TENSORRT: "TensorRT"}
        log.warning("network engine %s: runs by %s, as %s", engine, names[chain[0][0]], reason)
    return chain


def _cuda_options(number: int) -> dict[str, Any]:
    # TF32 keeps 10 of float32's 23 bits; and memory grows by what is asked for, not by doubling.
    return {"device_id": number, "use_tf32": 0, "arena_extend_strategy": "kSameAsRequested"}


def _tensorrt_options(number: int, fast: bool) -> dict[str, Any]:
    folder = _cache_folder()
    return {
        "device_id": number,
        "trt_max_workspace_size": WORKSPACE_BYTES,
        "trt_fp16_enable": fast,
        # To compile a network takes minutes; the files are named by its graph, this GPU and the versions.
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
    }


def _cache_folder() -> Path:
    """`tensorrt` in the user's folder for caches."""
    folder = cache_folder() / "tensorrt"
    try:
        # A compiled network is run as it lies there, so nobody else may write one.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"TensorRT needs {folder} for its compiled networks: {error.strerror}") from None
    return folder
