"""The worker: one loaded model, one job at a time, from a complete study to results on the disk."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from medseg.config.site import RuleConfig, SiteConfig
from medseg.disk.shared_lines import shared_lines
from medseg.errors import CheckpointError, ConfigError, MedsegError, WriteError
from medseg.inference.load import load_model
from medseg.inference.predictor import Model
from medseg.service.audit import Audit
from medseg.service.fault_points import reached
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.queue_records import Job
from medseg.service.results import LEDGER
from medseg.studies import PredictOptions, predict_studies
from medseg.studies.ledger import Ledger, LedgerRow

__all__ = ["Worker", "check_model"]

log = logging.getLogger(__name__)
# Errors of the machine, not of the study: they may be gone in a minute.
_OF_THE_MACHINE = 6


class Worker:
    """Works on the jobs of a queue.

    Args:
        site: the site file.
        places, queue, audit: of the service.
        name: of this worker; a worker of that name that died is recovered first.
        device: for the network.
    """

    def __init__(
        self, site: SiteConfig, places: Places, queue: Queue, audit: Audit, name: str = "worker-0", device: str = "auto"
    ) -> None:
        self._site = site
        self._places = places
        self._queue = queue
        self._audit = audit
        self._name = name
        self._device = device
        self._loaded: tuple[Path, Model] | None = None

    def check_models(self) -> None:
        """Load the model of each rule and check its hash; the first rule's stays loaded.

        Raises:
            CheckpointError: if a model cannot be used, or is not the one that its rule allows.
            ConfigError: if a rule does not say which model is allowed.
        """
        for rule in reversed(self._site.rules):
            self._model(rule)

    def recover(self) -> None:
        """Make the job ready again that a dead worker of this name left; to be called once, before the first step.

        Raises:
            WriteError: if the queue or the audit cannot be written.
        """
        for job in self._queue.recover(self._name):
            self._audit.write("dead" if job.state == "dead" else "returned", job.study, version=job.version, job=job.id)

    def give_back(self) -> None:
        """Make the running job ready again, because this worker stops or cannot go on.

        Raises:
            WriteError: if the queue or the audit cannot be written.
        """
        for job in self._queue.give_back(self._name):
            self._audit.write("returned", job.study, version=job.version, job=job.id)

    def step(self) -> bool:
        """Do the next job; False if there is none.

        Raises:
            WriteError: if the queue or the audit cannot be written.
        """
        job = self._queue.take(self._name)
        if job is None:
            return False
        reached("worker.taken")
        try:
            self._do(job)
        except (KeyboardInterrupt, SystemExit):
            self.give_back()
            raise
        return True

    def _do(self, job: Job) -> None:
        started = time.monotonic()
        try:
            rule = self._site.rule(job.rule)
            if rule is None:
                raise ConfigError(f"the site file has no rule {job.rule!r} any more")
            model = self._model(rule)
            where: dict[str, str | int | float] = {
                "version": job.version,
                "job": job.id,
                "rule": rule.name,
                "model_hash": model.model_hash,
            }
            self._audit.write("started", job.study, **where)
            row = self._predict(job, rule, model)
            reached("worker.predicted")
        except MedsegError as error:
            self._failed(job, error)
            return
        _record(self._places.ledger, job, row)
        seconds = round(time.monotonic() - started, 3)
        note = row.state if row.state == "done" else f"{row.state}: {'; '.join(row.findings)}"
        # The audit first: after a kill between the two the job is found done and audited twice, never not at all.
        self._audit.write("done", job.study, **where, result=row.state, output_hash=row.output_hash, seconds=seconds)
        reached("worker.audited")
        self._queue.finish(job, model.model_hash, seconds, note, rule.send_to)

    def _predict(self, job: Job, rule: RuleConfig, model: Model) -> LedgerRow:
        """Write the results of a job; a second call finds what is done and does the rest."""
        out = self._places.results / job.folder
        options = PredictOptions(
            format=",".join(rule.formats),
            series=tuple(job.series.split()) or None,
            anonymize=rule.anonymize,
            mark=self._site.prefix,
            settle=0.0,
        )
        result = predict_studies(model, [self._places.versions / job.case], out, options)
        result.raise_for_failures()
        if result.locked:
            raise WriteError(f"{out}: another run is working on it")
        (row,) = Ledger(out / LEDGER).rows
        model.engine.keep(row.network_engine)
        return row

    def _model(self, rule: RuleConfig) -> Model:
        if self._loaded is None or self._loaded[0] != rule.model:
            self._loaded = None  # never two at a time in memory
            self._loaded = rule.model, load_model(rule.model, self._device)
        model = self._loaded[1]
        check_model(rule, model)
        return model

    def _failed(self, job: Job, error: MedsegError) -> None:
        again = error.exit_code == _OF_THE_MACHINE and job.pause_s is not None
        log.warning("job %d failed%s: %s", job.id, " and is tried again" if again else "", error)
        self._audit.write(
            "failed" if again else "dead",
            job.study,
            version=job.version,
            job=job.id,
            rule=job.rule,
            error=type(error).__name__,
        )
        self._queue.fail(job, str(error), again)


def _record(ledger: Path, job: Job, row: LedgerRow) -> None:
    """Append a row to the ledger of the service, which outlives the study: it names no series."""
    with shared_lines(ledger) as lines:
        lines.append([replace(row, case=job.folder, series_uid="", series_reason="").record()])


def check_model(rule: RuleConfig, model: Model) -> None:
    """Refuse a model whose hash the rule does not allow.

    Raises:
        ConfigError: if the rule allows none yet.
        CheckpointError: if it allows another one.
    """
    if rule.model_hash is None:
        raise ConfigError(
            f"rule {rule.name!r} does not say which model is allowed; for {rule.model} add model_hash: "
            f"{model.model_hash}"
        )
    if not model.model_hash.startswith(rule.model_hash):
        raise CheckpointError(
            f"{rule.model} has the hash {model.model_hash}, and rule {rule.name!r} allows {rule.model_hash}; put the "
            "accepted model back, or accept the new one and enter its hash"
        )
