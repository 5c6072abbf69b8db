"""A data set -> checked, planned, and prepared on disk; a second call finds its work done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.config import RunConfig
from medseg.datasets.cases import Case, Dataset, find_cases
from medseg.errors import ConfigError, DatasetError, MedsegError
from medseg.labels import LabelScheme
from medseg.machine import available_cpus, free_memory
from medseg.preparation import checks
from medseg.preparation.annotation import annotation_findings, check_annotation
from medseg.preparation.body import hounsfield_channels, labels_inside
from medseg.preparation.channel_plans import kind_in_words
from medseg.preparation.fingerprint import CaseFingerprint, Fingerprint, fingerprint_case, load_fingerprint
from medseg.preparation.grid import labels_to_network_grid, oriented_labels, to_network_grid
from medseg.preparation.kept_plan import PlannedFor, kept_or_new_plan
from medseg.preparation.kept_split import split_of_run
from medseg.preparation.label_losses import label_losses, loss_findings
from medseg.preparation.mirroring import findings_on_sides
from medseg.preparation.net_needs import catalogue_entry
from medseg.preparation.normalize import scales_for
from medseg.preparation.padding import stated_padding
from medseg.preparation.parallel import PROCESSES_FROM_BYTES, run_over_cases
from medseg.preparation.plan import Plan
from medseg.preparation.plan_upgrade import hashed_content
from medseg.preparation.sources import Reading, label_name, read_case, reading_of, size_of, stamp_of, state_of
from medseg.preparation.split import fold_numbers
from medseg.preparation.store import (
    CaseNotes,
    CaseOrigin,
    PreparedArrays,
    PreparedCase,
    case_folder,
    case_notes,
    is_current,
    open_case,
    remove_leftovers,
    write_case,
)
from medseg.preparation.twins import find_twins
from medseg.sample_labels import SampleLabels
from medseg.volume import Finding, Volume

__all__ = ["Preparation", "Progress", "prepare"]

# (steps done, steps in all, what was done last); a case is two steps: checked, then prepared.
Progress = Callable[[int, int, str], None]
Volumes = tuple[Volume, Volume]
# They rise when what older versions found or prepared no longer serves.
CHECK_VERSION = 4
STORE_VERSION = 2
# The parts of a plan that decide what a prepared case holds.
STORED = frozenset(
    {"dims", "orientation", "spacing_mm", "normalization", "axes", "transpose"}
    | {"crop", "normalize_on", "image", "labels", "shape_rounding"}
)
# Volumes read for the checks stay in memory for the store, so that small data sets are read once.
HELD_SHARE_OF_MEMORY = 0.25
HELD_BYTES = 4e9
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

    @property
    def sample_labels(self) -> LabelScheme:
        """Meaning of the labels in training samples: `SampleLabels` where cases lack labels."""
        return SampleLabels.of(self.dataset.labels, [c.annotated for c in self.dataset.cases if c.name in self.cases])

    def open(self, name: str) -> PreparedCase:
        """A prepared case, memory-mapped, and which of its labels are annotated.

        Raises:
            DatasetError: if its folder is missing or damaged.
        """
        case = open_case(self.cases[name])
        annotated = next(c.annotated for c in self.dataset.cases if c.name == name)
        samples = self.sample_labels
        if annotated is None or not isinstance(samples, SampleLabels):
            return case
        return replace(case, annotated=annotated, codes=samples.marking(annotated))

    def text(self) -> str:
        """What was found and what is planned, in a few lines."""
        fingerprint, plan, scheme = self.fingerprint, self.plan, self.dataset.labels
        voxels = {
            name: sum(c.label_voxels.get(v, 0) for c in fingerprint.cases for v in values)
            for name, values in zip(scheme.names, scheme.values, strict=True)
        }
        holders = {
            name: sum(any(c.label_voxels.get(v) for v in values) for c in fingerprint.cases)
            for name, values in zip(scheme.names, scheme.values, strict=True)
        }
        kinds = ", ".join(kind_in_words(channel) for channel in plan.normalization)
        patients = len({case.group for case in self.dataset.cases if case.name in self.cases})
        of_patients = f" of {patients} patients" if patients < len(self.cases) else ""
        lines = [f"{len(self.cases)} cases{of_patients}, {fingerprint.dims}D, {fingerprint.in_channels} channel(s)"]
        lines += [f"  {name}: in {holders[name]} cases, {voxels[name]} voxels" for name in scheme.names]
        lines += [f"{finding.kind}: {finding.message}" for finding in self.findings]
        patch = " x ".join(map(str, plan.patch_size))
        lines.append(
            f"plan: {plan.voxels_in_words}, patch {patch}, batch {plan.batch_size}, {kinds}, "
            f"features {list(plan.channels)}"
        )
        if plan.size is not None:
            lines.append(f"size {plan.size.name}: {plan.size.reason}")
        lines += [f"axis {each.axis} is not mirrored: {each.reason}" for each in plan.unmirrored or ()]
        lines.append(f"edit {self.folder / 'plan.yaml'} to change the plan")
        return "\n".join(lines)


def prepare(
    config: RunConfig,
    progress: Progress | None = None,
    *,
    memory_gb: float = 8.0,
    on_gpu: bool = False,
    workers: int | None = None,
    teacher: Plan | None = None,
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
        teacher: plan of the network that `distill.teacher` names; a new plan takes over what the network's input is.

    Returns:
        Where everything lies, and what was found.

    Raises:
        ConfigError: an unknown network, unknown cases in a split, a plan that does not fit, also to the teacher.
        DatasetError: missing labels, values that `data.labels` does not name, labels in a case that is said to lack
            them, left and right swapped, a patient on both sides of the split.
        GeometryError: image and label on different grids.
        ReadError: a file that cannot be read, NaN voxels.
        WriteError: disk full, no permission.
        PartialFailure: a worker process died.

    Example:
        >>> config = RunConfig(data={"root": "chest", "labels": {"lung": 1, "tumour": 2}}, output="runs/chest")
        >>> preparation = prepare(config, workers=1)
        >>> preparation.plan.dims, len(preparation.fingerprint.cases)
        (3, 10)
    """
    if config.output is None:
        raise ConfigError("output is not set: give the folder of the run, e.g. output=runs/mine")
    catalogue_entry(config.net)  # an unknown network is refused before the cases are read
    dataset = find_cases(config.data)
    cases = tuple(c for c in dataset.cases if c.split != "test")
    if not cases:
        raise DatasetError(f"{config.data.root}: no case to train on (found {len(dataset.cases)}, all marked test)")
    checks.check_labels_given(cases)
    splits = [split_of_run(dataset, config, fold) for fold in fold_numbers(dataset, config)]

    work = _Work(config, config.output, dataset, cases, workers, progress)
    fingerprint = work.check()
    check_annotation(cases, fingerprint.cases, dataset.labels, [split.train for split in splits], config.data.taught)
    checks.check_units(fingerprint.cases)
    checks.check_left_right(fingerprint.cases, dataset.labels)
    planned_for = PlannedFor(memory_gb, on_gpu, teacher)
    plan = kept_or_new_plan(config.output / "plan.yaml", fingerprint, config, dataset.labels, planned_for)
    folders = work.write(plan)
    findings = [*dataset.findings, *checks.findings_of(fingerprint.cases, dataset.labels)]
    findings += annotation_findings(cases, dataset.labels)
    findings += findings_on_sides(plan, dataset.labels, find_twins(fingerprint.cases, dataset.labels))
    findings += loss_findings({name: case_notes(folder).losses for name, folder in folders.items()}, dataset.labels)
    if any(not split.validation for split in splits):
        findings.append(Finding("no_validation", "no case is left for validation: training runs without scores"))
    return Preparation(dataset, fingerprint, plan, folders, tuple(findings), config.output)


@dataclass(frozen=True, slots=True)
class _Job:
    case: Case
    reading: Reading
    ignore: int | None
    stamp: str


@dataclass(frozen=True, slots=True)
class _CheckJob(_Job):
    scheme: LabelScheme
    keep: bool


@dataclass(frozen=True, slots=True)
class _WriteJob(_Job):
    plan: Plan
    folder: Path
    label_dtype: type[np.unsignedinteger[Any]]
    volumes: Volumes | None


class _Work:
    """The two passes over the cases, and what they share."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        dataset: Dataset,
        cases: Sequence[Case],
        workers: int | None,
        progress: Progress | None,
    ) -> None:
        self.dataset, self.cases, self.prepared = dataset, cases, folder / "prepared"
        self.reading, self.ignore = reading_of(config.data, dataset.labels), dataset.labels.ignore
        self.states = {c.name: state_of(c) for c in cases}
        size = sum(size_of(c) for c in cases)
        self.processes = size > PROCESSES_FROM_BYTES
        self.workers = workers or _workers(size, len(cases))
        self.held: dict[str, Volumes] = {}
        self.held_bytes_left = min(HELD_BYTES, HELD_SHARE_OF_MEMORY * _free_memory())
        self.progress, self.steps = progress, 0

    def check(self) -> Fingerprint:
        """Read and measure every case that is new or has changed; refuse the data set if any case is unusable."""
        path = self.prepared / "fingerprint.json"
        known = load_fingerprint(path)
        before = {c.stamp: c for c in known.cases} if known else {}
        found: dict[str, CaseFingerprint] = {}
        errors: dict[str, MedsegError] = {}
        jobs = []
        scheme = self.dataset.labels
        # What only written masks have is not part of it: a case that was checked by an older release stays checked.
        labels = {key: getattr(scheme, key) for key in ("names", "values", "is_regions", "ignore")}
        for case in self.cases:
            stamp = stamp_of(
                *("check", CHECK_VERSION, self.states[case.name], case.name),
                *(self.reading.threshold, labels, *self.reading.stamped),
            )
            if stamp in before:
                found[case.name] = before[stamp]
                self._judge(case, before[stamp], errors)
                self._step(f"checked {case.name}")
            else:
                keep = not self.processes
                jobs.append(_CheckJob(case, self.reading, self.ignore, stamp, self.dataset.labels, keep))
        saved = time.monotonic()

        def on_done(job: _CheckJob, result: tuple[CaseFingerprint, Volumes | None] | MedsegError) -> None:
            nonlocal saved
            if isinstance(result, MedsegError):
                errors[job.case.name] = result
            else:
                found[job.case.name] = result[0]
                self._hold(job.case.name, result[1])
                self._judge(job.case, result[0], errors)
            self._step(f"checked {job.case.name}")
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self._fingerprint(found).save(path)
                saved = time.monotonic()

        run_over_cases(_check_case, jobs, workers=self.workers, processes=self.processes, on_done=on_done)
        checks.raise_gathered(errors, len(self.cases))
        fingerprint = self._fingerprint(found)
        checks.check_consistent(fingerprint.cases)
        if known is None or known != fingerprint:
            fingerprint.save(path)
        return fingerprint

    def write(self, plan: Plan) -> dict[str, Path]:
        """Prepare every case that is not there yet, or was made from other files or another plan."""
        remove_leftovers(self.prepared)
        scheme = self.dataset.labels
        settings = (
            *(self.reading.threshold, self.ignore, scheme.dtype.__name__, hashed_content(plan, STORED)),
            *self.reading.stamped,
        )
        folders = {c.name: case_folder(self.prepared, c.name) for c in self.cases}
        jobs = []
        for case in self.cases:
            stamp = stamp_of("store", STORE_VERSION, self.states[case.name], case.name, case.group, settings)
            folder = folders[case.name]
            volumes = self.held.pop(case.name, None)
            if is_current(folder, stamp):
                self._step(f"prepared {case.name}")
            else:
                jobs.append(_WriteJob(case, self.reading, self.ignore, stamp, plan, folder, scheme.dtype, volumes))

        def on_done(job: _WriteJob, result: MedsegError | None) -> None:
            if result is not None:
                raise result
            self._step(f"prepared {job.case.name}")

        run_over_cases(_write_case, jobs, workers=self.workers, processes=self.processes, on_done=on_done)
        return folders

    def _fingerprint(self, found: Mapping[str, CaseFingerprint]) -> Fingerprint:
        return Fingerprint(tuple(found[c.name] for c in self.cases if c.name in found), self.dataset.channel_names)

    def _judge(self, case: Case, result: CaseFingerprint, errors: dict[str, MedsegError]) -> None:
        try:
            self.dataset.labels.check_values(tuple(result.label_voxels), label_name(case))
        except DatasetError as error:
            errors[case.name] = error

    def _hold(self, name: str, volumes: Volumes | None) -> None:
        if volumes is not None:
            size = sum(v.array.nbytes for v in volumes)
            if size <= self.held_bytes_left:
                self.held[name] = volumes
                self.held_bytes_left -= size

    def _step(self, what: str) -> None:
        self.steps += 1
        if self.progress is not None:
            self.progress(self.steps, 2 * len(self.cases), what)


def _check_case(job: _CheckJob) -> tuple[CaseFingerprint, Volumes | None]:
    image, labels = read_case(job.case, job.reading)
    fingerprint = fingerprint_case(job.case.name, job.stamp, image, labels, job.scheme)
    return fingerprint, (image, labels) if job.keep else None


def _write_case(job: _WriteJob) -> None:
    image, labels = job.volumes or read_case(job.case, job.reading)
    array, grid = to_network_grid(image, job.plan)
    # On the image's affine: theirs agree to 0.01 mm, but the two grids must not differ by a row through rounding.
    native = image.with_array(labels.array.astype(job.label_dtype, copy=False))
    label_map = labels_to_network_grid(native, job.plan)
    scales = scales_for(array, job.plan, stated_padding(image.metadata, image.channels))
    resampled = grid.straightening is not None or grid.network_shape != grid.oriented_shape
    notes = CaseNotes(
        labels_inside(array, label_map, hounsfield_channels(job.plan)),
        label_losses(oriented_labels(native, grid), label_map, job.ignore) if resampled else {},
    )
    write_case(
        job.folder,
        CaseOrigin(job.case.name, job.case.group, job.stamp),
        PreparedArrays(array, label_map, grid.network_spacing_mm, scales),
        job.ignore,
        notes,
        native if resampled else None,
    )


def _workers(size: int, cases: int) -> int:
    # A compressed case grows about fivefold in memory and is held three times while it is resampled.
    of_one = 15.0 * size / max(1, cases)
    return max(1, min(available_cpus(), cases, int(_free_memory() * 0.6 / max(of_one, 1.0))))


def _free_memory() -> float:
    return free_memory() or 4e9
