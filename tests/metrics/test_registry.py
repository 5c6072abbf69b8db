"""What holds for the record of every metric."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from medseg.errors import ConfigError
from medseg.metrics import ALL_METRICS, METRIC_INFO, score_case
from medseg.metrics.conventions import Conventions
from medseg.metrics.empty import empty_score
from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.label_pair import LabelPair
from medseg.metrics.options import ScoreOptions


@pytest.mark.parametrize("name", ALL_METRICS)
def test_the_options_of_a_metric_are_conventions_and_its_definition_names_their_values(name: str) -> None:
    record = ALL_METRICS[name]
    assert set(record.options) <= {f.name for f in fields(Conventions)}
    text = ScoreOptions((name,)).define(name)
    assert record.title and record.better and "{" not in text and text.endswith(f"({record.source}).")
    assert record.limits[0] < record.limits[1]


@pytest.mark.parametrize("name", METRIC_INFO)
def test_a_metric_that_is_computed_for_empty_masks_itself_agrees_with_its_policy(name: str) -> None:
    """The functions can be called directly, so their own answer and that of the record must be one."""
    empty, full = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint8)
    full[2:6, 2:6, 2:6] = 1
    for pred, ref in ((empty, empty), (empty, full), (full, empty)):
        pair = LabelPair(LabelMaps.of(pred, ref, (1.0, 1.0, 2.0), (1,)), (1,), Conventions())
        said = empty_score(METRIC_INFO[name].empty, not pred.any(), not ref.any())
        own = float(METRIC_INFO[name].function(pair))
        assert said is None or own == said or (math.isnan(own) and math.isnan(said))


def test_a_metric_of_probabilities_is_refused_where_there_are_only_masks() -> None:
    with pytest.raises(ConfigError, match="auc need probabilities"):
        score_case([[1, 0]], [[1, 0]], metrics=("auc",))
