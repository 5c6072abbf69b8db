"""A benchmark as JSON, as a table of Markdown, and as lines for a console."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from medseg.commands.benchmark.row import Row, pareto_front
from medseg.commands.doctor import vector_extensions
from medseg.machine import available_cpus, free_memory, processor
from medseg.version import __version__

__all__ = ["Surroundings", "columns", "to_json", "to_lines", "to_markdown"]

LIBRARIES = ("torch", "numpy", "onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all measurements have in common.

    Args:
        device: where the networks ran.
        threads: of the processor, for each contender.
        rounds: how often every contender took all cases.
        cases, patients: how many.
        quality: what Dice was measured with: references, or the masks of the first contender.
        left_out: engine -> why this machine does not have it.
    """

    device: str
    threads: int
    rounds: int
    cases: int
    patients: int
    quality: str
    left_out: Mapping[str, str]

    def sentences(self) -> list[str]:
        """What a reader must know of the figures."""
        cpu, flags = processor()
        has, lacks = vector_extensions(flags)
        known = f"{', '.join(has) or 'none'}{' (not: ' + ', '.join(lacks) + ')' if lacks else ''}"
        libraries = ", ".join(f"{name} {found}" for name, found in _versions().items())
        lines = [
            f"{cpu or platform.machine()}, vector extensions: {known if flags else 'not listed by the system'}; "
            f"{self.threads} of {available_cpus()} processors, device {self.device}.",
            f"{libraries}.",
            f"{self.cases} case(s) of {self.patients} patient(s), {self.rounds} rounds in alternating order, each time "
            "in a process of its own. Seconds are from the image in memory to its mask, after a warm-up; CPU s is "
            f"processor time, which other programs disturb less. {self.quality}.",
        ]
        return lines + [f"Left out: {name} ({why})." for name, why in self.left_out.items()]


def _versions() -> dict[str, str]:
    found = {"medseg": __version__, "Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def columns(rows: Sequence[Row], quality: str) -> list[list[str]]:
    """The table, its heading first; a contender that failed has its reason in the last column."""
    heading = ["model", "engine", "median s", "p95 s", "CPU s", "cases/s", "Mvoxel/s", "memory GB", "file MB", quality]
    table = [heading]
    for row in rows:
        start = [row.contender.model.name, row.contender.engine_name]
        size = f"{row.contender.model.size_bytes / 1e6:.3g}"
        if row.error:
            table.append([*start, *["-"] * 6, size, f"failed: {row.error}"])
            continue
        memory = row.device_memory_bytes or row.peak_memory_bytes
        table.append(
            [
                *start,
                *(f"{seconds:.3g}" for seconds in (row.median_seconds, row.p95_seconds, row.median_cpu_seconds)),
                f"{row.cases_per_second:.3g}",
                f"{row.voxels_per_second / 1e6:.3g}",
                "-" if memory is None else f"{memory / 1e9:.2f}",
                size,
                _quality(row),
            ]
        )
    return table


def _quality(row: Row) -> str:
    if row.quality is None:
        return "-"
    interval = row.quality.interval
    return f"{row.quality.mean:.4f}" + ("" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})")


def to_lines(rows: Sequence[Row], surroundings: Surroundings, quality: str) -> str:
    """The table in columns, with what it rests on below it."""
    table = columns(rows, quality)
    widths = [max(len(line[n]) for line in table) for n in range(len(table[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)), line[-1]])
        for line in table
    ]
    return "\n".join([*lines, "", *surroundings.sentences(), *_remarks(rows)])


def to_markdown(rows: Sequence[Row], surroundings: Surroundings, quality: str) -> str:
    """The same for a document."""
    heading, *body = [[cell.replace("|", "\\|") for cell in line] for line in columns(rows, quality)]
    ruled = ["---", "---", *["--:"] * (len(heading) - 2)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (heading, ruled, *body))
    said = [*surroundings.sentences(), *_remarks(rows)]
    return "\n\n".join(["# Benchmark", table, *said, "![Pareto front](pareto.png)"]) + "\n"


def _remarks(rows: Sequence[Row]) -> list[str]:
    return [f"{row.contender.name}: {note}." for row in rows for note in row.notes]


def to_json(rows: Sequence[Row], surroundings: Surroundings, cases: Sequence[str]) -> str:
    """Everything that was measured; `cases` are the names of the cases in their order."""
    (cpu, flags), free = processor(), free_memory()
    done = [row for row in rows if row.quality is not None]
    best = pareto_front([(row.median_seconds, row.quality.mean) for row in done if row.quality is not None])
    front = {done[place].contender.name for place in best}
    values: dict[str, Any] = {
        "format_version": 1,
        "machine": {
            "processor": cpu or platform.machine(),
            "vector_extensions": vector_extensions(flags)[0] if flags else None,
            "processors": available_cpus(),
            "free_memory_gb": None if free is None else round(free / 1e9, 2),
        },
        "versions": _versions(),
        "device": surroundings.device,
        "threads": surroundings.threads,
        "rounds": surroundings.rounds,
        "quality": surroundings.quality,
        "patients": surroundings.patients,
        "cases": list(cases),
        "left_out": dict(surroundings.left_out),
        "rows": [_row(row, row.contender.name in front) for row in rows],
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Row, on_front: bool) -> dict[str, Any]:
    start = {"model": row.contender.model.name, "engine": row.contender.engine_name}
    size = {"file_bytes": row.contender.model.size_bytes}
    if row.error:
        return start | {"state": "failed", "error": row.error} | size
    found = row.quality
    return (
        start
        | {"state": "done"}
        | size
        | {
            "median_seconds": row.median_seconds,
            "p95_seconds": row.p95_seconds,
            "median_cpu_seconds": row.median_cpu_seconds,
            "cases_per_second": row.cases_per_second,
            "voxels_per_second": row.voxels_per_second,
            "peak_memory_bytes": row.peak_memory_bytes,
            "device_memory_bytes": row.device_memory_bytes,
            "dice": None
            if found is None
            else {"mean": found.mean, "interval": found.interval, "n": found.n, "labels": found.labels},
            "on_pareto_front": on_front,
            "notes": row.notes,
            "seconds": row.seconds,
            "cpu_seconds": row.cpu_seconds,
            "voxels": row.voxels,
        }
    )
