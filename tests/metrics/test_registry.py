"""What holds for the record of every metric."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from medseg.errors import ConfigError
from medseg.metrics import ALL_METRICS, Metric, score_case
from medseg.metrics.conventions import Conventions
from medseg.metrics.options import ScoreOptions


@pytest.mark.parametrize("name", ALL_METRICS)
def test_the_options_of_a_metric_are_conventions_and_its_definition_names_their_values(name: str) -> None:
    record = ALL_METRICS[name]
    assert set(record.options) <= {f.name for f in fields(Conventions)}
    text = ScoreOptions((name,)).define(name)
    assert record.title and record.better and "{" not in text and text.endswith(f"({record.source}).")
    assert record.limits[0] < record.limits[1]


def test_the_record_decides_about_empty_masks_so_that_a_function_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function divides by the voxels of the reference; the record says what an empty one scores."""
    kept = Metric(
        title="Kept",
        better="higher",
        definition="Share kept",
        source="none",
        function=lambda pair: pair.overlap.in_pred / pair.overlap.in_ref,
    )
    monkeypatch.setitem(ALL_METRICS, "kept", kept)
    empty, full = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)

    def score(pred: np.ndarray, ref: np.ndarray) -> float:
        return score_case(pred, ref, labels=(1,), metrics=("kept",))[1]["kept"]

    assert (score(full, full), score(empty, full), score(full, empty)) == (1.0, 0.0, 0.0)
    assert math.isnan(score(empty, empty))


def test_a_metric_of_probabilities_is_refused_where_there_are_only_masks() -> None:
    with pytest.raises(ConfigError, match="auc need probabilities"):
        score_case([[1, 0]], [[1, 0]], metrics=("auc",))
