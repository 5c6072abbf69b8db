"""The resources of this machine: processors and memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["VNNI", "available_cpus", "compute_threads", "free_memory", "has_vnni", "peak_memory", "processor"]


VNNI = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Flags of processors with such instructions, on x86-64 and on ARM."""


def available_cpus() -> int:
    """Number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def compute_threads() -> int:
    """Threads that a network may use: `OMP_NUM_THREADS` where it is set, as torch takes it; else all processors."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else available_cpus()


def processor() -> tuple[str, frozenset[str]]:
    """The model and the flags of the processor, such as 'avx2'; empty where the system does not list them."""
    values: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            values.setdefault(key.strip().lower(), value.strip())
    return values.get("model name", ""), frozenset((values.get("flags") or values.get("features") or "").split())


def has_vnni() -> bool:
    """Whether the processor adds products of 8-bit integers in 32 bits at once; where flags are unknown, it has not."""
    return not processor()[1].isdisjoint(VNNI)


def free_memory() -> int | None:
    """Bytes that can still be allocated; None if the system does not say."""
    limits: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits.extend(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        # 'max' if a container has no limit.
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(limits, default=None)


def peak_memory() -> int | None:
    """Bytes of memory that this process held at its largest so far, to a few MB; None if the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    return None
