"""`medseg drift`: the figures of a ledger against those of the accepted cases, in the order of time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

from medseg.commands.acceptance.files import read_accepted
from medseg.errors import ConfigError, DatasetError, PartialFailure, ReadError
from medseg.evaluation.drift import Drift, DriftOptions, find_drift
from medseg.inference.quality import OUTSIDE
from medseg.studies.ledger import Ledger, LedgerRow
from medseg.studies.monitored import monitored_figures

__all__ = ["LedgerDrift", "drift_of_ledger"]


@dataclass(frozen=True, slots=True)
class LedgerDrift:
    """Drift of a ledger.

    Args:
        drift: of its studies.
        model_hash: of the model whose rows count.
        left_out: sentences about rows that do not count, and what cannot be seen.
    """

    drift: Drift
    model_hash: str
    left_out: tuple[str, ...]

    def text(self) -> str:
        """What the command prints."""
        return "\n".join([self.drift.text(), *self.left_out])

    def record(self) -> dict[str, object]:
        """For JSON."""
        return {**self.drift.record(), "model_hash": self.model_hash, "notes": list(self.left_out)}

    def raise_unless_steady(self) -> None:
        """End with exit code 4 on an alarm and on too few studies, so that no script takes either for well.

        Raises:
            PartialFailure: unless the state is "steady".
        """
        if self.drift.state == "alarm":
            names = ", ".join(figure.name for figure in self.drift.alarms)
            raise PartialFailure(f"drift alarm: {names} changed; look at the studies since then")
        if self.drift.state == "too_few":
            raise PartialFailure("too few studies to tell whether there is a drift; this is not an all-clear")


def drift_of_ledger(path: Path, accepted: Path | None, since: str | None, options: DriftOptions) -> LedgerDrift:
    """Test the studies of a ledger.

    Args:
        path: `ledger.jsonl`, or the folder that holds it.
        accepted: `acceptance.json` or its folder; None: the first studies are what later ones are compared with.
        since: day in the form 2026-11-30; runs that began before it do not count. None: all.
        options: of the test.

    Raises:
        ReadError: for files that cannot be read.
        DatasetError: a ledger without a mask of the model.
        ConfigError: a day in another form.
    """
    file = path / "ledger.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise ReadError(f"{file} does not exist; give the ledger.jsonl that medseg predict wrote, or its folder")
    first = _day(since)
    rows = Ledger(file).by_time
    model_hash, reference = (rows[-1].model_hash if rows else "", None) if accepted is None else read_accepted(accepted)
    ours = [row for row in rows if row.model_hash == model_hash]
    counted = [row for row in ours if row.state != "failed" and str(row.run_started) >= first]
    if not any(row.state != "failed" for row in ours):
        raise DatasetError(
            f"{file} contains no mask of the model {model_hash[:12] or '(none)'}"
            + ("; it was made with another model than was accepted" if rows and accepted else "")
        )
    failed = sum(row.state == "failed" and str(row.run_started) >= first for row in ours)
    ordered = _in_order(counted)
    studies = [monitored_figures(row.state, row.figures, row.measurements) for row in ordered]
    notes = []
    if len(rows) > len(ours):
        notes.append(f"{len(rows) - len(ours)} rows of other models do not count.")
    if failed:
        notes.append(f"{failed} studies failed and do not count; the ledger says why.")
    early = len(ours) - failed - len(counted) if first else 0
    if early:
        notes.append(f"{early} rows of runs before {since} do not count.")
    without = sum(not row.figures for row in counted)
    if without:
        notes.append(
            f"{without} studies have no figures of the image (an older medseg, or a model without training ranges): a "
            "change of scanner or noise is seen in their masks only."
        )
    largest = max((len(list(group)) for _, group in groupby(ordered, lambda row: row.run_started)), default=0)
    if largest > len(ordered) / 2 and largest > 1:
        notes.append(
            f"{largest} of {len(ordered)} studies are of one run, which says nothing of their order in time: a change "
            "within it is not seen, only a difference from what came before."
        )
    return LedgerDrift(find_drift(studies, reference, options, OUTSIDE), model_hash, tuple(notes))


def _in_order(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """By the start of the run; in random order within it, as a run takes the largest cases first."""
    ordered: list[LedgerRow] = []
    for _, group in groupby(sorted(rows, key=lambda row: str(row.run_started)), lambda row: str(row.run_started)):
        run = sorted(group, key=lambda row: row.case)
        random.Random(len(run)).shuffle(run)
        ordered += run
    return ordered


def _day(since: str | None) -> str:
    if since is None:
        return ""
    try:
        return date.fromisoformat(since).isoformat()
    except ValueError:
        raise ConfigError(f"--since is {since!r}; expected a day such as 2026-11-30") from None
