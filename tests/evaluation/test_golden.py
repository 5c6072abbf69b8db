"""What an evaluation writes is what earlier versions wrote, key by key and number by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_scene import write_scene

from medseg.evaluation import evaluate

GOLDEN = Path(__file__).parent / "golden"


def without_versions(text: str) -> dict[str, Any]:
    """The summary without the versions of what computed it."""
    summary: dict[str, Any] = json.loads(text)
    summary.pop("versions")
    summary["method"] = summary["method"].split(" Computed with ")[0]
    return summary


def assert_equal(found: Any, wanted: Any, place: str = "summary") -> None:
    """Keys in the same order and values equal; numbers up to what processors round differently."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), place
        for key in wanted:
            assert_equal(found[key], wanted[key], f"{place}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for n, pair in enumerate(zip(found, wanted, strict=True)):
            assert_equal(*pair, f"{place}[{n}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True), place
    else:
        assert found == wanted, place


def rows(text: str) -> list[list[str | float]]:
    """Case, label, metric and value of every line behind the first."""
    lines = [line.split(",") for line in text.splitlines()[1:]]
    return [[*line[:3], float(line[3]) if line[3] else ""] for line in lines]


def test_cases_and_summary_are_those_of_the_release_before_summaries_were_typed(tmp_path: Path) -> None:
    result = evaluate(**write_scene(tmp_path), out=tmp_path / "out")
    cases = (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8")
    assert_equal(rows(cases), rows((GOLDEN / "cases.csv").read_text(encoding="utf-8")), "cases")
    text = (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")
    assert_equal(without_versions(text), without_versions((GOLDEN / "summary.json").read_text(encoding="utf-8")))
    assert text == result.to_json() + "\n" and json.loads(text) == dict(result.summary)


def test_the_summary_is_typed_and_a_mapping_of_the_same_numbers(tmp_path: Path) -> None:
    summary = evaluate(**write_scene(tmp_path)).summary
    found = summary.labels["tumour"]["hd95"]
    assert summary["labels"]["tumour"]["hd95"]["mean"] == found.mean and found.n_infinite == 1
    assert summary.absent["tumour"].n == summary["absent"]["tumour"]["n"] == 2
    assert summary.absent["tumour"].false_positive_px is None
    assert "false_positive_px" not in summary["absent"]["tumour"]
    assert list(summary) == list(summary.record) and "nothing" not in summary
