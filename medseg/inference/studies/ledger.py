"""`ledger.jsonl`: what became of each case, a line per attempt, the last line of a case counts."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.errors import ReadError
from medseg.io.atomic import write_error

__all__ = ["Ledger", "LedgerRow", "State", "hash_file"]

FORMAT_VERSION = 1
FINISHED = ("done", "done_empty", "needs_review")
State = Literal["done", "done_empty", "failed", "needs_review"]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One attempt at one case. It names files and UIDs, never a patient.

    Args:
        case: name of the case, and of its output.
        state: 'done', 'done_empty' (a mask without any label), 'needs_review' (done, but look at it) or 'failed'.
        input_hash: SHA-256 of what was read; '' if it could not be read.
        series_uid, series_reason: the series that was used, and why that one.
        model_hash: `Model.model_hash`.
        options: all that changes the result besides model and input.
        output_hash: SHA-256 of the mask's file; '' if there is none.
        seconds: from reading to the written mask.
        error: one line, '' if all went well.
        versions: of medseg and torch, and the device.
    """

    case: str
    state: State
    input_hash: str = ""
    series_uid: str = ""
    series_reason: str = ""
    model_hash: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    output_hash: str = ""
    seconds: float = 0.0
    error: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


class Ledger:
    """The ledger of an output folder.

    Args:
        path: `ledger.jsonl`; need not exist. Lines that a kill cut short are passed over.

    Raises:
        ReadError: if the file exists and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latest: dict[str, LedgerRow] = {}
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        except OSError as error:
            raise ReadError(f"{path}: the ledger cannot be read ({error.strerror})") from None
        # A line cut short by a kill has no newline; the next one must not be glued to it.
        self._needs_newline = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            row = _parse(line)
            if row is not None:
                self._latest[row.case] = row

    def finished(self, case: str, input_hash: str, model_hash: str, options: dict[str, Any], output: Path) -> bool:
        """Whether the case was done from this input by this model with these options, and its mask is untouched."""
        row = self._latest.get(case)
        return (
            row is not None
            and row.state in FINISHED
            and (row.input_hash, row.model_hash, row.options) == (input_hash, model_hash, options)
            and output.is_file()
            and hash_file(output) == row.output_hash
        )

    def latest(self, case: str) -> LedgerRow | None:
        """The last row of a case."""
        return self._latest.get(case)

    def append(self, row: LedgerRow) -> None:
        """Add a row and see it onto the disk.

        Raises:
            WriteError: disk full, no permission.
        """
        line = json.dumps(asdict(row), ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._needs_newline else line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._needs_newline = True
            raise write_error(self.path, error) from error
        self._needs_newline = False
        self._latest[row.case] = row


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(line: str) -> LedgerRow | None:
    try:
        values = json.loads(line)
        known = {key: values[key] for key in LedgerRow.__dataclass_fields__ if key in values}
        return LedgerRow(**known)
    except (ValueError, TypeError, KeyError):
        return None
