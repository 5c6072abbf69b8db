"""`medseg benchmark`: how fast, how large and how good models are on this machine, by every engine that it has."""

from __future__ import annotations

from medseg.commands.benchmark.run import BenchmarkOptions, run_benchmark

__all__ = ["BenchmarkOptions", "run_benchmark"]
