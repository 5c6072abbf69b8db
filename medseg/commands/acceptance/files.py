"""`acceptance.html`, `acceptance.json` and `cases.csv`, and reading what `drift` needs of the second."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg.commands.acceptance.page import page_of
from medseg.disk.atomic import write_text_atomic
from medseg.errors import ReadError
from medseg.evaluation.acceptance import Acceptance
from medseg.reports.acceptance_page import write_acceptance_page
from medseg.version import __version__

__all__ = ["read_accepted", "write_acceptance"]

FORMAT_VERSION = 1


def write_acceptance(
    result: Acceptance, folder: Path, model_hash: str, model_name: str, left_out: tuple[str, ...]
) -> None:
    """Write all files; the same masks give the same bytes.

    Args:
        result: of `accept_cases`.
        folder: an existing one.
        model_hash, model_name, left_out: see `page_of`.

    Raises:
        WriteError: disk full, no permission.
    """
    record = {
        "format_version": FORMAT_VERSION,
        "model_hash": model_hash,
        "model": model_name,
        "medseg": __version__,
        "unit": result.unit,
        "width": result.width,
        "least_dice": result.least_dice,
        "cases": len(result.cases),
        "patients": result.patients,
        "failed": {case.case: case.error for case in result.failed},
        "needs_review": {case.case: list(case.findings) for case in result.review},
        "labels": {name: asdict(label) for name, label in result.labels.items()},
        "groups": [{**asdict(group), "differs": group.differs} for group in result.groups],
        "not_grouped": list(left_out),
        "figures": [dict(case.figures) for case in result.cases if not case.error],
    }
    write_text_atomic(folder / "acceptance.json", json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
    write_text_atomic(folder / "cases.csv", _cases_csv(result))
    write_acceptance_page(folder / "acceptance.html", page_of(result, model_hash, model_name, left_out))


def _cases_csv(result: Acceptance) -> str:
    """A line for each case and label."""
    attributes = list(dict.fromkeys(name for case in result.cases for name in case.attributes))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    sizes = (f"predicted_{result.unit}", f"reference_{result.unit}")
    writer.writerow(["case", "state", "label", "dice", *sizes, *attributes, "findings"])
    for case in result.cases:
        state = "failed" if case.error else "needs_review" if case.needs_review else "done"
        known = [case.attributes.get(name, "") for name in attributes]
        said = case.error or "; ".join(case.findings)
        for name, label in case.labels.items() or {"": None}.items():
            scores = (
                ["", "", ""] if label is None else [_cell(label.dice), _cell(label.pred_size), _cell(label.ref_size)]
            )
            writer.writerow([case.case, state, name, *scores, *known, said])
    return buffer.getvalue()


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _plain(value: Any) -> Any:
    """As JSON takes it: what is not finite becomes None."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_accepted(path: Path) -> tuple[str, list[dict[str, float]]]:
    """The model's hash and the figures of each accepted case.

    Args:
        path: `acceptance.json`, or the folder that holds it.

    Raises:
        ReadError: not such a file.
    """
    file = path / "acceptance.json" if path.is_dir() else path
    wrong = f"{file}: expected the acceptance.json of medseg accept"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"{wrong}, which cannot be read ({error.strerror})") from None
    except ValueError:
        raise ReadError(f"{wrong}, found no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("figures"), list):
        raise ReadError(f"{wrong}, found other JSON")
    if found.get("format_version") != FORMAT_VERSION:
        raise ReadError(f"{file} has format_version {found.get('format_version')!r}, expected {FORMAT_VERSION}")
    figures = [each for each in found["figures"] if isinstance(each, dict)]
    numbers = [{str(k): float(v) for k, v in each.items() if isinstance(v, int | float)} for each in figures]
    return str(found.get("model_hash", "")), numbers
