"""What an evaluation writes is what earlier versions wrote, number by number and byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from golden_scene import write_scene

from medseg.evaluation import evaluate

GOLDEN = Path(__file__).parent / "golden"


def without_versions(text: str) -> str:
    """The summary as text, without the versions of what computed it."""
    summary: dict[str, Any] = json.loads(text)
    summary.pop("versions")
    summary["method"] = summary["method"].split(" Computed with ")[0]
    return json.dumps(summary, indent=2, ensure_ascii=False)


def test_cases_and_summary_are_those_of_the_release_before_summaries_were_typed(tmp_path: Path) -> None:
    result = evaluate(**write_scene(tmp_path), out=tmp_path / "out")
    assert (tmp_path / "out" / "cases.csv").read_bytes() == (GOLDEN / "cases.csv").read_bytes()
    text = (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")
    assert without_versions(text) == without_versions((GOLDEN / "summary.json").read_text(encoding="utf-8"))
    assert text == result.to_json() + "\n" and json.loads(text) == dict(result.summary)


def test_the_summary_is_typed_and_a_mapping_of_the_same_numbers(tmp_path: Path) -> None:
    summary = evaluate(**write_scene(tmp_path)).summary
    found = summary.labels["tumour"]["hd95"]
    assert summary["labels"]["tumour"]["hd95"]["mean"] == found.mean and found.n_infinite == 1
    assert summary.absent["tumour"].n == summary["absent"]["tumour"]["n"] == 2
    assert summary.absent["tumour"].false_positive_px is None
    assert "false_positive_px" not in summary["absent"]["tumour"]
    assert list(summary) == list(summary.record) and "nothing" not in summary
