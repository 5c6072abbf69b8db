"""Names of the engines, and what each needs of this machine; loads neither torch nor another library."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from medseg.errors import MissingPartError
from medseg.lookup import nearest_hint

__all__ = ["ENGINES", "EXPORTED", "has_bf16", "is_installed", "problem_with", "require_parts", "unknown_engine"]


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """What an engine needs.

    Args:
        devices: types of torch devices on which the networks may be.
        packages: that must be installed.
        extras: of medseg that bring these packages.
        bf16: whether it computes in bfloat16.
    """

    devices: tuple[str, ...] = ("cpu",)
    packages: tuple[str, ...] = ()
    extras: str = ""
    bf16: bool = False


WRITING = ("onnx", "onnxscript")
_NEEDS = {
    "eager": EngineNeeds(("cpu", "cuda", "mps", "xpu")),
    "winograd": EngineNeeds(),
    "frozen": EngineNeeds(),
    "bf16": EngineNeeds(bf16=True),
    "onnxruntime": EngineNeeds(("cpu", "cuda"), (*WRITING, "onnxruntime"), "onnx"),
    "openvino": EngineNeeds(packages=(*WRITING, "openvino"), extras="onnx,openvino"),
    "openvino-bf16": EngineNeeds(packages=(*WRITING, "openvino"), extras="onnx,openvino", bf16=True),
    "tensorrt": EngineNeeds(("cpu", "cuda"), (*WRITING, "onnxruntime"), "onnx"),
}
ENGINES = tuple(_NEEDS)
"""All engines; 'eager' is the network as it is."""
EXPORTED = tuple(name for name, needs in _NEEDS.items() if needs.packages)
"""Those that run the network as an ONNX graph, by another library than torch."""


def problem_with(name: str, device: str, fast: bool) -> str:
    """Why an engine cannot run networks on this device, besides a part that is not installed; '' if it can.

    Args:
        name: of the engine.
        device: type of the networks' torch device, such as 'cpu'.
        fast: whether precision may be lost.

    Example:
        >>> problem_with("eager", "cpu", False), problem_with("frozen", "cuda", False)
        ('', 'it runs on a CPU, the networks are on cuda; choose eager')
    """
    if name not in _NEEDS:
        return unknown_engine(name)
    needs = _NEEDS[name]
    if device not in needs.devices and name != "eager":
        place = " or ".join("a GPU" if each == "cuda" else "a CPU" for each in needs.devices)
        return f"it runs on {place}, the networks are on {device}; choose eager"
    if needs.bf16 and not fast:
        return "it loses precision and is only used where fast is chosen too"
    if needs.bf16 and not has_bf16():
        return "this CPU has no bfloat16 (AVX512-BF16 or AMX); choose another one, such as eager or winograd"
    return ""


def unknown_engine(name: str) -> str:
    """What is wrong with a name that is no engine's."""
    return f"unknown; choose one of {', '.join(ENGINES)}{nearest_hint(name, ENGINES)}"


def is_installed(name: str) -> bool:
    """Whether the packages of an engine are there."""
    return all(_found(package) for package in _NEEDS[name].packages)


def require_parts(name: str) -> None:
    """Refuse an engine whose packages are not installed.

    Raises:
        MissingPartError: with the command that installs them.
    """
    needs = _NEEDS[name]
    missing = [package for package in needs.packages if not _found(package)]
    if missing:
        raise MissingPartError(
            f"network engine {name} needs {', '.join(missing)}: in the folder of medseg, pip install -c "
            f"constraints.txt '.[{needs.extras}]'"
        )


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # None in sys.modules: a part that is kept from being imported
        return False
