"""Measures every contender, and writes `benchmark.json`, `benchmark.md` and `pareto.png`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.commands.benchmark.cases import check_fit, find_benchmark_cases
from medseg.commands.benchmark.contenders import Contender, available_engines, contenders_of, read_models
from medseg.commands.benchmark.measure import Job
from medseg.commands.benchmark.pareto import pareto_png
from medseg.commands.benchmark.process import measured_apart
from medseg.commands.benchmark.row import Row, make_row
from medseg.commands.benchmark.tables import Surroundings, to_json, to_lines, to_markdown
from medseg.datasets.records import Case
from medseg.disk.atomic import atomic_folder
from medseg.errors import CheckpointError, WriteError
from medseg.inference.device import resolve_device
from medseg.machine import available_cpus

__all__ = ["BenchmarkOptions", "run_benchmark"]

Progress = Callable[[float, float, str], None]
# Each contender goes once from the first to the last and once back, so that a machine that gets slower hits all alike.
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """How to measure.

    Args:
        references: folder of label maps; None: those of the data set.
        device: where the networks run.
        cases: how many, in the order of their names; None: all.
        engines: names; None: all that this machine has.
        threads: of the processor; None: all.
        label_threshold: for references such as 0/255.
    """

    references: Path | None = None
    device: str = "auto"
    cases: int | None = None
    engines: tuple[str, ...] | None = None
    threads: int | None = None
    label_threshold: float | None = None


def run_benchmark(models: Sequence[Path], data: Path, out: Path, options: BenchmarkOptions, progress: Progress) -> str:
    """Measure models and write the results.

    Args:
        models: bundles, run folders or zips.
        data: images, see `find_benchmark_cases`.
        out: folder that is new or empty.
        options: how.
        progress: called as `progress(done, total, text)`.

    Returns:
        The table for a console.

    Raises:
        WriteError: a folder that holds something, or cannot be written.
        CheckpointError: for what is not a model; where nothing could be measured.
        DatasetError, GeometryError, ReadError: no images, or images that do not fit a model.
        ConfigError: an unknown device or engine.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WriteError(f"{out} exists and is not an empty folder; give another one with -o")
    engines, left_out = available_engines(options.device, options.engines)
    known = read_models(models)
    cases = find_benchmark_cases(data, options.references, options.cases)
    check_fit(known, cases[0])
    threads = options.threads or available_cpus()
    rows, kept = _measure(contenders_of(known, engines), cases, threads, options, progress)
    quality = "Dice" if cases[0].labels else "agreement"
    surroundings = Surroundings(
        str(resolve_device(options.device)),
        threads,
        ROUNDS,
        len(cases),
        len({case.group or case.name for case in cases}),
        "Dice is the mean of the labels, with the references"
        if kept is None
        else f"Without references, agreement is Dice with the masks of {kept.name}",
        left_out,
    )
    with atomic_folder(out, overwrite=True) as folder:
        named = [case.name for case in cases]
        (folder / "benchmark.json").write_text(to_json(rows, surroundings, named), encoding="utf-8")
        (folder / "benchmark.md").write_text(to_markdown(rows, surroundings, quality), encoding="utf-8")
        (folder / "pareto.png").write_bytes(pareto_png([row for row in rows if not row.error], quality))
    text = to_lines(rows, surroundings, quality)
    if all(row.error for row in rows):
        raise CheckpointError(f"nothing could be measured: {rows[0].error} (the others are in {out / 'benchmark.md'})")
    return text


def _measure(
    contenders: Sequence[Contender],
    cases: tuple[Case, ...],
    threads: int,
    options: BenchmarkOptions,
    progress: Progress,
) -> tuple[list[Row], Contender | None]:
    """A row for each contender, and without references the one with whose masks the others were compared."""
    answers: dict[str, list[dict[str, Any]]] = {each.name: [] for each in contenders}
    kept: Contender | None = None
    with tempfile.TemporaryDirectory() as folder:
        masks = None if cases[0].labels else Path(folder)
        for number in range(ROUNDS):
            for place, contender in enumerate(contenders if number % 2 == 0 else contenders[::-1]):
                found = answers[contender.name]
                if any("error" in answer for answer in found):
                    continue
                progress(number * len(contenders) + place, ROUNDS * len(contenders), contender.name)
                keeps = masks is not None and kept is None
                found.append(
                    measured_apart(
                        Job(
                            contender.model.path,
                            contender.engine,
                            options.device,
                            threads,
                            cases,
                            options.label_threshold,
                            masks,
                            keeps,
                        )
                    )
                )
                if keeps and "error" not in found[-1]:
                    kept = contender
        progress(1, 1, "")
    return [make_row(each, answers[each.name], cases) for each in contenders], kept
