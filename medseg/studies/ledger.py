"""`ledger.jsonl`: the outcome of each case, a line per attempt; the last line of a case counts."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.disk.shared_lines import shared_lines
from medseg.errors import ReadError

__all__ = ["Ledger", "LedgerRow", "State", "hash_file"]

FORMAT_VERSION = 1
# Values that the rows of one run share.
_ALIKE = frozenset(
    {
        "state",
        "series_reason",
        "model_hash",
        "options",
        "network_engine",
        "versions",
        "findings",
        "measurements",
        "run_started",
    }
)
FINISHED = ("done", "done_empty", "needs_review")
State = Literal["done", "done_empty", "failed", "needs_review"]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One attempt at one case. It contains file names and UIDs, but no patient name.

    Args:
        case: name of the case, and of its output.
        state: 'done', 'done_empty' (a mask without any label), 'needs_review' (done, but a person should check it) or
            'failed'.
        input_hash: SHA-256 of the input; '' if it could not be read. study_hash: hash of patient and study, or of the
            path if they are missing, with the site's key; '' if nothing of the study could be read.
        images: largest number of images of the series that any run has seen; 0 for other formats.
        series_uid, series_reason: the series that was used, and why that one.
        model_hash: `Model.model_hash`.
        options: everything that affects the result besides model and input.
        output_hash: SHA-256 of the mask's file, of the first one where there are several; '' if there is none.
        outputs: format -> SHA-256 of its file, where several formats were asked for; otherwise empty.
        seconds: from reading to the written mask.
        error: one line, '' if there was no error.
        findings: a sentence each; some require review.
        measurements: a record per label, the rows of `measurements.csv`.
        figures: name -> value, see `medseg.inference.quality.CaseCheck`; {} in rows of earlier versions.
        run_started: UTC time at which the run began that made the row; '' in rows of earlier versions. A run processes
            its cases by size, so that the order of rows says nothing within it.
        network_engine: the engine that ran the network, chosen once for an output folder; '' if it did not run, or ran
            as it is before any image had shown enough labels to choose by.
        versions: of medseg and torch, and the device.
    """

    case: str
    state: State
    input_hash: str = ""
    study_hash: str = ""
    images: int = 0
    series_uid: str = ""
    series_reason: str = ""
    model_hash: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    output_hash: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    findings: list[str] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    run_started: str = ""
    network_engine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def record(self) -> dict[str, Any]:
        """Its values by name, not copied: a deep copy would take longer than everything else about a row."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def finishes(self, input_hash: str, model_hash: str, options: dict[str, Any], outputs: Mapping[str, Path]) -> bool:
        """Whether the case was done from this input by this model with these options, and its files are unchanged.

        Args:
            input_hash, model_hash, options: of the run.
            outputs: format -> file that the run would write.
        """
        hashes = self.outputs or dict.fromkeys(outputs, self.output_hash)
        return (
            self.state in FINISHED
            and (self.input_hash, self.model_hash, self.options) == (input_hash, model_hash, options)
            and all(path.is_file() and hash_file(path) == hashes.get(kind) for kind, path in outputs.items())
        )


class Ledger:
    """The ledger of an output folder. Several threads and several runs may append to it.

    Args:
        path: `ledger.jsonl`; need not exist. A line truncated by a kill is skipped, and removed before the next one.

    Raises:
        ReadError: if the file exists and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latest: dict[str, LedgerRow] = {}
        # (model, fast) -> case -> engine that ran the network, the latest one last.
        self._engines: dict[tuple[str, bool], dict[str, str]] = {}
        self._last = LedgerRow("", "failed")
        self._seen = 0
        self._guard = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read the rows that other runs have appended meanwhile.

        Raises:
            ReadError: if the file exists and cannot be read.
        """
        with self._guard:
            try:
                with self.path.open("rb", buffering=0) as file:
                    file.seek(self._seen)
                    added = file.read()
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                raise ReadError(f"{self.path}: the ledger cannot be read ({error.strerror})") from None
            for line in io.BytesIO(added):
                if line.endswith(b"\n"):
                    self._seen += len(line)
                    self._take(line)

    def _take(self, line: bytes) -> None:
        row = _parse(line, self._last)
        if row is None:
            return
        self._last = row
        before = self._latest.pop(row.case, None)
        self._latest[row.case] = row
        if before is not None and before.network_engine:
            del self._engines[_run_of(before)][row.case]
        if row.network_engine:
            self._engines.setdefault(_run_of(row), {})[row.case] = row.network_engine

    def latest(self, case: str) -> LedgerRow | None:
        """The last row of a case."""
        with self._guard:
            return self._latest.get(case)

    def engine_of(self, model_hash: str, fast: bool) -> str:
        """The engine in the last row of this model; '' if there is none."""
        with self._guard:
            return next(reversed(self._engines.get((model_hash, fast), {}).values()), "")

    @property
    def rows(self) -> tuple[LedgerRow, ...]:
        """The last row of every case, by name."""
        with self._guard:
            return tuple(row for _, row in sorted(self._latest.items()))

    @property
    def by_time(self) -> tuple[LedgerRow, ...]:
        """The last row of every case, in the order in which they were written."""
        with self._guard:
            return tuple(self._latest.values())

    def append(self, row: LedgerRow) -> None:
        """Append a row and flush it to the disk.

        Raises:
            WriteError: if the disk is full or permission is missing.
        """
        with shared_lines(self.path) as lines:
            lines.append([row.record()])
        self.refresh()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run_of(row: LedgerRow) -> tuple[str, bool]:
    return row.model_hash, bool(row.options.get("fast", False))


def _parse(line: bytes, before: LedgerRow) -> LedgerRow | None:
    """The row of a line, sharing equal values with the previous one, which saves most of the memory."""
    try:
        values = json.loads(line.decode("utf-8", errors="replace"))
        known = {key: values[key] for key in LedgerRow.__dataclass_fields__ if key in values}
        for key in _ALIKE & known.keys():
            known[key] = getattr(before, key) if known[key] == getattr(before, key) else known[key]
        row = LedgerRow(**known)
        sound = all(isinstance(text, str) for text in (row.case, row.model_hash, row.network_engine))
        return row if sound and isinstance(row.options, dict) and isinstance(row.outputs, dict) else None
    except (ValueError, TypeError, KeyError):
        return None
