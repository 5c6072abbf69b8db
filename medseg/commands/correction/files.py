"""What `medseg correct` writes beside the training: edits.csv, correction.json and correction.html."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.commands.correction.edits import LabelEdit, Swap
from medseg.commands.correction.gate import HeldOut, worse_cases
from medseg.commands.correction.matching import LeftOut
from medseg.disk.atomic import write_text_atomic
from medseg.reports.html import Cell, Report, Table, write_report
from medseg.version import __version__

__all__ = ["CorrectedRow", "Correction", "write_correction"]

FORMAT_VERSION = 1
State = Literal["suspected", "training", "accepted", "refused"]
_SAID = {
    "suspected": "Stopped before training: labels look swapped.",
    "training": "The training has not ended.",
    "accepted": "The new model ships: no held-out case got worse by more than the limit.",
    "refused": "The new model does not ship: held-out cases got worse.",
}


@dataclass(frozen=True, slots=True)
class CorrectedRow:
    """A corrected mask: its file, its study, how they were matched, and what becomes of it.

    `role`: 'training' (a case of the run that trains), 'new', or 'held out' (measured, but never trained on).
    """

    case: str
    file: str
    matched_by: str
    role: str


@dataclass(frozen=True, slots=True)
class Correction:
    """All that is known of a correction.

    Args:
        state: how far it is, and what became of the new model.
        run, before: the run folder, and the hash of its model.
        max_loss: what a held-out case may lose, in Dice.
        unit: of volumes, 'ml' or 'voxels'.
        corrected, left_out: the masks.
        edits, swaps: see there.
        held_out: scores of the gate; () before it.
    """

    state: State
    run: str
    before: str
    max_loss: float
    unit: str
    corrected: tuple[CorrectedRow, ...]
    left_out: tuple[LeftOut, ...]
    edits: tuple[LabelEdit, ...]
    swaps: tuple[Swap, ...]
    held_out: tuple[HeldOut, ...] = ()

    @property
    def worse(self) -> list[HeldOut]:
        """The held-out cases that got worse by more than the limit."""
        return worse_cases(self.held_out, self.max_loss)

    def lines(self) -> list[str]:
        """A summary for a console."""
        roles = [row.role for row in self.corrected]
        counted = ", ".join(f"{roles.count(role)} {role}" for role in ("training", "new", "held out") if role in roles)
        lines = [f"{len(self.corrected)} corrected masks ({counted})" if roles else "no corrected mask is used"]
        lines += [f"left out: {each.file}: {each.reason}" for each in self.left_out]
        added, removed = (sum(getattr(each, what) for each in self.edits) for what in ("added", "removed"))
        lines.append(f"edits: {added:.4g} {self.unit} added, {removed:.4g} {self.unit} removed")
        lines += [f"labels may be swapped in {each.text()}" for each in self.swaps]
        if self.held_out:
            before, after = (
                sum(getattr(each, when) for each in self.held_out) / len(self.held_out) for when in ("before", "after")
            )
            lines.append(f"held-out cases: mean Dice {before:.3f} before, {after:.3f} after")
        lines += [
            f"worse: {each.case}, {each.label}: Dice {each.before:.3f} before, {each.after:.3f} after"
            for each in self.worse
        ]
        return lines


def write_correction(correction: Correction, folder: Path) -> None:
    """Write all three files; the same masks and models give the same bytes.

    Raises:
        WriteError: disk full, no permission.
    """
    record = {
        "format_version": FORMAT_VERSION,
        "medseg": __version__,
        "state": correction.state,
        "run": correction.run,
        "model_before": correction.before,
        "max_loss": correction.max_loss,
        "unit": correction.unit,
        "corrected": [asdict(each) for each in correction.corrected],
        "left_out": [{"file": str(each.file), "reason": each.reason} for each in correction.left_out],
        "edits": [asdict(each) for each in correction.edits],
        "swaps": [asdict(each) for each in correction.swaps],
        "held_out": [asdict(each) for each in correction.held_out],
        "worse": list(dict.fromkeys(each.case for each in correction.worse)),
    }
    write_text_atomic(folder / "correction.json", json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    write_text_atomic(folder / "edits.csv", _edits_csv(correction.edits, correction.unit))
    write_report(folder / "correction.html", _page(correction))


def _edits_csv(edits: Sequence[LabelEdit], unit: str) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    sizes = ("before", "after", "added", "removed", "renamed")
    writer.writerow(["case", "label", *(f"{size}_{unit}" for size in sizes), "renamed_to", "dice", "assd", "hd95"])
    for each in edits:
        numbers = [getattr(each, size) for size in sizes]
        scores = [_cell(value) for value in (each.dice, each.assd, each.hd95)]
        writer.writerow([each.case, each.label, *(f"{number:.6g}" for number in numbers), each.renamed_to, *scores])
    return buffer.getvalue()


def _page(correction: Correction) -> Report:
    edits = Table(
        f"Edits of each label ({correction.unit}; distances of the surfaces in mm or voxels)",
        ("case", "label", "before", "after", "added", "removed", "renamed", "Dice", "assd", "hd95"),
        tuple(_edit_row(each) for each in correction.edits),
    )
    held = Table(
        "Held-out cases: Dice of the model before and of the new one",
        ("case", "label", "before", "after", "change"),
        tuple(
            (Cell(each.case), Cell(each.label), *map(_number, (each.before, each.after, -each.loss)))
            for each in sorted(correction.held_out, key=lambda each: -each.loss)
        ),
    )
    notes = [*correction.lines()]
    warning = "" if correction.state in ("accepted", "training") else _SAID[correction.state]
    return Report(
        title="Correction of a segmentation model",
        subtitle=f"{_SAID[correction.state]} From {correction.run}. For research only.",
        facts={
            "corrected masks": str(len(correction.corrected)),
            "left out": str(len(correction.left_out)),
            "labels that look swapped": str(len(correction.swaps)),
            "held-out cases that got worse": str(len({each.case for each in correction.worse})),
        },
        headline=held if correction.held_out else edits,
        warning=warning,
        notes=tuple(notes),
        cases=edits if correction.held_out else None,
    )


def _edit_row(each: LabelEdit) -> tuple[Cell, ...]:
    renamed = Cell(f"{each.renamed:.4g}", (f"to {each.renamed_to}",) if each.renamed_to else (), f"{each.renamed:.9f}")
    sizes = map(_number, (each.before, each.after, each.added, each.removed))
    return (Cell(each.case), Cell(each.label), *sizes, renamed, *map(_number, (each.dice, each.assd, each.hd95)))


def _number(value: float) -> Cell:
    return Cell(f"{value:.4g}" if math.isfinite(value) else "-", sort=f"{value:.9f}" if math.isfinite(value) else "")


def _cell(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _plain(value: Any) -> Any:
    """As JSON takes it: what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
