"""What a task measures is declared: every value has a heading, a unit and a direction."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from medseg.labels import LabelScheme
from medseg.metrics import ALL_METRICS
from medseg.tasks import TASKS, TaskCase
from medseg.volume import Volume


def _case(dims: int, spacing_known: bool) -> TaskCase:
    ref = np.zeros((30, 20, 16)[:dims], np.uint8)
    ref[3:12, 4:15], ref[18:27, 4:15] = 1, 1
    if dims == 3:
        ref[..., :2] = ref[..., -2:] = 0
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    pred = Volume(np.roll(ref, 1, axis=1), affine, spacing_known=spacing_known)
    image = np.where(ref > 0, -850, 40).astype(np.int16)
    colour = np.stack([image + 900] * 3) if dims == 2 else image
    return TaskCase(
        pred,
        Volume(ref, affine, spacing_known=spacing_known),
        LabelScheme.from_mapping({"lung": 1}),
        Volume(colour, affine, channels=3 if dims == 2 else 0, spacing_known=spacing_known),
        Volume(ref * 0.5, affine, spacing_known=spacing_known),
        np.ones(ref.shape, bool),
    )


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spacing_known", [True, False])
def test_every_value_of_a_task_is_declared(name: str, dims: int, spacing_known: bool) -> None:
    task = TASKS[name]
    found = task.score(_case(dims, spacing_known)).values
    assert found or (name == "lung" and (dims == 2 or not spacing_known))
    assert {v for values in found.values() for v in values} <= task.columns.keys() | ALL_METRICS.keys()


def test_a_name_means_the_same_in_every_task_and_is_no_metrics() -> None:
    declared = defaultdict(list)
    for task in TASKS.values():
        assert not task.columns.keys() & ALL_METRICS.keys()
        for name, record in task.columns.items():
            declared[name].append(record)
    assert all(record == records[0] for records in declared.values() for record in records)


@pytest.mark.parametrize("name", TASKS)
def test_what_leads_in_a_report_is_a_metric_or_a_column_of_the_task(name: str) -> None:
    task = TASKS[name]
    assert {*task.leading, *task.metrics} <= task.columns.keys() | ALL_METRICS.keys()
    assert all(record.title and record.definition for record in task.columns.values())
