"""Where networks run, and how much memory there is."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medseg.errors import ConfigError, MissingPartError

if TYPE_CHECKING:
    import torch

__all__ = ["CPU", "CpuDevice", "Place", "device_memory", "device_without_torch", "require_torch", "resolve_device"]


class Place(Protocol):
    """A device: `torch.device`, or the CPU where there is no torch."""

    @property
    def type(self) -> str:
        """'cpu', 'cuda', ..."""
        ...


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """The CPU, for networks that torch does not run."""

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


CPU = CpuDevice()


def require_torch(what: str) -> None:
    """Refuse what needs torch where it is not installed.

    Args:
        what: begins the message, e.g. 'a CRF'.

    Raises:
        MissingPartError: saying how to install it.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingPartError(
            f"{what} needs PyTorch, which is not installed here: in the folder of medseg, "
            "pip install -c constraints.txt torch"
        ) from None


def resolve_device(name: str) -> torch.device:
    """The device called `name`: 'auto' is the first CUDA device where there is one, else the CPU.

    Raises:
        ConfigError: for a name that torch does not know, or a device that is not there.
        MissingPartError: torch is not installed.
    """
    require_torch("a model that was not exported" if name in ("auto", "cpu") else f"device {name!r}")
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).split("\n")[0][:100]
        raise ConfigError(f"device {name!r} cannot be used ({reason}); use auto, cpu or cuda") from None
    return device


def device_without_torch(name: str) -> CpuDevice:
    """The device called `name` for a network that torch does not run: the CPU, by 'auto' too.

    Raises:
        ConfigError: for any other device.

    Example:
        >>> str(device_without_torch("auto"))
        'cpu'
    """
    if name not in ("auto", "cpu"):
        raise ConfigError(
            f"device {name!r} cannot be used by an exported model, which runs on the CPU; use auto or cpu"
        )
    return CPU


def device_memory(device: Place) -> int:
    """Bytes of memory of a device in all; of a CPU, what the machine has or a container may take."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)  # type: ignore[arg-type]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        # 'max' where a container has no limit.
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return memory
