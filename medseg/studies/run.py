"""Prediction of many cases or DICOM studies in one run: the model is loaded once, each mask exists or has an error.

Masks appear by atomic rename, and the ledger gets a line per case as soon as its mask exists, so a killed run can be
continued, and several runs can work on one folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.disk.atomic import write_text_atomic
from medseg.disk.locks import Locks
from medseg.disk.snapshot import CaseSnapshot, Snapshot, take_snapshot
from medseg.errors import ConfigError
from medseg.inference.load import load_by
from medseg.inference.predictor import Model
from medseg.io.dicom.deidentify.texts import CleanText, PrivateTexts
from medseg.io.output_names import folded
from medseg.labels import LabelScheme
from medseg.studies.case_work import CaseWork
from medseg.studies.chain import CaseChain
from medseg.studies.failures import LOGS
from medseg.studies.find import find_sources, with_own_names
from medseg.studies.label_table import refuse_other_labels, write_label_table
from medseg.studies.ledger import Ledger
from medseg.studies.leftovers import clear_leftovers
from medseg.studies.measurements import write_measurements
from medseg.studies.memory import default_budget, memory_of_case
from medseg.studies.numbered_files import cases_of_numbered_files
from medseg.studies.options import PredictOptions
from medseg.studies.pipeline import overlapped
from medseg.studies.results import StudiesResult
from medseg.studies.selection import channel_names
from medseg.studies.sources import Source, with_voxels

if TYPE_CHECKING:
    from medseg.io.dicom.deidentify.profile import Deidentifier
    from medseg.studies.ray_engine import RayEngine

__all__ = ["predict_studies"]

log = logging.getLogger(__name__)
Progress = Callable[[float, float, str], None]
# The table is rewritten as a whole; with these pauses that takes a negligible share of the time.
_SECONDS_BETWEEN_TABLES = 10.0
_TIMES_A_TABLE = 50
# Without --settle: files more recent than this may belong to a study that is still arriving.
SETTLE_SECONDS = 1.0


def predict_studies(
    model: Model | str | Path,
    sources: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
) -> StudiesResult:
    """Predict every case among `sources`; a failing case is recorded and the others continue.

    The largest cases are processed first, so that a lack of memory shows at once and the end does not wait for one
    large case. A case that another run works on is left to it.

    Args:
        model: path of a bundle, or a loaded model (`options.loading` is then ignored).
        sources: files, DICOM folders, folders of studies, zips.
        out: folder for `<case>.nii.gz` (or .png), `ledger.jsonl`, `measurements.csv` and `labels.json`.
        options: see `PredictOptions`.
        progress: called with (cases done, cases, name of the case); cases done are fractional while windows are done.

    Returns:
        The outcome of each case, including failures; `raise_for_failures` turns them into an error.

    Raises:
        CheckpointError: if the model cannot be used.
        ReadError: if the sources contain no case.
        WriteError: if the disk is full or permission is missing; finished cases stay.
        ConfigError: if options are impossible, or masks of a model with other labels would stay.

    Example:
        >>> result = predict_studies("runs/lung/model", ["study/"], "predicted/")
        >>> result.raise_for_failures()
        >>> len(result.done), Path("predicted/labels.json").is_file()
        (1, True)
    """
    options = options or PredictOptions()
    if not options.anonymize:
        return _predict(model, sources, out, options, progress)
    with PrivateTexts(_deidentifier()).guarded([Path(s) for s in sources]):
        return _predict(model, sources, out, options, progress)


def _predict(
    model: Model | str | Path,
    sources: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions,
    progress: Progress | None,
) -> StudiesResult:
    folder = Path(out)
    places = [Path(source) for source in sources]
    loaded = model if isinstance(model, Model) else load_by(Path(model), options.loading)
    snapshot = take_snapshot(places, folder, SETTLE_SECONDS if options.settle is None else options.settle)
    plan = loaded.info.plan
    found = cases_of_numbered_files(find_sources(places, options.series, folder, channel_names(plan)), plan.in_channels)
    loaded = replace(loaded, engine=loaded.engine.for_images(len(found)))
    chain = CaseChain(loaded, folder, options, _deidentifier(loaded.scheme) if options.anonymize else None)
    ledger = Ledger(folder / "ledger.jsonl")
    chain.keep_engine(ledger)
    works = _named_works([chain.choose(source) for source in found], chain, ledger, snapshot)
    refuse_other_labels(folder, loaded.scheme, ledger, [work.source.case for work in works])
    if options.dry_run:
        return _planned(works, chain, ledger)
    with Locks(folder) as locks:
        clear_leftovers(folder, locks)
        write_label_table(folder, loaded.scheme)
        run = _Run(chain, ledger, locks, [work.source for work in works], progress)
        if options.engine == "ray":
            run.ray = _ray_engine(model, chain, len(found))
        try:
            run.work_on(works)
            # Another run may have finished the cases it worked on, or died over them.
            run.work_on([CaseWork(w.source, w.snapshot) for w in run.works.values() if w.locked])
        finally:
            write_measurements(ledger.rows, folder)
            clear_leftovers(folder, locks)
    return run.result()


def _named_works(found: Sequence[Source], chain: CaseChain, ledger: Ledger, snapshot: Snapshot) -> list[CaseWork]:
    """The cases, each under a name that no other study has or had in the output folder."""
    works = [CaseWork(source, _snapshot_of(source, snapshot)) for source in found]
    rows = {folded(row.case): row for row in ledger.rows}

    def owns(index: int, name: str) -> bool | None:
        # Written before names were recorded, or with another site's key: the content decides.
        row = rows.get(folded(name))
        if row is None or row.state == "failed":
            return None
        chain.hash(works[index])
        return row.input_hash == works[index].input_hash

    _refuse_replaced_inputs(found, chain)
    named = with_own_names(found, chain.folder, owns, chain.options.dry_run)
    for work, source in zip(works, named, strict=True):
        work.source = source
    return works


def _snapshot_of(source: Source, snapshot: Snapshot) -> CaseSnapshot:
    is_dicom = source.series is not None or bool(source.candidates) or bool(source.error)
    return snapshot.of([file for path in source.paths for file in with_voxels(path)] or source.paths, is_dicom)


def _refuse_replaced_inputs(sources: Sequence[Source], chain: CaseChain) -> None:
    there = {output: each.case for each in sources for output in chain.outputs_of(each).values() if output.exists()}
    names = {output.name for output in there}
    inputs = {os.path.realpath(p) for source in sources for p in source.paths if p.name in names}
    for output, case in there.items():
        if os.path.realpath(output) in inputs:
            raise ConfigError(f"the mask of {case} would replace the image {output}; choose another output folder")


def _planned(works: Sequence[CaseWork], chain: CaseChain, ledger: Ledger) -> StudiesResult:
    """The result of a dry run."""
    for work in works:
        chain.hash(work)
        work.skipped = chain.finished(work, ledger.latest(work.source.case))
    sources = [work.source for work in works]
    return StudiesResult(
        chain.folder,
        (),
        tuple(work.source.case for work in works if work.skipped),
        tuple(work.source.case for work in works if not work.skipped),
        reasons={source.case: chain.told(source) for source in sources},
        dry_run=True,
    )


class _Run:
    """One call of `predict_studies`: the state of its cases."""

    def __init__(
        self, chain: CaseChain, ledger: Ledger, locks: Locks, found: Sequence[Source], progress: Progress | None
    ) -> None:
        self.chain = chain
        self.ledger = ledger
        self.locks = locks
        self.found = found
        self.progress = progress
        self.ray: RayEngine | None = None
        # Of the run and not of a worker, which may be hired in the middle of it.
        self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.works: dict[str, CaseWork] = {}
        self.sizes = {
            source.case: max(1, *(memory_of_case(source, info, chain.whole_logits) for info in chain.model.infos))
            for source in found
        }
        # Kept as sums, because progress is reported for every window of every case.
        self._all_sizes = sum(self.sizes.values())
        self._sizes_done = 0
        self._next_table = time.monotonic() + _SECONDS_BETWEEN_TABLES

    def work_on(self, works: Sequence[CaseWork]) -> None:
        """Pass the works through the chain."""
        ordered = sorted(works, key=lambda work: -self.sizes[work.source.case])
        for work in self._through(ordered):
            if work.source.case not in self.works:
                self._sizes_done += self.sizes[work.source.case]
            self.works[work.source.case] = work
            self._show(0.0, work)
            self._write_table()

    def result(self) -> StudiesResult:
        """The outcome of the cases, in the order they were found."""
        works = [self.works[source.case] for source in self.found]
        return StudiesResult(
            self.chain.folder,
            tuple(work.row for work in works if work.row is not None),
            tuple(work.source.case for work in works if work.skipped),
            errors=tuple(work.error for work in works if work.error is not None and work.row is not None),
            locked=tuple(work.source.case for work in works if work.locked),
        )

    def _write_table(self) -> None:
        """Update the measurements, but spend only a small share of the time on it."""
        started = time.monotonic()
        if started < self._next_table:
            return
        write_measurements(self.ledger.rows, self.chain.folder)
        ended = time.monotonic()
        self._next_table = ended + max(_SECONDS_BETWEEN_TABLES, _TIMES_A_TABLE * (ended - started))

    def _through(self, works: Sequence[CaseWork]) -> Iterator[CaseWork]:
        if self.ray is not None:
            return self.ray.through(works, self._begin, self._settle)
        return overlapped(works, self._read, self._compute, self._finish, self._cost, default_budget())

    def _begin(self, work: CaseWork) -> bool:
        """Whether there is something to do that no other run does; then the case is locked."""
        case = work.source.case
        latest = self.ledger.latest(case)
        work.most_images = latest.images if latest is not None and latest.study_hash == work.source.study_hash else 0
        self.chain.hash(work)
        if self.chain.finished(work, latest):
            work.skipped = True
            return False
        if not self.locks.take(case):
            work.locked = True
            return False
        # Another run may have finished the case between the first check and the lock.
        self.ledger.refresh()
        if self.chain.finished(work, self.ledger.latest(case)):
            self.locks.give(case)
            work.skipped = True
            return False
        return True

    def _read(self, work: CaseWork) -> None:
        if self._begin(work):
            self.chain.read(work)

    def _compute(self, work: CaseWork) -> None:
        def windows(done: int, total: int) -> None:
            self._show(0.99 * done / total, work)

        self.chain.keep_engine(self.ledger)  # another run on this folder may have chosen meanwhile
        self.chain.compute(work, windows)

    def _finish(self, work: CaseWork) -> None:
        if work.skipped or work.locked:
            return
        self.chain.finish(work)
        self._settle(work)

    def _settle(self, work: CaseWork) -> None:
        """Record a case in the ledger and release it."""
        kept = self.chain.folder / LOGS / f"{work.source.case}.txt"
        if work.traceback:
            write_text_atomic(kept, work.traceback)
            log.debug("%s", work.traceback)
        elif work.row is not None:
            kept.unlink(missing_ok=True)
        if work.error is not None:
            # A file name may contain invalid text, which would stop a log written as UTF-8.
            text = str(work.error).encode(errors="backslashreplace").decode()
            log.warning("%s failed: %s", work.source.case, CleanText(text))
        if work.row is not None:
            work.row = replace(work.row, run_started=self.started)
            self.ledger.append(work.row)
        self.locks.give(work.source.case)

    def _cost(self, work: CaseWork) -> int:
        return self.sizes[work.source.case]

    def _show(self, share: float, work: CaseWork) -> None:
        """Progress in cases, weighted by size, so that the estimate is right although large cases come first."""
        if self.progress is None:
            return
        cases, case = len(self.found), work.source.case
        done = self._sizes_done + (0 if case in self.works else share * self.sizes[case])
        self.progress(cases if len(self.works) == cases else cases * done / self._all_sizes, cases, case)


def _ray_engine(model: Model | str | Path, chain: CaseChain, images: int) -> RayEngine:
    from medseg.studies.ray_engine import RayEngine

    if isinstance(model, Model):
        raise ConfigError("the Ray engine loads the model on every machine: give the path of its bundle")
    return RayEngine(Path(model), chain, images)


def _deidentifier(scheme: LabelScheme | None = None) -> Deidentifier:
    from medseg.io.dicom.deidentify.profile import Deidentifier
    from medseg.io.dicom.deidentify.site_key import site_key
    from medseg.io.dicom.labels import harmless_texts

    return Deidentifier.with_key(site_key(), harmless_texts(scheme) if scheme else ())
