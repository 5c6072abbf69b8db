"""Where networks run, and how much memory there is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

from medseg.errors import ConfigError

__all__ = ["device_memory", "resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device called `name`: 'auto' is the first CUDA device where there is one, else the CPU.

    Raises:
        ConfigError: for a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).split("\n")[0][:100]
        raise ConfigError(f"device {name!r} cannot be used ({reason}); use auto, cpu or cuda") from None
    return device


def device_memory(device: torch.device) -> int:
    """Bytes of memory of a device in all; of a CPU, what the machine has or a container may take."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        # 'max' where a container has no limit.
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return memory
