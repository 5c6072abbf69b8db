"""A data set -> checked, planned, and prepared on disk; a second call finds its work done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import RunConfig
from medseg.errors import ConfigError, DatasetError, MedsegError
from medseg.geometry import check_same_geometry
from medseg.io.cases import Case, Dataset, find_cases, read_image, read_label_map
from medseg.labels import LabelScheme
from medseg.preparation import checks
from medseg.preparation.fingerprint import CaseFingerprint, Fingerprint, fingerprint_case, load_fingerprint
from medseg.preparation.grid import labels_to_network_grid, to_network_grid
from medseg.preparation.normalize import scales_for
from medseg.preparation.parallel import PROCESSES_FROM_BYTES, available_cpus, run_over_cases
from medseg.preparation.plan import Plan, load_plan, save_plan
from medseg.preparation.planning import check_plan_fits, make_plan
from medseg.preparation.split import fold_numbers, split_cases
from medseg.preparation.store import case_folder, is_current, remove_leftovers, write_case
from medseg.volume import Finding, Volume

__all__ = ["Preparation", "Progress", "prepare"]

# (steps done, steps in all, what was done last); a case is two steps: checked, then prepared.
Progress = Callable[[int, int, str], None]
# Rises when prepared cases of older versions no longer serve.
STORE_VERSION = 1
SAVE_EVERY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Preparation:
    """A prepared data set.

    Args:
        dataset: as found.
        fingerprint: of the cases that train or validate.
        plan: as written in `plan.yaml`.
        cases: name -> folder for `open_case`; cases marked 'test' are not prepared.
        findings: what the user should know.
        folder: where it lies (`output`).
    """

    dataset: Dataset
    fingerprint: Fingerprint
    plan: Plan
    cases: dict[str, Path]
    findings: tuple[Finding, ...]
    folder: Path


def prepare(
    config: RunConfig,
    progress: Progress | None = None,
    *,
    memory_gb: float = 8.0,
    on_gpu: bool = False,
    workers: int | None = None,
) -> Preparation:
    """Check a data set, plan, and write its cases on the network grid below `config.output`.

    All cases are read and checked before anything is written; `plan.yaml` is kept where it exists. Cases that have
    been checked or prepared by an earlier call, and whose files have not changed since, are not read again.

    Args:
        config: of the run; `output` must be set.
        progress: called as `progress(done, total, what)`.
        memory_gb: of the device that trains, for the plan.
        on_gpu: whether that device is a GPU.
        workers: cases at a time; by default one per processor, as far as the main memory suffices.

    Returns:
        Where everything lies, and what was found.

    Raises:
        ConfigError: unknown cases in a split, a plan that does not fit.
        DatasetError: missing labels, values that `data.labels` does not name, left and right swapped, a patient on
            both sides of the split.
        GeometryError: image and label on different grids.
        ReadError: a file that cannot be read, NaN voxels.
        WriteError: disk full, no permission.
        PartialFailure: a worker process died.

    Example:
        >>> preparation = prepare(load_config("configs/hippocampus.yaml"))  # doctest: +SKIP
        >>> preparation.plan.patch_size  # doctest: +SKIP
        (40, 56, 40)
    """
    if config.output is None:
        raise ConfigError("output is not set: give the folder of the run, e.g. output=runs/mine")
    dataset = find_cases(config.data)
    cases = tuple(c for c in dataset.cases if c.split != "test")
    if not cases:
        raise DatasetError(f"{config.data.root}: no case to train on (found {len(dataset.cases)}, all marked test)")
    checks.check_labels_given(cases)
    splits = [split_cases(dataset, config, fold) for fold in fold_numbers(dataset, config)]

    prepared = config.output / "prepared"
    size = sum(_size(path) for c in cases for path in (*c.images, *(s.path for s in c.labels)))
    count = workers or _workers(size, len(cases))
    report = _Counter(progress, 2 * len(cases))
    fingerprint = _check(dataset, cases, config, prepared, count, size, report)
    checks.check_left_right(fingerprint.cases, dataset.labels)

    plan = _plan(fingerprint, config, dataset.labels, memory_gb, on_gpu)
    folders = _write(dataset, cases, config, plan, prepared, count, size, report)
    findings = checks.findings_of(fingerprint.cases, dataset.labels)
    if any(not split.validation for split in splits):
        findings.append(Finding("no_validation", "no case is left for validation: training runs without scores"))
    return Preparation(dataset, fingerprint, plan, folders, tuple(findings), config.output)


def _plan(fingerprint: Fingerprint, config: RunConfig, scheme: LabelScheme, memory_gb: float, on_gpu: bool) -> Plan:
    assert config.output is not None
    path = config.output / "plan.yaml"
    if path.exists():
        plan = load_plan(path)
        check_plan_fits(plan, fingerprint, config, path)
        return plan
    plan = make_plan(fingerprint, config, scheme, memory_gb, on_gpu)
    save_plan(plan, path)
    return plan


@dataclass(frozen=True, slots=True)
class _CheckJob:
    case: Case
    threshold: float | None
    scheme: LabelScheme
    stamp: str


def _check(
    dataset: Dataset,
    cases: tuple[Case, ...],
    config: RunConfig,
    prepared: Path,
    workers: int,
    size: int,
    report: _Counter,
) -> Fingerprint:
    threshold, scheme = config.data.label_threshold, dataset.labels
    path = prepared / "fingerprint.json"
    known = load_fingerprint(path)
    done = {c.stamp: c for c in known.cases} if known else {}
    stamps = {c.name: _stamp("check", _sources(c), c.name, threshold, scheme.ignore) for c in cases}
    found = {c.name: done[stamps[c.name]] for c in cases if stamps[c.name] in done}
    errors: dict[str, MedsegError] = {}
    for case in cases:
        if case.name in found:
            _judge(case, found[case.name], scheme, errors)
            report.step(f"checked {case.name}")
    jobs = [_CheckJob(c, threshold, scheme, stamps[c.name]) for c in cases if c.name not in found]
    saved = time.monotonic()

    def save() -> Fingerprint:
        fingerprint = Fingerprint(tuple(found[c.name] for c in cases if c.name in found), dataset.channel_names)
        if jobs and fingerprint.cases:
            fingerprint.save(path)
        return fingerprint

    def on_done(job: _CheckJob, result: CaseFingerprint | MedsegError) -> None:
        nonlocal saved
        if isinstance(result, MedsegError):
            errors[job.case.name] = result
        else:
            found[job.case.name] = result
            _judge(job.case, result, scheme, errors)
        report.step(f"checked {job.case.name}")
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            save()
            saved = time.monotonic()

    run_over_cases(_check_case, jobs, workers=workers, processes=size > PROCESSES_FROM_BYTES, on_done=on_done)
    checks.raise_gathered(errors, len(cases))
    checks.check_consistent(list(found.values()))
    return save()


def _judge(case: Case, result: CaseFingerprint, scheme: LabelScheme, errors: dict[str, MedsegError]) -> None:
    try:
        scheme.check_values(tuple(result.label_voxels), _named(case))
    except DatasetError as error:
        errors[case.name] = error


def _check_case(job: _CheckJob) -> CaseFingerprint:
    image, labels = _read(job.case, job.threshold)
    return fingerprint_case(job.case.name, job.stamp, image, labels, job.scheme.ignore)


def _read(case: Case, threshold: float | None) -> tuple[Volume, Volume]:
    image = read_image(case.images)
    labels = read_label_map(case.labels, threshold)
    check_same_geometry(image, labels, str(case.images[0]), _named(case))
    return image, labels


@dataclass(frozen=True, slots=True)
class _WriteJob:
    case: Case
    threshold: float | None
    scheme: LabelScheme
    plan: Plan
    folder: Path
    stamp: str


def _write(
    dataset: Dataset,
    cases: tuple[Case, ...],
    config: RunConfig,
    plan: Plan,
    prepared: Path,
    workers: int,
    size: int,
    report: _Counter,
) -> dict[str, Path]:
    threshold, scheme = config.data.label_threshold, dataset.labels
    remove_leftovers(prepared)
    matters = plan.model_dump(mode="json", include={"dims", "orientation", "spacing_mm", "normalization"})
    folders = {c.name: case_folder(prepared, c.name) for c in cases}
    jobs = []
    for case in cases:
        key = (_sources(case), case.name, case.group, threshold, scheme.ignore, scheme.dtype.__name__, matters)
        stamp = _stamp("store", STORE_VERSION, *key)
        if is_current(folders[case.name], stamp):
            report.step(f"prepared {case.name}")
        else:
            jobs.append(_WriteJob(case, threshold, scheme, plan, folders[case.name], stamp))

    def on_done(job: _WriteJob, result: MedsegError | None) -> None:
        if result is not None:
            raise result
        report.step(f"prepared {job.case.name}")

    run_over_cases(_write_case, jobs, workers=workers, processes=size > PROCESSES_FROM_BYTES, on_done=on_done)
    return folders


def _write_case(job: _WriteJob) -> None:
    image, labels = _read(job.case, job.threshold)
    array, grid = to_network_grid(image, job.plan)
    label_map = labels_to_network_grid(labels, job.plan).astype(job.scheme.dtype)
    write_case(
        job.folder,
        job.stamp,
        job.case.name,
        job.case.group,
        array,
        label_map,
        grid.network_spacing_mm,
        scales_for(array, job.plan),
        job.scheme.ignore,
    )


class _Counter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self, what: str) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total, what)


def _named(case: Case) -> str:
    return str(case.labels[0].path) + (f" (and {len(case.labels) - 1} more)" if len(case.labels) > 1 else "")


def _stamp(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _sources(case: Case) -> list[tuple[str, int, int, int | None]]:
    sources: list[tuple[Path, int | None]] = [(path, None) for path in case.images]
    sources += [(label.path, label.value) for label in case.labels]
    result = []
    for path, value in sources:
        for file in _files(path):
            status = file.stat()
            result.append((str(file.resolve()), status.st_size, status.st_mtime_ns, value))
    return result


def _files(path: Path) -> Iterable[Path]:
    # A DICOM series is a folder.
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _workers(size: int, cases: int) -> int:
    # A compressed case grows about fivefold in memory and is held three times while it is resampled.
    of_one = 15.0 * size / max(1, cases)
    return max(1, min(available_cpus(), cases, int(_free_memory() * 0.6 / max(of_one, 1.0))))


def _free_memory() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 4e9
