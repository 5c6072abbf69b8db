"""The outcome of one prediction run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import InternalError, MedsegError, PartialFailure
from medseg.studies.ledger import LedgerRow

__all__ = ["StudiesResult"]


@dataclass(frozen=True, slots=True)
class StudiesResult:
    """The outcome of each case.

    Args:
        out: the output folder.
        rows: what was done or failed in this call, in order.
        skipped: cases that were done before.
        planned: cases that would be done (dry run).
        dry_run: whether this was a dry run, which writes nothing.
        reasons: of planned cases: which series or files would be used and why, or why the case would be refused.
        errors: one per failed row, in order.
        locked: cases that another run is working on and that were left to it.
    """

    out: Path
    rows: tuple[LedgerRow, ...]
    skipped: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()
    errors: tuple[MedsegError, ...] = ()
    locked: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def failed(self) -> tuple[LedgerRow, ...]:
        """Rows of the cases that failed."""
        return tuple(row for row in self.rows if row.state == "failed")

    @property
    def done(self) -> tuple[LedgerRow, ...]:
        """Rows of the cases that have a mask now."""
        return tuple(row for row in self.rows if row.state != "failed")

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases by outcome."""
        states = [row.state for row in self.rows] + ["skipped"] * len(self.skipped) + ["planned"] * len(self.planned)
        states += ["left_to_another_run"] * len(self.locked)
        return {state: states.count(state) for state in dict.fromkeys(states)}

    @property
    def exit_code(self) -> int:
        """0 for success, 4 if some failed; if all failed: 1 for an internal error, else their common code, else 3."""
        if not self.failed:
            return 0
        if self.done or self.skipped:
            return PartialFailure.exit_code
        codes = {error.exit_code for error in self.errors}
        if InternalError.exit_code in codes:
            return InternalError.exit_code
        return codes.pop() if len(codes) == 1 else MedsegError.exit_code

    def raise_for_failures(self) -> None:
        """Raise the error that the command line reports; nothing if no case failed.

        Raises:
            PartialFailure: if some cases failed.
            MedsegError: if all cases failed; of the class of the first one, if all have the same.
        """
        if not self.failed:
            return
        # An internal error takes precedence over the errors of other cases.
        first = min(self.errors, key=lambda error: not isinstance(error, InternalError))
        case = self.failed[self.errors.index(first)].case
        if self.exit_code == PartialFailure.exit_code:
            raise PartialFailure(
                f"{len(self.failed)} of {len(self.failed) + len(self.done) + len(self.skipped)} cases failed, first "
                f"{case}: {first}; all reasons are in {self.out / 'ledger.jsonl'}"
            )
        kind = type(first) if self.exit_code == first.exit_code else MedsegError
        if len(self.failed) == 1:
            raise kind(str(first))
        raise kind(
            f"all {len(self.failed)} cases failed, first {case}: {first}; "
            f"all reasons are in {self.out / 'ledger.jsonl'}"
        )

    def text(self) -> str:
        """A few lines for a person to read."""
        lines = [f"{row.case}: {row.error}" for row in self.failed]
        lines += [f"{row.case}: nothing found, the mask is empty" for row in self.rows if row.state == "done_empty"]
        lines += [
            f"{row.case}: needs review: {'; '.join(row.findings)}" for row in self.rows if row.state == "needs_review"
        ]
        lines += [f"{case}: another run is working on it" for case in self.locked]
        lines += [f"would do {case}" + (f": {why}" if (why := self.reasons.get(case)) else "") for case in self.planned]
        counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in self.counts.items())
        where = "masks and ledger.jsonl are in"
        if self.dry_run:
            where = "nothing was written; masks and ledger.jsonl would go to"
        return "\n".join([*lines, f"{counts or 'nothing to do'}; {where} {self.out}"])

    def to_json(self) -> str:
        """The same for programs."""
        values = {
            "format_version": 1,
            "out": str(self.out),
            "dry_run": self.dry_run,
            "counts": self.counts,
            "cases": [row.record() for row in self.rows],
            "skipped": list(self.skipped),
            "planned": list(self.planned),
            "reasons": {case: self.reasons[case] for case in self.planned if self.reasons.get(case)},
            "locked": list(self.locked),
        }
        return json.dumps(values, indent=2, ensure_ascii=False)
